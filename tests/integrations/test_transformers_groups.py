"""Records that join the blocks of several layers: generation, failures in the middle of them, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import DynamicCache, LlamaForCausalLM

from speckv_pynq.codebook import Codebook
from speckv_pynq.errors import CodebookError, ConfigError, PoolFull, SpeckvError
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from tests.integrations.grouped import codebook, raw_groups
from tests.integrations.tiny import HEAD_DIM, HEADS, config, generate, logits, padded, prompt

pytestmark = pytest.mark.requires("libspeckv")
LAYERS = 4
GROUPS = [2, 4]
KB = 1 << 10
L1 = [None, 40 * KB]  # a workspace for each group, or one for all


@functools.cache
def model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    settings = config(num_hidden_layers=LAYERS, initializer_range=0.2)
    return LlamaForCausalLM._from_config(settings, attn_implementation="sdpa").eval()


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "greedy": (prompt(1, 75), {"max_new_tokens": 70}),
    "short": (prompt(1, 1), {"max_new_tokens": 40}),
    "padded": (padded([100, 12, 67, 1]), {"max_new_tokens": 40}),
    "beams": (padded([60, 21]), {"num_beams": 3, "max_new_tokens": 40}),
    "lookup": (prompt(1, 30).repeat(1, 4), {"prompt_lookup_num_tokens": 10, "max_new_tokens": 50}),
    "assisted": (prompt(1, 60), {"assistant_model": model(5), "max_new_tokens": 40}),
    "chunked": (prompt(1, 200), {"prefill_chunk_size": 70, "max_new_tokens": 40}),
}


@pytest.mark.parametrize("l1_bytes", L1)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("case", CASES)
def test_generation_is_that_of_dynamic_cache(
    monkeypatch: pytest.MonkeyPatch, case: str, group: int, l1_bytes: int | None
) -> None:
    made, (inputs, settings) = model(), CASES[case]
    mask = inputs["attention_mask"] if isinstance(inputs, dict) else None
    want = generate(made, DynamicCache(config=made.config), inputs, **settings)
    with raw_groups(monkeypatch, made, group, mask, l1_bytes=l1_bytes) as cache:
        got = generate(made, cache, inputs, **settings)
        assert cache.stats().tiers.blocks or case == "short"
    assert got.tolist() == want.tolist()


@pytest.mark.parametrize("group", GROUPS)
def test_logits_forks_and_second_turns_are_equal_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    made, ids = model(), prompt(2, 140)
    with raw_groups(monkeypatch, made, group, recent=0) as cache:
        plain, at = DynamicCache(config=made.config), 0
        for tokens in (70, 1, 33, 1, 31):
            part = ids[:, at : at + tokens]
            assert torch.equal(logits(made, cache, part), logits(made, plain, part))
            at += tokens
        with copy.deepcopy(cache) as fork:
            blocks, references = (cache.stats().tiers.blocks, cache.stats().tiers.references)
            assert references == 2 * blocks
            logits(made, fork, ids[:, at:])
            fork.crop(20)
        assert cache.stats().tiers.references == blocks
        assert torch.equal(logits(made, cache, ids[:, at:]), logits(made, plain, ids[:, at:]))
        cache.reset()
        assert cache.stats().tiers.references == 0


def test_a_group_is_one_record_and_is_decoded_once_a_step() -> None:
    made = model()
    ids = prompt(1, 101)
    for group in (1, 2, 4):
        chosen = CacheConfig("klt", recent=0, l1_bytes=0, codebook=codebook(made.config, group))
        with SpecKVCache.for_model(made, chosen) as cache:
            logits(made, cache, ids[:, :100])
            assert cache.stats().tiers.misses == 0
            logits(made, cache, ids[:, 100:])
            stats = cache.stats()
        assert stats.tiers.blocks == stats.tiers.misses == 3 * LAYERS // group
        coded = 3 * 32 * LAYERS * 2 * HEADS * HEAD_DIM * 2
        assert stats.tiers.block_fp16_bytes == coded
        assert stats.fp16_bytes == 101 * LAYERS * 2 * HEADS * HEAD_DIM * 2
        # Sinks and the open run, in fp16, in every layer; its tensor has room for more.
        assert 5 <= stats.exact_bytes / (LAYERS * 2 * HEADS * HEAD_DIM * 2) <= 12


def states(tokens: int) -> torch.Tensor:
    return torch.randn(1, HEADS, tokens, HEAD_DIM)


def lengths(cache: SpecKVCache) -> list[int]:
    return [layer.get_seq_length() for layer in cache.layers]


def test_a_pass_that_stops_within_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ids = model(), prompt(1, 90)
    with raw_groups(monkeypatch, made, 2, recent=0) as cache:
        logits(made, cache, ids[:, :60])
        want = logits(made, cache.fork(), ids[:, 60:])
        for layer in range(3):  # the second group has one of its two layers
            cache.update(states(40), states(40), layer)
        assert lengths(cache) == [100, 100, 100, 60]
        with pytest.raises(SpeckvError, match=r"layer 3 holds 60 .*half-way; crop\(60\) or reset"):
            logits(made, cache, ids[:, 60:])
        with pytest.raises(SpeckvError, match=r"layer 3 is out of turn: layers 2\.\.3"):
            cache.update(states(1), states(1), 3)
        cache.crop(60)
        assert lengths(cache) == [60] * 4
        assert torch.equal(logits(made, cache, ids[:, 60:]), want)
        cache.update(states(40), states(40), 0)
        cache.crop(-40)  # what is left is what was there before
        assert lengths(cache) == [90, 90, 50, 50]
        cache.reset()
        assert cache.stats().tiers.references == 0
        logits(made, cache, ids)


def test_a_first_pass_that_stops_within_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ids = model(), prompt(1, 90)
    with raw_groups(monkeypatch, made, 2) as cache:
        cache.update(states(40), states(40), 0)
        assert lengths(cache) == [40, 0, 0, 0]
        with pytest.raises(SpeckvError, match=r"half-way; reset\(\) the cache"):
            logits(made, cache, ids)
        cache.reset()
        logits(made, cache, ids)


def test_a_full_pool_leaves_the_group_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ids = model(), prompt(1, 80)
    # Blocks of 64 KiB, of two layers: two for each group fit, and one more.
    with raw_groups(monkeypatch, made, 2, recent=0, l3_bytes=5 * 66 * KB) as cache:
        logits(made, cache, ids)
        with pytest.raises(PoolFull, match="blocks of layer 0"):
            logits(made, cache, ids)
        assert lengths(cache) == [80] * 4  # it was the first group: nothing happened
        logits(made, cache, ids[:, :10])
        with pytest.raises(PoolFull, match="blocks of layer 2"):
            logits(made, cache, ids[:, :20])
        assert lengths(cache) == [110, 110, 90, 90]
        with pytest.raises(SpeckvError, match=r"crop\(90\)"):
            logits(made, cache, ids[:, :1])
        cache.crop(90)
        logits(made, cache, ids[:, :1])


def test_values_too_large_name_the_group() -> None:
    made = config(num_hidden_layers=LAYERS)
    with SpecKVCache.for_model(made, CacheConfig("klt", codebook=codebook(made, 2))) as cache:
        large = states(60)
        large[0, 1, 20, 5] = 70000.0
        cache.update(large, states(60), 0)
        with pytest.raises(ConfigError, match=r"layers 0\.\.1: a value of magnitude 70000"):
            cache.update(states(60), states(60), 1)
        assert lengths(cache) == [0] * 4


def test_layers_of_a_group_come_in_order() -> None:
    made = config(num_hidden_layers=LAYERS)
    with SpecKVCache.for_model(made, CacheConfig("klt", codebook=codebook(made, 4))) as cache:
        with pytest.raises(SpeckvError, match=r"layer 1 is out of turn: layers 0\.\.3"):
            cache.update(states(3), states(3), 1)
        cache.update(states(3), states(3), 0)
        with pytest.raises(SpeckvError, match="the same number of tokens"):
            cache.update(states(2), states(2), 1)
        with pytest.raises(SpeckvError, match="out of turn"):
            cache.update(states(3), states(3), 2)


# What is refused


def changed(book: Codebook, **units: Any) -> Codebook:
    return Codebook(tuple(dataclasses.replace(u, **units) for u in book.units), book.tables)


def stated(book: Codebook, **metadata: str) -> Codebook:
    return dataclasses.replace(book, metadata=metadata)


@pytest.mark.parametrize(
    ("layers", "given", "message"),
    [
        (3, lambda made: codebook(made, 2), "joins 2 layers .* does not divide the model's 3"),
        (8, lambda made: codebook(config(num_hidden_layers=4), 2), r"layers \[0, 2\], .* 8 layers"),
        (2, lambda made: changed(codebook(made, 1), head_dim=128), "made for head_dim 128"),
        (2, lambda made: codebook(config(num_hidden_layers=4), 2), r"begin with layers \[0, 2\]"),
    ],
)
def test_a_codebook_of_another_geometry(layers: int, given: Any, message: str) -> None:
    made = config(num_hidden_layers=layers)
    if "head_dim" in message:
        from tests.codebooks import Shape, random_codebook

        chosen = random_codebook(0, Shape(HEADS, 128), units=layers)
    else:
        chosen = given(made)
    with pytest.raises(CodebookError, match=message):
        SpecKVCache.for_model(made, CacheConfig("klt", codebook=chosen))


def test_a_codebook_of_another_model_rope_or_dtype() -> None:
    made = model()
    book = codebook(made.config, 1)

    def refuses(given: Codebook, message: str, **settings: Any) -> None:
        with pytest.raises(CodebookError, match=message):
            SpecKVCache.for_model(made, CacheConfig("klt", codebook=given, **settings))

    other = stated(book, model_fingerprint="0123456789abcdef")
    refuses(other, "of fingerprint 0123456789abcdef, this one has [0-9a-f]{16}")
    with SpecKVCache.for_model(made.config, CacheConfig("klt", codebook=other)):
        pass  # a config says nothing of weights
    slower = config(
        num_hidden_layers=LAYERS, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )
    refuses(codebook(slower, 1), "made for RoPE of 32 half-split pairs down to .* this model's is")
    refuses(changed(book, interleaved=True), "made for RoPE of 32 interleaved pairs")
    refuses(stated(book, dtypes="fp16"), "made for fp16 blocks, not bf16", block_dtype="bf16")
    with SpecKVCache.for_model(
        made, CacheConfig("klt", codebook=stated(book, dtypes="fp16, bf16"))
    ):
        pass


def test_klt_without_a_codebook_says_how_to_make_one() -> None:
    with pytest.raises(
        ConfigError, match=r"this model \(fingerprint [0-9a-f]{16}\).*speckv calibrate"
    ):
        SpecKVCache.for_model(model(), CacheConfig("klt"))
    with pytest.raises(ConfigError, match=r"a config alone.*speckv calibrate"):
        SpecKVCache.for_model(config(), CacheConfig("klt"))
    with pytest.raises(ConfigError, match="scheme int4 takes none"):
        CacheConfig("int4", codebook="some.safetensors")


def test_a_file_and_a_shipped_codebook(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from speckv_pynq.integrations import _codebook
    from speckv_pynq.integrations._fingerprint import model_fingerprint

    made = model()
    book = stated(codebook(made.config, 2), model_fingerprint=model_fingerprint(made))
    book.save(tmp_path / "tiny.safetensors")
    stated(book, model_fingerprint="0").save(tmp_path / "another.safetensors")
    monkeypatch.setattr(_codebook, "SHIPPED", tmp_path)
    for given in (None, tmp_path / "tiny.safetensors", str(tmp_path / "tiny.safetensors"), book):
        with SpecKVCache.for_model(made, CacheConfig("klt", codebook=given)) as cache:
            logits(made, cache, prompt(1, 70))
    with pytest.raises(
        CodebookError, match=r"another\.safetensors: made for a model of fingerprint 0"
    ):
        SpecKVCache.for_model(made, CacheConfig("klt", codebook=tmp_path / "another.safetensors"))
    with pytest.raises(CodebookError, match=r"missing\.safetensors"):
        SpecKVCache.for_model(made, CacheConfig("klt", codebook=tmp_path / "missing.safetensors"))
