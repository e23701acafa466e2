"""Replays of requests against the optimum, made traces against the figures they are made from."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.bench import returns, returns_tier
from speckv_pynq.bench.policy_rivals import RIVALS
from speckv_pynq.bench.returns_rivals import LfuAged, Lru, found, most
from speckv_pynq.bench.returns_traces import MIXES, Request, RequestTrace, made, renumbered
from speckv_pynq.prefetch.ahead import ReturnsAhead
from speckv_pynq.prefetch.returns import ReturnPredictor

# Requests of a tree of prompts: the path of each, gap before it, time it takes, kind.
PATHS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=5),
        st.floats(0, 20),
        st.floats(0, 30),
        st.sampled_from(["", "tool"]),
    ),
    min_size=1,
    max_size=20,
)


def tree(paths: list[tuple[list[int], float, float, str]]) -> RequestTrace:
    ids: dict[tuple[int, ...], int] = {}
    found, now_s = [], 0.0
    for path, gap_s, takes_s, kind in paths:
        now_s += gap_s
        blocks = [ids.setdefault(tuple(path[: i + 1]), len(ids)) for i in range(len(path))]
        found.append(Request(now_s, now_s + takes_s, np.array(blocks), kind))
    return renumbered("tree", found)


POLICIES = (Lru, LfuAged, *RIVALS.values())


def best_of_all(trace: RequestTrace, slots: int) -> int:
    """Every choice of what to keep after each request's end."""
    events = trace.events()

    @functools.cache
    def best(at: int, held: frozenset[int], users: tuple[int, ...]) -> int:
        if at == len(events):
            return 0
        i, over = events[at]
        blocks = set(trace.requests[i].blocks.tolist())
        if not over:
            busy = {block for other in users for block in trace.requests[other].blocks.tolist()}
            hits = len(blocks & (held | busy))
            return hits + best(at + 1, held - blocks, (*users, i))
        left = tuple(other for other in users if other != i)
        busy = {block for other in left for block in trace.requests[other].blocks.tolist()}
        offered = held | (blocks - busy)
        keeps = itertools.combinations(sorted(offered), min(slots, len(offered)))
        return max(best(at + 1, frozenset(keep), left) for keep in keeps)

    return best(0, frozenset(), ())


@settings(max_examples=30, deadline=None)
@given(PATHS.map(lambda paths: paths[:7]), st.integers(1, 4))
def test_the_optimum_is_the_best_of_all_choices(paths, slots: int) -> None:
    trace = tree([(path[:2], *rest) for path, *rest in paths])
    assert most(trace, slots) == best_of_all(trace, slots)


@settings(max_examples=40, deadline=None)
@given(PATHS, st.integers(2, 12))
def test_nothing_finds_more_than_the_optimum(paths, slots: int) -> None:
    trace = tree(paths)
    limit = most(trace, slots)
    for policy in POLICIES:
        assert found(policy(slots), trace) <= limit
    tier = returns_tier.Tier(trace, slots, ReturnPredictor())
    assert tier.run() <= limit
    assert tier.held <= slots


@settings(max_examples=30, deadline=None)
@given(PATHS)
def test_with_room_for_all_every_policy_finds_what_was_there(paths) -> None:
    trace = tree(paths)
    again = trace.uses - trace.blocks
    assert most(trace, trace.blocks) == again
    for policy in (Lru, LfuAged):
        assert found(policy(trace.blocks), trace) == again
    assert returns_tier.Tier(trace, trace.blocks, ReturnPredictor()).run() == again


@settings(max_examples=30, deadline=None)
@given(PATHS, st.integers(1, 8), st.integers(1, 8))
def test_what_was_brought_up_ahead_is_accounted_for(paths, slots: int, room: int) -> None:
    trace, predictor = tree(paths), ReturnPredictor()
    ahead = ReturnsAhead(predictor, 15.0)
    tier = returns_tier.AheadTier(trace, slots, ahead, predictor, room, 10.0)
    tier.run()
    assert tier.on_time + tier.late <= tier.fetched
    assert tier.fetched == ahead.used_bytes + ahead.wasted_bytes + ahead.up_bytes


def test_returns_close_more_of_the_gap_than_any_other() -> None:
    """Learned from other seeds. Half an hour of agents: few requests, but the same ones each time."""
    traces, training = ([made("agents", first + i, 0.5) for i in range(2)] for first in (0, 1000))
    kept = returns.keep("agents", traces, training, 1 / 2)
    closed = {name: interval.mean for name, interval in kept.closed.items()}
    assert (closed["lru"], closed["optimum"]) == (0.0, 1.0)
    assert closed["returns"] > 0.25
    assert closed["returns"] > max(closed[name] for name in returns.OTHERS)
    assert kept.margin.mean > 0.01


@pytest.mark.parametrize("name", MIXES)
def test_made_traces_are_the_same_again_and_differ_by_seed(name: str) -> None:
    first, again, other = (made(name, seed, 0.2) for seed in (1, 1, 2))
    assert [r.starts_s for r in first.requests] == [r.starts_s for r in again.requests]
    assert [r.starts_s for r in first.requests] != [r.starts_s for r in other.requests]
    for request, twin in zip(first.requests, again.requests, strict=True):
        assert request.blocks.tolist() == twin.blocks.tolist()
    starts = [r.starts_s for r in first.requests]
    assert starts == sorted(starts)
    assert all(r.ends_s >= r.starts_s for r in first.requests)
    assert set(np.concatenate(first.calls).tolist()) == set(range(first.blocks))


def test_chats_are_as_published() -> None:
    """4.6 turns on average; 73 % more than one; 80 % of their returns within ten minutes (of one day: not cut off)."""
    turns: dict[int, list[Request]] = {}
    trace = made("chat", 0, 12.0)
    for request in trace.requests:
        own = int(request.blocks[-1]) if len(request.blocks) else -1
        session = int(request.blocks[8]) if len(request.blocks) > 8 else own
        turns.setdefault(session, []).append(request)
    long = [those for session, those in turns.items() if session > 6 and len(those[0].blocks) > 8]
    counts = [len(those) for those in long]
    assert np.mean(counts) == pytest.approx(4.6, rel=0.12)
    assert np.mean(np.array(counts) > 1) == pytest.approx(0.73, abs=0.04)
    gaps = [b.starts_s - a.ends_s for those in long for a, b in itertools.pairwise(those)]
    assert np.mean(np.array(gaps) < 600) == pytest.approx(0.8, abs=0.05)
    assert np.median(gaps) == pytest.approx(120, rel=0.25)
