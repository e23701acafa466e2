"""What the cache refuses, and what it says; failures leave no wrong data and no memory behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from speckv_pynq import spec
from speckv_pynq.errors import (
    ConfigError,
    PoolFull,
    RecordError,
    ShapeError,
    SpeckvError,
    UnsupportedLayer,
)
from speckv_pynq.integrations._model import ModelShape
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from tests.integrations.tiny import (
    HEAD_DIM,
    HEADS,
    LAYERS,
    config,
    logits,
    model,
    prompt,
    raw_cache,
)


def states(tokens: int, rows: int = 1, **changes: Any) -> torch.Tensor:
    shape = {"heads": HEADS, "head_dim": HEAD_DIM} | changes
    return torch.randn(rows, shape["heads"], tokens, shape["head_dim"])


def fill(cache: SpecKVCache, tokens: int, rows: int = 1) -> None:
    for layer in range(LAYERS):
        cache.update(states(tokens, rows), states(tokens, rows), layer)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("MistralConfig", {"sliding_window": 128}, "layer 0: sliding_attention"),
        ("Gemma2Config", {}, r"layer \d+: sliding_attention"),
        ("Llama4TextConfig", {}, r"layer \d+: chunked_attention"),
        ("DeepseekV3Config", {}, "layer 0: latent attention"),
        ("Qwen3NextConfig", {}, "layer 0: linear_attention"),
        ("T5Config", {}, "t5 is an encoder-decoder model"),
        ("LlamaConfig", {"head_dim": 32}, "layer 0: full_attention of head_dim 32"),
    ],
)
def test_refused_models(name: str, settings: dict[str, Any], message: str) -> None:
    refused = getattr(transformers, name)(**settings)
    with pytest.raises(UnsupportedLayer, match=f"{message}.*; supported: decoder-only"):
        SpecKVCache.for_model(refused)


def test_heads_that_the_config_did_not_tell() -> None:
    with raw_cache(config()) as cache, pytest.raises(UnsupportedLayer, match="4 heads of 64"):
        cache.update(states(3, heads=4), states(3, heads=4), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "int3"}, "scheme 'int3' is not one of"),
        ({"block_tokens": 48}, "block_tokens 48"),
        ({"policy": "fifo"}, "policy 'fifo'"),
        ({"sinks": -1}, "sinks -1"),
        ({"block_dtype": "fp8"}, "block_dtype 'fp8'"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CacheConfig(**settings)


def test_values_too_large_for_fp16() -> None:
    large = states(60)
    large[0, 1, 20, 5] = 70000.0
    with SpecKVCache.for_model(config()) as cache:
        with pytest.raises(ConfigError, match=r'layer 0: .* 70000 is .* block_dtype="bf16"'):
            cache.update(large, states(60), 0)
        assert (cache.get_seq_length(), cache.stats().tiers.blocks) == (0, 0)
        fill(cache, 60)  # nothing of it was kept
    with SpecKVCache.for_model(config(), CacheConfig(block_dtype="bf16")) as cache:
        cache.update(large, states(60), 0)


def test_uncoded_values_too_large_for_fp16() -> None:
    with SpecKVCache.for_model(config()) as cache:
        fill(cache, 60)
        large = states(1)
        large[0, 0, 0, 7] = -80000.0
        with pytest.raises(ConfigError, match=r"layer 0: .* 80000 is"):
            cache.update(states(1), large, 0)
        assert cache.get_seq_length() == 60
        large[0, 0, 0, 7] = float("inf")  # was infinite before: nothing is lost
        cache.update(states(1), large, 0)


def test_a_failure_in_the_first_layer_changes_nothing() -> None:
    made = model()
    with SpecKVCache.for_model(made, CacheConfig("raw", recent=0, l3_bytes=6 * 36 << 10)) as cache:
        ids = prompt(1, 80)
        logits(made, cache, ids[:, :60])
        want = logits(made, cache.fork(), ids[:, 60:64])
        with pytest.raises(PoolFull, match="L3 holds"):
            cache.update(states(300), states(300), 0)
        assert torch.equal(logits(made, cache, ids[:, 60:64]), want)


def test_a_pass_that_stops_half_way_is_noticed() -> None:
    made, ids = model(), prompt(1, 80)
    # Blocks of 32 KiB: two in each of three layers fit, two more in the first layer, not in the second.
    with SpecKVCache.for_model(made, CacheConfig("raw", recent=0, l3_bytes=270 << 10)) as cache:
        logits(made, cache, ids)
        with pytest.raises(PoolFull, match="blocks of layer 1"):
            logits(made, cache, ids)
        assert [layer.get_seq_length() for layer in cache.layers] == [160, 80, 80]
        with pytest.raises(SpeckvError, match=r"stopped half-way; crop\(80\) or reset"):
            logits(made, cache, ids[:, :1])
        cache.crop(80)
        logits(made, cache, ids[:, :1])
        cache.reset()
        logits(made, cache, ids)


def test_a_damaged_record_is_an_error_that_names_the_block() -> None:
    with SpecKVCache.for_model(config(), CacheConfig("raw", recent=0, l1_bytes=0)) as cache:
        fill(cache, 60)
        layer = cache.layers[1]
        record = layer._store.tiers.records(int(layer.state.handles[0]))[0]
        record[100] ^= 1
        cache.update(states(1), states(1), 0)
        with pytest.raises(RecordError, match=r"layer 1, positions 4\.\.35.*bad_crc"):
            cache.update(states(1), states(1), 1)


def test_training_is_refused() -> None:
    with raw_cache(config()) as cache, pytest.raises(SpeckvError, match="no_grad"):
        cache.update(states(3).requires_grad_(), states(3), 0)


def test_shapes_and_dtypes_stay() -> None:
    with raw_cache(config()) as cache:
        fill(cache, 40)
        with pytest.raises(ShapeError, match=r"\(2, 2, 1, 64\)"):
            cache.update(states(1, rows=2), states(1, rows=2), 0)
        with pytest.raises(ShapeError, match="float16"):
            cache.update(states(1).half(), states(1).half(), 0)
    with (
        SpecKVCache.for_model(config(dtype="float16")) as cache,
        pytest.raises(ConfigError, match=r"gives torch\.float32, the cache was made for .*float16"),
    ):
        cache.update(states(3), states(3), 0)


def test_padding_must_fit() -> None:
    with raw_cache(config()) as cache:
        with pytest.raises(ConfigError, match="a row without tokens"):
            cache.set_padding(torch.zeros(2, 5))
        cache.set_padding(torch.tensor([[0, 0, 1], [1, 1, 1]]))
        with pytest.raises(ConfigError, match="attention_mask has 2 rows, the model runs 3"):
            cache.update(states(3, rows=3), states(3, rows=3), 0)
        fill(cache, 3, rows=4)  # two beams of each
        assert cache.layers[0].state.layout.padding == (2, 2, 0, 0)
        with pytest.raises(ConfigError, match="after 3 tokens"):
            cache.set_padding(torch.ones(4, 3))


def test_rows_outside_the_batch() -> None:
    with raw_cache(config()) as cache:
        fill(cache, 40, rows=2)
        with pytest.raises(ConfigError, match="rows"):
            cache.reorder_cache(torch.tensor([0, 2]))
        fill(cache, 1, rows=2)


def test_closed_and_pickled() -> None:
    cache = raw_cache(config())
    fill(cache, 40)
    with pytest.raises(TypeError, match=r"fork\(\)"):
        pickle.dumps(cache)
    cache.close()
    cache.close()
    for use in (cache.stats, cache.reset, cache.fork, lambda: fill(cache, 1)):
        with pytest.raises(SpeckvError, match="closed"):
            use()


def test_nothing_stays_behind() -> None:
    cache = raw_cache(config())
    device, tiers = cache.system.device, cache._store.tiers
    fill(cache, 100)
    fork = copy.deepcopy(cache)
    alive = weakref.ref(cache)
    del cache
    gc.collect()
    assert alive() is None
    assert device.live_bytes > 0
    fork.reset()
    assert tiers.stats().references == 0
    del fork
    gc.collect()
    assert device.live_buffers == 0


def test_fingerprint_covers_what_records_depend_on() -> None:
    def fingerprint(tokens: int = 32, **changes: Any) -> int:
        return ModelShape.of(config(**changes)).fingerprint(spec.DType.FP16, tokens)

    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    different = [
        fingerprint(),
        fingerprint(64),
        fingerprint(num_hidden_layers=2),
        fingerprint(num_key_value_heads=1),
        fingerprint(head_dim=128),
        fingerprint(rope_parameters=rope),
        ModelShape.of(config()).fingerprint(spec.DType.BF16, 32),
    ]
    assert len(set(different)) == len(different)
    assert fingerprint() == fingerprint(vocab_size=11)
