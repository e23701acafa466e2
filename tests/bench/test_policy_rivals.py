"""The optimum against all that can be kept, and the policies to compare with against it."""

from __future__ import annotations

import functools
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from speckv_pynq.bench.policy_rivals import RIVALS, hits_of, optimum
from speckv_pynq.bench.policy_traces import Trace


def trace(calls: list[list[int]], blocks: int) -> Trace:
    return Trace("test", True, blocks, [np.array(call) for call in calls])


def best_of_all(calls: list[list[int]], slots: int) -> int:
    """Every choice of what to keep after each call."""

    @functools.cache
    def most(i: int, held: frozenset[int]) -> int:
        if i == len(calls):
            return 0
        offered = held.union(calls[i])
        keeps = combinations(sorted(offered), min(slots, len(offered)))
        return len(held.intersection(calls[i])) + max(most(i + 1, frozenset(k)) for k in keeps)

    return most(0, frozenset())


CALLS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True), max_size=8)


@settings(max_examples=80, deadline=None)
@given(calls=CALLS, slots=st.integers(1, 4))
def test_the_optimum_is_the_best_of_all_choices(calls: list[list[int]], slots: int) -> None:
    assert optimum(trace(calls, 6), slots) == best_of_all(calls, slots)


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(
        st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True), min_size=5, max_size=80
    ),
    slots=st.integers(2, 30),
    name=st.sampled_from(sorted(RIVALS)),
)
def test_no_rival_finds_more_than_the_optimum(
    calls: list[list[int]], slots: int, name: str
) -> None:
    made = trace(calls, 41)
    assert hits_of(RIVALS[name](slots), made) <= optimum(made, slots)


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_rivals_keep_what_is_used_often_through_a_scan(name: str) -> None:
    often, scan = [[0, 1, 2, 3]] * 4, [[10 + i] for i in range(60)]
    rival = RIVALS[name](20)
    hits_of(rival, trace([*often, *scan], 100))
    assert rival.call([0, 1, 2, 3]) == 4


@pytest.mark.parametrize("name", sorted(RIVALS))
def test_rivals_find_everything_that_fits(name: str) -> None:
    rival = RIVALS[name](10)
    made = trace([[i] for i in range(10)] * 5, 10)
    assert hits_of(rival, made) == 40
