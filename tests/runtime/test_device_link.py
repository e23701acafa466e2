"""The modelled link: its law of time on a clock of the test's own, and csim behind it."""

from __future__ import annotations

import dataclasses
import gc
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.device import library
from speckv_pynq.device.link import PIECE_BYTES, Link, LinkedCsimDevice
from speckv_pynq.errors import ConfigError, DeviceError
from speckv_pynq.spec import Scheme
from speckv_pynq.tiers import TierManager
from tests.runtime.held_device import eventually
from tests.runtime.kernels import large_table
from tests.runtime.tiers import SMALL, Cache, budgets

pytestmark = [pytest.mark.requires("libspeckv"), pytest.mark.timeout(60)]


class HandClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self._now, self._moved = 0.0, threading.Condition()

    def now(self) -> float:
        with self._moved:
            return self._now

    def wait_until(self, when_s: float) -> None:
        with self._moved:
            self._moved.wait_for(lambda: self._now >= when_s)

    def move_to(self, now_s: float) -> None:
        with self._moved:
            self._now = now_s
            self._moved.notify_all()


transfers = st.lists(
    st.tuples(st.integers(0, 1 << 24), st.floats(0, 0.01)), min_size=1, max_size=30
)


@given(transfers, st.floats(0, 1e-3), st.floats(1e6, 1e11))
@settings(max_examples=100, deadline=None)
def test_transfers_follow_one_another_and_latency_overlaps(sent, latency_s, rate) -> None:
    link, now_s, arrivals, free_s = Link(latency_s, rate), 0.0, [], 0.0
    for nbytes, pause_s in sent:
        now_s += pause_s
        free_s = max(now_s, free_s) + nbytes / rate
        arrivals.append(link.send(nbytes, now_s))
        assert arrivals[-1] == pytest.approx(free_s + latency_s)
        assert arrivals[-1] >= now_s + latency_s + nbytes / rate * (1 - 1e-9)
    assert arrivals == sorted(arrivals)
    total = sum(nbytes for nbytes, _ in sent)
    assert link.moved_bytes == total
    # No window of the link carries more than its rate: so much cannot have come earlier.
    assert arrivals[-1] >= (total / rate + latency_s) * (1 - 1e-9)


def test_a_changed_rate_holds_for_what_follows() -> None:
    link = Link(0.5, 100.0)
    assert link.send(100, 0.0) == 1.5
    link.bytes_per_s = math.inf
    assert link.send(10**9, 0.0) == 1.5
    link.bytes_per_s = 10.0
    assert link.send(10, 3.0) == 4.5
    for bad in (0, -1, math.nan):
        with pytest.raises(ConfigError, match="bytes_per_s"):
            link.bytes_per_s = bad
    with pytest.raises(ConfigError, match="latency_s"):
        Link(-1e-9)


def test_a_run_ends_when_its_last_record_has_arrived_not_before() -> None:
    clock, decoded = HandClock(), []
    with behind(Link(1.0, 100.0), clock, decoded) as device, device.allocate(1 << 20) as memory:
        table = large_table(16)  # 128 KiB each: so many make two pieces
        table["record_capacity"] = 50
        assert PIECE_BYTES == 8 * 64 * 8 * 128 * 2
        piece_s = 4 * 50 / 100.0
        run = device.start_decompress(memory, memory, table)
        for piece in range(4):
            clock.move_to(1.0 + piece_s * (piece + 1) - 1e-6)
            assert len(decoded) == piece
            clock.move_to(1.0 + piece_s * (piece + 1))
            eventually(lambda done=piece + 1: len(decoded) == done)
        run.wait()
        assert device.link.moved_bytes == 16 * 50


def test_compression_does_not_wait_for_the_link() -> None:
    clock, decoded = HandClock(), []
    with behind(Link(1.0, 1.0), clock, decoded) as device, device.allocate(1 << 20) as memory:
        waiting = device.start_decompress(memory, memory, large_table(1))
        device.start_compress(memory, memory, large_table(16)).wait()
        assert not waiting.done()
        clock.move_to(10.0)
        waiting.wait()


def test_close_lets_what_moves_arrive_and_ends_the_thread() -> None:
    before = threading.active_count()
    with LinkedCsimDevice(Link(0.02), 1) as device, device.allocate(1 << 20) as memory:
        run = device.start_decompress(memory, memory, large_table(4))
        device.close()
        assert run.done()
        with pytest.raises(DeviceError, match="closed"):
            device.start_decompress(memory, memory, large_table(1))
        device.close()
    assert threading.active_count() == before
    forgotten = LinkedCsimDevice(Link(), 1)
    del forgotten
    gc.collect()
    eventually(lambda: threading.active_count() == before)


def test_blocks_come_back_the_same_over_a_link() -> None:
    link, cache = Link(1e-4, 1e9), Cache.random(70)
    with (
        LinkedCsimDevice(link, 2) as device,
        TierManager(device, SMALL, Scheme.RAW, budgets(SMALL, 1, l2=600), layers=1) as tiers,
    ):
        handles = cache.put(tiers)
        assert tiers.prefetch(handles[10:40]) == 30
        assert cache.get(tiers, handles).same(cache)
        moved = link.moved_bytes
        assert moved >= tiers.stats().record_bytes
        assert tiers.stats().l1_blocks == 1


def behind(link: Link, clock: HandClock, decoded: list[int]) -> LinkedCsimDevice:
    """A device of one engine behind a link, whose kernels only say that they were called."""

    def kernel(*arguments: int) -> int:
        decoded.append(arguments[8])
        return 0

    native = library.load()
    quick = dataclasses.replace(native, kv_compress=lambda *_: 0, kv_decompress=kernel)
    return LinkedCsimDevice(link, 1, quick, clock)
