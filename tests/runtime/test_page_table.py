"""The page table against a dict, and that it gives memory back."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from speckv_pynq.native import PageTable, block_keys

pytestmark = pytest.mark.requires("libspeckv")

KEYS = st.tuples(
    st.sampled_from([0, 1, 2, 7, 0xFFFFFFFF]),
    st.sampled_from([0, 1, 79, 0xFFFF]),
    st.integers(0, 40) | st.just(0xFFFFFFF),
)


def as_keys(keys: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(keys, np.uint32).reshape(-1, 3)


class PageTableMachine(RuleBasedStateMachine):
    """Random calls on table and dict side by side."""

    @initialize()
    def begin(self) -> None:
        self.table = PageTable()
        self.model: dict[tuple[int, int, int], int] = {}

    @rule(keys=st.lists(KEYS, max_size=30), first=st.integers(1, 2**64 - 31))
    def map(self, keys: list[tuple[int, int, int]], first: int) -> None:
        handles = range(first, first + len(keys))
        replaced = []
        for key, handle in zip(keys, handles, strict=True):
            replaced.append(self.model.get(key, 0))
            self.model[key] = handle
        assert self.table.map(as_keys(keys), np.array(handles, np.uint64)).tolist() == replaced

    @rule(keys=st.lists(KEYS, max_size=30))
    def unmap(self, keys: list[tuple[int, int, int]]) -> None:
        expected = [self.model.pop(key, 0) for key in keys]
        assert self.table.unmap(as_keys(keys)).tolist() == expected

    @rule(data=st.data())
    def free_request(self, data: Any) -> None:
        requests = sorted({key[0] for key in self.model})
        request = data.draw(st.sampled_from([*requests, 5]))
        handles = [handle for key, handle in self.model.items() if key[0] == request]
        self.model = {key: h for key, h in self.model.items() if key[0] != request}
        assert sorted(self.table.free_request(request).tolist()) == sorted(handles)

    @rule(data=st.data(), others=st.lists(KEYS, max_size=5))
    def a_bad_key_or_handle_changes_nothing(self, data: Any, others: list[Any]) -> None:
        place = data.draw(st.integers(0, len(others)))
        keys = as_keys([*others[:place], (1, 65536, 0), *others[place:]])
        handles = np.full(len(keys), 3, np.uint64)
        with pytest.raises(ValueError, match=f"element {place}: 65536 against the limit 65535"):
            self.table.map(keys, handles)
        keys[place, 1], handles[place] = 0, 0
        with pytest.raises(ValueError, match=f"element {place}: 0 "):
            self.table.map(keys, handles)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "table"):
            return
        asked = [*self.model, (3, 3, 3), (1, 0, 41)]
        assert self.table.lookup(as_keys(asked)).tolist() == [self.model.get(k, 0) for k in asked]
        stats = self.table.stats()
        requests = {key[0] for key in self.model}
        assert (stats.entries, stats.requests) == (len(self.model), len(requests))
        assert stats.capacity <= max(16, 9 * (len(self.model) + len(requests)))
        for request in requests:
            keys, handles = self.table.blocks(request)
            blocks = {k: h for k, h in self.model.items() if k[0] == request}
            assert dict(zip(map(tuple, keys.tolist()), handles.tolist(), strict=True)) == blocks
        if not self.model:
            assert stats.metadata_bytes < 200


TestPageTable = PageTableMachine.TestCase
TestPageTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_long_run_needs_no_more_than_what_is_mapped() -> None:
    """Requests come and go for long; the table neither fills with graves nor keeps its peak."""
    table, rng = PageTable(), np.random.default_rng(3)
    live: dict[int, int] = {}
    peak = 0
    for request in range(3000):
        n = int(rng.integers(1, 200))
        table.map(block_keys(request, request % 7, np.arange(n)), np.arange(1, n + 1))
        live[request] = n
        while sum(live.values()) > 4000:
            gone = int(rng.choice(list(live)))
            assert len(table.free_request(gone)) == live.pop(gone)
        peak = max(peak, table.stats().metadata_bytes)
    assert table.stats().entries == sum(live.values())
    assert peak < 4400 * 32 / 0.75 * 2.1
    for request in live:
        table.free_request(request)
    assert table.stats().metadata_bytes < 200


def test_batched_lookups_are_fast() -> None:
    """Far below what a quiet machine does, so that a busy one passes: a scan would not."""
    table = PageTable()
    n = 1 << 18
    keys = block_keys(np.arange(n) // 512, np.arange(n) % 32, np.arange(n))
    table.map(keys, np.arange(1, n + 1))
    order = np.random.default_rng(0).permutation(n)
    shuffled = np.ascontiguousarray(keys[order])
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        found = table.lookup(shuffled)
        best = min(best, time.perf_counter() - start)
    assert (found == order + 1).all()
    assert n / best > 2e6


@pytest.mark.parametrize(
    ("columns", "name"), [((0, 65536, 0), "layer"), ((-1, 0, 0), "request"), ((0, 0, 1 << 32), "block")]
)  # fmt: skip
def test_columns_outside_their_width_are_refused(columns: tuple[int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        block_keys(*columns)
