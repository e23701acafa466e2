"""What stays in L1: the dense policy's fixed share, and LRU against an OrderedDict."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.block import BlockShape
from speckv_pynq.native import Tier
from speckv_pynq.spec import DType
from speckv_pynq.tiers import TierManager
from tests.runtime.tiers import LAYERS, SMALL, Cache, budgets, conserved, manager

pytestmark = pytest.mark.requires("libspeckv")
ODD = BlockShape(16, 1, 80, DType.FP16)  # 5 KiB: slots straddle frames


@pytest.mark.parametrize("share", [0.1, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("shape", [SMALL, ODD], ids=["8 KiB", "5 KiB"])
def test_dense_hits_the_share_that_l1_holds(shape: BlockShape, share: float) -> None:
    blocks, steps = 40, 10
    # One frame more than the blocks: the budget is cut to whole frames.
    config = budgets(shape, share * blocks * LAYERS + 4096 / shape.block_bytes)
    with manager(config, shape) as tiers:
        caches = [Cache.random(blocks, layer, shape) for layer in range(LAYERS)]
        handles = [cache.put(tiers, layer) for layer, cache in enumerate(caches)]
        for _ in range(steps + 1):
            for cache, those in zip(caches, handles, strict=True):
                assert cache.get(tiers, those).same(cache)
                conserved(tiers)
        rate = tiers.stats().hits_l1 / (steps * blocks * LAYERS)
        assert 0.95 * share <= rate <= 1.05 * share


def test_dense_fills_again_what_a_release_freed() -> None:
    with manager(budgets(SMALL, 4)) as tiers:
        a, b = Cache.random(4, 1), Cache.random(4, 2)
        first, second = a.put(tiers), b.put(tiers, 1)
        a.get(tiers, first)
        b.get(tiers, second)
        assert tiers.stats().l1_blocks == 4
        tiers.release(first[:3])
        assert tiers.stats().l1_bytes == SMALL.block_bytes
        for _ in range(2):
            assert b.get(tiers, second).same(b)
        assert tiers.stats().hits_l1 == 3


def residents(tiers: TierManager) -> list[int]:
    return tiers._core.resident(Tier.L1).tolist()


@settings(max_examples=40, deadline=None)
@given(
    slots=st.integers(0, 7),
    calls=st.lists(
        st.one_of(
            st.lists(st.integers(0, 11), min_size=1, max_size=12),
            st.integers(0, 11),
        ),
        max_size=12,
    ),
)
def test_lru_keeps_what_an_ordered_dict_keeps(slots: int, calls: list[list[int] | int]) -> None:
    """A call is a get of blocks, or the release of one that is then put again."""
    cache = Cache.random(12)
    with manager(budgets(SMALL, slots, policy="lru")) as tiers:
        handles = cache.put(tiers)
        kept: OrderedDict[int, None] = OrderedDict()
        hits = misses = 0
        for call in calls:
            if isinstance(call, int):
                tiers.release(handles[[call]])
                kept.pop(int(handles[call]), None)
                at = cache.offsets[[call]]
                handles[call] = tiers.put(0, at, [0], at, cache.kv())[0]
                continue
            wanted = handles[call].tolist()
            out = Cache.random(len(call)).empty()
            tiers.get(wanted, np.zeros(len(call), int), out.offsets, out.kv())
            found = [h for h in wanted if h in kept]
            missed = list(dict.fromkeys(h for h in wanted if h not in kept))
            hits, misses = hits + len(found), misses + len(wanted) - len(found)
            for handle in [*found, *missed]:  # hits count as used first
                kept[handle] = None
                kept.move_to_end(handle)
                if len(kept) > slots:
                    kept.popitem(last=False)
            assert residents(tiers) == list(kept)
            conserved(tiers)
            for i, source in enumerate(call):
                assert np.array_equal(out.block(i)[0], cache.block(source)[0])
        stats = tiers.stats()
        assert (stats.hits_l1, stats.misses) == (hits, misses)


def test_lru_never_hits_a_scan_that_dense_does() -> None:
    rates = {}
    for policy in ("dense", "lru"):
        with manager(budgets(SMALL, 10, policy=policy)) as tiers:
            cache = Cache.random(12)
            handles = cache.put(tiers)
            for _ in range(5):
                for handle, offset in zip(handles, cache.offsets, strict=True):
                    tiers.get([handle], [0], [offset], cache.kv())
            rates[policy] = tiers.stats().hits_l1 / (4 * 12)
    assert rates["lru"] == 0
    assert rates["dense"] == pytest.approx(10 / 12)
