"""The heat policy against sums of decayed uses, made anew at each eviction."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.errors import DeviceError, StaleHandle
from speckv_pynq.native import Core, Tier
from speckv_pynq.tiers import TierManager
from speckv_pynq.tiers.policies import ENTRY_FACTOR, HALF_LIFE_SHARE
from tests.runtime.test_native_core import Memory, record
from tests.runtime.test_tiers_faults import FaultyDevice, faulty
from tests.runtime.tiers import SMALL, Cache, budgets, conserved, manager

pytestmark = pytest.mark.requires("libspeckv")
BLOCKS = 12


def residents(tiers: TierManager) -> set[int]:
    return set(tiers._core.resident(Tier.L1).tolist())


@dataclass
class HeatModel:
    """Every use of every block, by its time. BLOCKS are held, so a half-life is a whole number of uses, and no two
    histories of uses weigh the same."""

    slots: int
    now: int = 0
    kept: set[int] = field(default_factory=set)
    used_at: dict[int, list[int]] = field(default_factory=dict)

    def uses(self, handle: int) -> float:
        half_life = HALF_LIFE_SHARE * BLOCKS
        return sum(2 ** ((at - self.now) / half_life) for at in self.used_at[handle])

    def get(self, wanted: list[int], found: set[int]) -> None:
        """found: what L1 holds after it, which decides between heats too near to compare in floating point."""
        missed = list(dict.fromkeys(h for h in wanted if h not in self.kept))
        self.now += len(missed) + sum(h in self.kept for h in wanted)
        for handle in set(wanted):
            self.used_at.setdefault(handle, []).append(self.now)
        for handle in sorted(missed, key=self.uses, reverse=True):
            if len(self.kept) == self.slots:
                there = self.kept.difference(missed)
                coldest = min(there, key=lambda h: (self.uses(h), h), default=None)
                if coldest is None:
                    return
                ratio = self.uses(handle) / (ENTRY_FACTOR * self.uses(coldest))
                if handle not in found if abs(ratio - 1) < 1e-9 else ratio < 1:
                    return
                self.kept.remove(coldest)
            self.kept.add(handle)

    def release(self, handle: int) -> None:
        self.kept.discard(handle)
        self.used_at.pop(handle, None)

    @property
    def hot(self) -> int:
        return sum(self.uses(handle) > 1 for handle in self.kept)


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(0, 7),
    calls=st.lists(
        st.one_of(
            st.lists(st.integers(0, BLOCKS - 1), min_size=1, max_size=BLOCKS),
            st.lists(st.sampled_from([0, 1, 2, 5]), min_size=1, max_size=3),  # a hot few
            st.integers(0, BLOCKS - 1),
        ),
        max_size=30,
    ),
)
def test_it_keeps_the_blocks_used_most(slots: int, calls: list[list[int] | int]) -> None:
    """A call is a get of blocks, or the release of one that is then put again."""
    cache, model = Cache.random(BLOCKS), HeatModel(slots)
    with manager(budgets(SMALL, slots, policy="heat")) as tiers:
        handles = cache.put(tiers)
        for call in calls:
            if isinstance(call, int):
                tiers.release(handles[[call]])
                model.release(int(handles[call]))
                at = cache.offsets[[call]]
                handles[call] = tiers.put(0, at, [0], at, cache.kv())[0]
                continue
            out = Cache.random(len(call)).empty()
            tiers.get(handles[call], np.zeros(len(call), int), out.offsets, out.kv())
            model.get(handles[call].tolist(), residents(tiers))
            assert residents(tiers) == model.kept
            assert tiers.stats().l1_hot_blocks == model.hot
            conserved(tiers)
            for i, source in enumerate(call):
                for got, want in zip(out.block(i), cache.block(source), strict=True):
                    assert got.tobytes() == want.tobytes()


def test_a_scan_does_not_drive_out_what_is_used_often() -> None:
    cache = Cache.random(40)
    left = {}
    for policy in ("lru", "heat"):
        with manager(budgets(SMALL, 6, policy=policy)) as tiers:
            handles = cache.put(tiers)
            for i in [0, 1, 2, 3] * 5 + list(range(4, 40)):
                tiers.get(handles[[i]], [0], cache.offsets[[i]], cache.kv())
            left[policy] = len(residents(tiers).intersection(handles[:4].tolist()))
    assert left == {"lru": 0, "heat": 4}


def test_uses_found_in_l2_count() -> None:
    cache = Cache.random(2)
    with manager(budgets(SMALL, 1, policy="heat", l2=600)) as tiers:
        handles = cache.put(tiers)

        def get(i: int) -> None:
            tiers.get(handles[[i]], [0], cache.offsets[[i]], cache.kv())

        get(0)
        get(0)
        for _ in range(2):
            assert tiers.prefetch(handles[[1]]) == 1
            tiers.wait_prefetched(10)
            get(1)
        assert tiers.stats().hits_l2 == 2
        assert residents(tiers) == {handles[0]}
        get(1)
        assert residents(tiers) == {handles[1]}


def test_blocks_that_a_failed_get_gave_back_come_and_go_like_others() -> None:
    cache = Cache.random(4)
    first, last = slice(0, 2), slice(2, 4)
    with manager(budgets(SMALL, 2, policy="heat"), wrap=FaultyDevice) as tiers:
        handles = cache.put(tiers)

        def get(which: slice) -> None:
            tiers.get(handles[which], cache.rows[which], cache.offsets[which], cache.kv())

        faulty(tiers).arm("wait", 0)
        with pytest.raises(DeviceError):
            get(first)
        assert residents(tiers) == set()
        get(first)
        assert residents(tiers) == set(handles[first].tolist())
        for _ in range(4):
            get(last)
        assert residents(tiers) == set(handles[last].tolist())
        assert cache.get(tiers, handles).same(cache)


def test_what_it_remembers_of_blocks_goes_with_them() -> None:
    """Thousands of blocks pass through an L1 that never is full: nothing is evicted, all are released."""
    cache = Cache.random(4)
    most = []
    with manager(budgets(SMALL, 8, policy="heat")) as tiers:
        for _ in range(2):
            held = []
            for _ in range(600):
                handles = cache.put(tiers)
                tiers.get(handles, cache.rows, cache.offsets, cache.kv())
                held.append(tiers.stats().metadata_bytes)
                tiers.release(handles)
            most.append(max(held))
    assert most[1] == most[0]


def test_the_cores_heat_is_the_log_of_a_sum() -> None:
    memory = Memory()
    core: Core = memory.core
    a, b = memory.put(0, [0, 1], [[record(0, 1)], [record(1, 1)]])
    assert np.isnan(core.heats(Tier.L1, [a])).all()
    core.admit(Tier.L1, [a, b])
    assert core.heats(Tier.L1, [a]).tolist() == [-np.inf]
    assert core.warm([a, b, a], 3.0).tolist() == [3.0] * 3  # once, however often it is named
    assert core.warm([a], 3.0).tolist() == [4.0]
    assert core.warm([a], 1e9).tolist() == [1e9]  # long after: 2^1e9 is no number
    assert core.warm([b], 0.0) == pytest.approx([np.log2(9)], rel=1e-15)
    core.evict(Tier.L1, [b])
    assert core.warm([b], 0.0) == pytest.approx([np.log2(10)], rel=1e-15)
    assert core.heats(Tier.L1, [a, b])[0] == 1e9
    assert np.isnan(core.heats(Tier.L1, [b])).all()
    with pytest.raises(ValueError, match="warm"):
        core.warm([a], np.inf)
    core.release([b])
    assert np.isnan(core.heats(Tier.L1, [b])).all()
    with pytest.raises(StaleHandle):
        core.warm([a, b], 5.0)
    assert core.heats(Tier.L1, [a]).tolist() == [1e9]
    core.close()
