"""The dense planner beside a small model of L2: what it asks for, and what it never does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from speckv_pynq.errors import ConfigError
from speckv_pynq.prefetch.dense import ByteBudget, DensePlanner


def cache_of(counts: list[int], first: int = 1) -> dict[int, np.ndarray]:
    """Blocks of each layer, numbered through."""
    ends = first + np.cumsum(counts)
    return {i: np.arange(end - n, end) for i, (n, end) in enumerate(zip(counts, ends, strict=True))}


counts = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any)


@given(counts, st.integers(0, 40), st.none() | st.integers(0, 40), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_a_steady_sequence_asks_for_each_block_once_a_step(counts, slots, depth, steps) -> None:
    cache, planner = cache_of(counts), DensePlanner(slots, depth)
    for layer, blocks in cache.items():
        planner.expect(7, layer, blocks)
    room, up = min(slots, slots if depth is None else depth, sum(counts)), set()
    for step in range(1 + steps):
        asked: Counter[int] = Counter()
        for layer, blocks in cache.items():
            late = set(blocks.tolist()) - up
            if step and room >= max(counts) + max(len(b) for b in cache.values()):
                assert not late  # two layers' room: each layer finds its blocks
            up -= set(blocks.tolist())
            planner.asked(7, layer)
            ahead = planner.ahead(7).tolist()
            new = [block for block in ahead if block not in up]
            up.update(new)
            asked.update(new)
            asked.update(late)
            assert len(ahead) == len(set(ahead)) == room
            assert len(up) <= slots
            assert ahead == in_order(cache, layer)[:room]
        if step:
            assert asked == Counter(np.concatenate(list(cache.values())).tolist())


def in_order(cache: dict[int, np.ndarray], layer: int) -> list[int]:
    """By the definition: one layer after the other, from the next one on, round once."""
    order = [(layer + 1 + i) % len(cache) for i in range(len(cache))]
    return np.concatenate([cache[one] for one in order]).tolist()


class Planned(RuleBasedStateMachine):
    """Any mix of sequences that grow, are cropped, end and ask, with depths that change."""

    sequences = Bundle("sequences")

    @initialize(slots=st.integers(0, 30))
    def start(self, slots: int) -> None:
        self.planner, self.slots = DensePlanner(slots), slots
        self.held: dict[int, dict[int, list[int]]] = {}
        self.layer: dict[int, int] = {}
        self.next_block = 1

    @rule(target=sequences, name=st.integers(0, 3))
    def sequence(self, name: int) -> int:
        self.held.setdefault(name, {})
        return name

    @rule(name=sequences, layer=st.integers(0, 4), count=st.integers(0, 9))
    def grow(self, name: int, layer: int, count: int) -> None:
        blocks = self.held.setdefault(name, {}).setdefault(layer, [])
        blocks += range(self.next_block, self.next_block + count)
        self.next_block += count
        self.planner.expect(name, layer, blocks)

    @rule(name=sequences, layer=st.integers(0, 4), keep=st.integers(0, 9))
    def crop(self, name: int, layer: int, keep: int) -> None:
        blocks = self.held.setdefault(name, {}).setdefault(layer, [])
        del blocks[keep:]
        self.planner.expect(name, layer, blocks)
        self.empty_ones_are_forgotten()

    @rule(gone=st.sets(st.integers(1, 60), max_size=8))
    def drop(self, gone: set[int]) -> None:
        self.planner.drop(sorted(gone))
        for layers in self.held.values():
            for blocks in layers.values():
                blocks[:] = [block for block in blocks if block not in gone]
        self.empty_ones_are_forgotten()

    @rule(name=sequences)
    def forget(self, name: int) -> None:
        self.planner.forget(name)
        self.held[name] = {}
        self.layer.pop(name, None)

    @rule(depth=st.none() | st.integers(0, 40))
    def set_depth(self, depth: int | None) -> None:
        self.planner.depth = depth

    @rule(name=sequences, layer=st.integers(0, 4))
    def ask(self, name: int, layer: int) -> None:
        self.planner.asked(name, layer)
        if any(self.held.get(name, {}).values()):
            self.layer[name] = layer

    def empty_ones_are_forgotten(self) -> None:
        for name, layers in self.held.items():
            if not any(layers.values()):
                self.layer.pop(name, None)

    @invariant()
    def what_lies_ahead_is_wanted_in_order_and_within_the_budget(self) -> None:
        for name in range(4):
            ahead = self.planner.ahead(name).tolist()
            if name not in self.layer:
                assert ahead == []
                continue
            layers, at = self.held.get(name, {}), self.layer[name]
            order = sorted(layers, key=lambda layer: (layer <= at, layer))
            wanted = [block for layer in order for block in layers[layer]]
            assert ahead == wanted[: len(ahead)]
            assert len(ahead) <= self.slots
            depth = self.planner.depth
            assert depth is None or len(ahead) <= depth
            if depth is None and len(self.layer) == 1:  # alone it has all slots
                assert len(ahead) == min(self.slots, len(wanted))


TestPlanned = Planned.TestCase
TestPlanned.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_sequences_that_take_turns_share_the_slots_and_an_idle_one_has_none() -> None:
    planner = DensePlanner(8)
    for name in (1, 2):
        for layer, blocks in cache_of([10, 10], 100 * name).items():
            planner.expect(name, layer, blocks)
    planner.asked(1, 0)
    assert len(planner.ahead(1)) == 8
    for _ in range(2):
        for layer in (0, 1):
            for name in (1, 2):
                planner.asked(name, layer)
    assert len(planner.ahead(1)) == len(planner.ahead(2)) == 4
    for layer in (0, 1, 0, 1):  # 2 is idle
        planner.asked(1, layer)
    assert len(planner.ahead(1)) == 8


def test_a_block_that_stands_twice_is_read_once() -> None:
    planner = DensePlanner(10)
    planner.expect(0, 0, [5, 3, 5, 4, 3])
    planner.asked(0, 0)
    assert planner.ahead(0).tolist() == [5, 3, 4]


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="slots -1"):
        DensePlanner(-1)
    planner = DensePlanner(4, 2)
    with pytest.raises(ConfigError, match="depth -1"):
        planner.depth = -1
    assert planner.depth == 2
    for bad in ({"bytes_per_s": 0}, {"bytes_per_s": float("nan")}, {"burst_s": 0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            ByteBudget(**bad)


@given(
    st.lists(st.tuples(st.lists(st.integers(1, 500), max_size=20), st.floats(0, 0.3)), max_size=20),
    st.floats(100, 1e4),
    st.floats(1e-3, 0.5),
)
@settings(max_examples=200, deadline=None)
def test_no_more_bytes_than_the_budget(asks, rate, burst_s) -> None:
    budget, now_s, taken, largest = ByteBudget(rate, burst_s), 0.0, 0, 0
    for sizes, pause_s in asks:
        now_s += pause_s
        count = budget.take(np.array(sizes, np.int64), now_s)
        assert 0 <= count <= len(sizes)
        taken += sum(sizes[:count])
        largest = max([largest, *sizes])
        assert taken <= rate * (burst_s + now_s) + largest + 1e-6


def test_a_budget_left_alone_lets_something_through_however_large_it_is() -> None:
    budget = ByteBudget(1000.0, 0.01)
    assert budget.take(np.array([5000, 1]), 0.0) == 1
    assert budget.take(np.array([1]), 4.9) == 0  # still paying
    assert budget.take(np.array([1]), 5.1) == 1
    assert ByteBudget().take(np.array([1 << 40, 1 << 40]), 0.0) == 2
