"""L1 by owner: what stays are the blocks of those worth most, and every get still gives what was put."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.native import Tier
from speckv_pynq.spec import Scheme
from speckv_pynq.tiers import TierManager
from speckv_pynq.tiers.ranked import RankedPolicy
from tests.runtime.tiers import LAYERS, SMALL, Cache, budgets, conserved

pytestmark = pytest.mark.requires("libspeckv")
OWNERS, EACH = 3, 4
CACHE = Cache.random(OWNERS * EACH)


def residents(tiers: TierManager) -> set[int]:
    return set(tiers._core.resident(Tier.L1).tolist())


CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.integers(0, OWNERS - 1), st.integers(1, EACH)),
        st.tuples(st.just("worth"), st.integers(0, OWNERS - 1), st.integers(0, 9)),
        st.tuples(st.just("drop"), st.integers(0, OWNERS - 1), st.integers(0, EACH - 1)),
        st.tuples(st.just("again"), st.integers(0, OWNERS - 1), st.integers(0, EACH - 1)),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(CALLS, st.integers(0, 9))
def test_a_miss_takes_the_place_of_those_worth_less_alone(calls, slots: int) -> None:
    worths = np.ones(OWNERS)
    policy = RankedPolicy(lambda owners: worths[owners], threading.RLock())
    with (
        CsimDevice(1) as device,
        TierManager(
            device, SMALL, Scheme.RAW, budgets(SMALL, slots), layers=LAYERS, policy=policy
        ) as tiers,
    ):
        handles = CACHE.put(tiers).reshape(OWNERS, EACH)
        for owner in range(OWNERS):
            policy.assign(handles[owner], owner)
        for call, owner, number in calls:
            if call == "worth":
                worths[owner] = number
            elif call == "drop":
                policy.drop(handles[owner, [number]])
            elif call == "again":
                tiers.release(handles[owner, [number]])
                policy.drop(handles[owner, [number]])
                at = CACHE.offsets[[owner * EACH + number]]
                handles[owner, number] = tiers.put(0, at, [0], at, CACHE.kv())[0]
                policy.assign(handles[owner, [number]], owner)
            else:
                read_and_check(tiers, policy, worths, handles, owner, number)
            conserved(tiers)


def read_and_check(
    tiers: TierManager, policy: RankedPolicy, worths: np.ndarray, handles: np.ndarray, owner: int, count: int
) -> None:  # fmt: skip
    before = residents(tiers)
    owners = {h: o for o in range(OWNERS) for h in policy.blocks(o).tolist()}
    out = Cache.random(count).empty()
    wanted = handles[owner, :count]
    tiers.get(wanted, np.zeros(count, int), out.offsets, out.kv())
    for i in range(count):
        assert np.array_equal(out.block(i)[0], CACHE.block(owner * EACH + i)[0])
    after = residents(tiers)
    mine = min((worths[owners[h]] if h in owners else 0.0) for h in wanted.tolist())
    for gone in before - after:
        assert gone not in owners or worths[owners[gone]] < mine
    if set(wanted.tolist()) - after:  # some found no room: nobody there is worth less
        unowned_wins = mine > 0
        for there in after - set(wanted.tolist()):
            asked = owners.get(there) in {owners.get(h) for h in wanted.tolist()}
            assert asked or (worths[owners[there]] >= mine if there in owners else not unowned_wins)


def test_what_leaves_of_an_owner_are_its_last_blocks() -> None:
    worths = np.array([1.0, 2.0])
    policy = RankedPolicy(lambda owners: worths[owners], threading.RLock())
    with (
        CsimDevice(1) as device,
        TierManager(
            device, SMALL, Scheme.RAW, budgets(SMALL, 4), layers=LAYERS, policy=policy
        ) as tiers,
    ):
        handles = CACHE.put(tiers)
        policy.assign(handles[:4], 0)
        policy.assign(handles[4:6], 1)
        CACHE.get(tiers, handles)  # the first ones fill L1
        assert residents(tiers) == set(handles[:4].tolist())
        tiers.get(handles[4:6], [0, 0], CACHE.offsets[4:6], CACHE.empty().kv())
        assert residents(tiers) == {*handles[:2].tolist(), *handles[4:6].tolist()}
        assert (
            tiers.resident(handles).tolist() == [True] * 2 + [False] * 2 + [True] * 2 + [False] * 6
        )
        assert policy.nbytes > 0
