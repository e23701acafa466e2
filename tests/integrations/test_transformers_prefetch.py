"""Dense prefetch below a cache: nothing that it gives changes, and blocks are there before their layer asks."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import DynamicCache

from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from tests.integrations.test_transformers_operations import (
    FEW,
    LITTLE,
    OPERATIONS,
    PADDING,
    Operation,
    plain,
    run,
)
from tests.integrations.tiny import generate, logits, model, padded, prompt

pytestmark = pytest.mark.requires("libspeckv")
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "greedy": (prompt(1, 150), {"max_new_tokens": 40}),
    "beams": (padded([60, 21]), {"num_beams": 3, "max_new_tokens": 40}),
    "lookup": (prompt(1, 30).repeat(1, 4), {"prompt_lookup_num_tokens": 10, "max_new_tokens": 50}),
}


def dense(**changes: Any) -> CacheConfig:
    settings = {"scheme": "raw", "block_tokens": 16, "l1_bytes": 3 * LITTLE, "prefetch": "dense"}
    return CacheConfig(**(settings | changes))


@pytest.mark.parametrize("case", CASES)
def test_generation_is_that_of_dynamic_cache(case: str) -> None:
    made, (inputs, settings) = model(), CASES[case]
    want = generate(made, DynamicCache(config=made.config), inputs, **settings)
    mask = inputs["attention_mask"] if isinstance(inputs, dict) else None
    config = dense(block_dtype="fp32", l1_bytes=6 * LITTLE)
    with SpecKVCache.for_model(made, config, attention_mask=mask) as cache:
        assert torch.equal(generate(made, cache, inputs, **settings), want)
        assert cache.stats().tiers.prefetched > 0
        assert cache.stats().tiers.prefetch_failed == 0


@FEW
@given(PADDING, st.lists(OPERATIONS, max_size=14))
@example([0, 7, 30], [("reorder", [0]), ("append", 1), ("crop", 20), ("fork", None)])
def test_any_sequence(padding: list[int] | None, operations: list[Operation]) -> None:
    cache = plain("raw", torch.float32, 3, padding, 0, LITTLE, prefetch="dense")
    run(cache, [("append", 60), *operations])


def test_once_warm_nothing_is_fetched_on_demand_though_the_sequence_grows() -> None:
    made = model()
    with SpecKVCache.for_model(made, dense()) as cache:
        ids, tiers = prompt(1, 400), cache.system.tiers
        logits(made, cache, ids[:, :300])
        for at in range(300, 306):
            tiers.wait_prefetched()
            logits(made, cache, ids[:, at : at + 1])
        before = cache.stats().tiers
        for at in range(306, 400):
            tiers.wait_prefetched()
            logits(made, cache, ids[:, at : at + 1])
        after = cache.stats().tiers
        assert after.blocks > before.blocks
        assert after.misses == before.misses
        assert after.hits_l2 > before.hits_l2 + 94 * 3
        cache.crop(50)
        tiers.wait_prefetched()
        logits(made, cache, ids[:, 50:51])
        assert cache.stats().tiers.misses == before.misses


def test_where_everything_stays_decoded_there_is_nothing_to_bring_up() -> None:
    made = model()
    with SpecKVCache.for_model(made, dense(l1_bytes=None)) as cache:
        generate(made, cache, prompt(1, 100), max_new_tokens=5)
        assert cache.stats().tiers.prefetched == 0


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="prefetch 'lru'"):
        dense(prefetch="lru")
    with pytest.raises(ConfigError, match="prefetch_depth -1"):
        SpecKVCache.for_model(model(), dense(prefetch_depth=-1))
