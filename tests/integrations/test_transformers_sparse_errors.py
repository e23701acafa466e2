"""What sparse attention refuses, with what it says."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from speckv_pynq.errors import ConfigError, SpeckvError, UnsupportedLayer
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from tests.integrations.grouped import codebook
from tests.integrations.tiny import config, logits, model, prompt

pytestmark = pytest.mark.requires("libspeckv")
SPARSE = CacheConfig("raw", attention="sparse", least_blocks=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": "some"}, "attention 'some' is not one of"),
        ({"attention": "sparse", "budget": 0.0}, r"budget 0\.0"),
        ({"attention": "sparse", "budget": 1.5}, r"budget 1\.5 is not a share"),
        ({"attention": "sparse", "prefetch": "dense"}, 'prefetch "dense" is not for sparse'),
        ({"attention": "sparse", "least_blocks": -1}, "least_blocks -1"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CacheConfig(**settings)


def test_defaults_follow_from_attention() -> None:
    dense, sparse = CacheConfig(), CacheConfig(attention="sparse")
    assert (dense.block_tokens, dense.policy) == (32, "dense")
    assert (sparse.block_tokens, sparse.policy) == (16, "heat")
    assert CacheConfig(attention="sparse", block_tokens=32, policy="lru").block_tokens == 32


def test_a_config_alone() -> None:
    with pytest.raises(UnsupportedLayer, match=r"LlamaConfig: sparse attention needs a .* model"):
        SpecKVCache.for_model(config(), SPARSE)


class Fixed(type(model())):  # type: ignore[misc]
    """A model that calls its attention directly."""

    _can_set_attn_implementation_cached_value = False


def test_a_model_whose_attention_cannot_be_replaced() -> None:
    made = Fixed(config())
    with pytest.raises(UnsupportedLayer, match=r'Fixed: its attention cannot be .*"dense"'):
        SpecKVCache.for_model(made, SPARSE)
    SpecKVCache.for_model(made, CacheConfig("raw")).close()


def test_records_of_several_layers() -> None:
    made = copy.deepcopy(model())
    several = CacheConfig("klt", attention="sparse", codebook=codebook(made.config, 3))
    with pytest.raises(ConfigError, match=r"joins 3 layers .* scope layer"):
        SpecKVCache.for_model(made, several)


def test_attention_that_does_not_ask_is_noticed() -> None:
    made = copy.deepcopy(model())
    with SpecKVCache.for_model(made, SPARSE) as cache:
        logits(made, cache, prompt(1, 100))
        made.set_attn_implementation("sdpa")
        with pytest.raises(UnsupportedLayer, match=r'layer 0: .*"speckv_sparse"'):
            logits(made, cache, prompt(1, 1))
        cache.crop(100)
        made.set_attn_implementation("speckv_sparse")
        logits(made, cache, prompt(1, 1))


def test_what_has_not_been_asked_for_is_no_number() -> None:
    made = copy.deepcopy(model())
    with SpecKVCache.for_model(made, SPARSE) as cache:
        logits(made, cache, prompt(1, 100))
        keys, values = cache.update(torch.ones(1, 2, 1, 64), torch.ones(1, 2, 1, 64), 0)
    assert keys.shape == values.shape == (1, 2, 101, 64)
    assert keys.isnan().all()
    assert values.isnan().all()


def test_attention_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    made = copy.deepcopy(model())
    with SpecKVCache.for_model(made, SPARSE) as cache:
        logits(made, cache, prompt(1, 100))
        with pytest.raises(UnsupportedLayer, match="layer 0: attention with softcap"):
            logits(made, cache, prompt(1, 1), softcap=30.0)


def test_a_failure_in_a_step_is_noticed() -> None:
    made = copy.deepcopy(model())
    with SpecKVCache.for_model(made, CacheConfig("raw", attention="sparse", l1_bytes=0)) as cache:
        ids = prompt(1, 200)
        logits(made, cache, ids)
        handles = cache.layers[1].state.handles
        record = cache._store.tiers.records(int(handles[2]))[0]
        record[100] ^= 1
        with pytest.raises(SpeckvError, match=r"layer 1, positions 36\.\.51.*bad_crc"):
            logits(made, cache, ids[:, :1])
        record[100] ^= 1
        with pytest.raises(SpeckvError, match=r"stopped half-way; crop\(200\)"):
            logits(made, cache, ids[:, :1])
        cache.crop(200)
        logits(made, cache, ids[:, :1])


def test_a_cache_without_sparse_attention_sees_no_difference() -> None:
    made, plain = copy.deepcopy(model()), model()
    with SpecKVCache.for_model(made, SPARSE):
        pass
    ids = prompt(2, 90)
    with (
        SpecKVCache.for_model(made, CacheConfig("raw")) as one,
        SpecKVCache.for_model(plain, CacheConfig("raw")) as other,
    ):
        for part in (ids[:, :80], ids[:, 80:81], ids[:, 81:]):
            assert torch.equal(logits(made, one, part), logits(plain, other, part))
