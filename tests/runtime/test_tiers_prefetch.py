"""Prefetch in the background: no hit waits for it, and whatever becomes of it, blocks read right."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from speckv_pynq.block import BlockShape
from speckv_pynq.errors import DeviceError, DeviceTimeout, StaleHandle
from speckv_pynq.spec import DType
from speckv_pynq.tiers import prefetching
from tests.runtime.gated_device import FAULTS, GatedDevice
from tests.runtime.held_device import eventually
from tests.runtime.prefetch import CACHE, COMMAND, drivers, gated, read, some
from tests.runtime.tiers import Cache, budgets, conserved, manager

pytestmark = pytest.mark.requires("libspeckv")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A get that waited where it must not would wait for the test's end."""
    monkeypatch.setattr(prefetching, "PATIENCE_S", 60.0)


@pytest.fixture(autouse=True)
def one_command_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which makes it certain what waits and what runs."""
    monkeypatch.setattr(prefetching, "COMMANDS_IN_FLIGHT", 1)


@pytest.mark.usefixtures("patient")
def test_no_hit_waits_for_a_prefetch() -> None:
    with gated(l1=4) as (tiers, device):
        handles = CACHE.put(tiers)
        assert read(tiers, handles[:4], some(0, 4))  # into L1
        assert tiers.prefetch(handles[4:8]) == 4
        tiers.wait_prefetched()
        device.hold()
        assert tiers.prefetch(handles[8:]) == 62
        eventually(lambda: bool(device.held))
        assert read(tiers, handles[:8], some(0, 8))
        stats = tiers.stats()
        assert (stats.hits_l1, stats.hits_l2, stats.misses) == (4, 4, 4)
        assert (stats.prefetching, stats.prefetched, stats.l2_blocks) == (62, 4, 0)
        conserved(tiers)
        assert len(device.held) == 1
        device.open()
        tiers.wait_prefetched()
        assert tiers.stats().l2_blocks == 62
        assert read(tiers, handles[8:], some(8, 70))
        assert tiers.stats().hits_l2 == 66


@pytest.mark.usefixtures("patient")
def test_a_get_waits_for_the_command_that_decodes_its_block() -> None:
    with gated(l1=1) as (tiers, device), ThreadPoolExecutor(1) as threads:
        handles = CACHE.put(tiers)
        assert read(tiers, handles[60:61], some(60, 61))
        device.hold(1)
        tiers.prefetch(handles[:2])
        eventually(lambda: bool(device.held))
        waiting = threads.submit(read, tiers, handles[:3], some(0, 3))
        assert read(tiers, handles[60:61], some(60, 61))  # nor does a hit wait for that get
        assert not waiting.done()
        device.open()
        assert waiting.result(10)
        stats = tiers.stats()
        assert (stats.hits_l2, stats.misses, stats.prefetching) == (2, 2, 0)


@pytest.mark.usefixtures("patient")
def test_a_get_decodes_what_has_not_begun() -> None:
    with gated() as (tiers, device):
        handles = CACHE.put(tiers)
        device.hold(1)
        assert tiers.prefetch(handles) == 70
        eventually(lambda: bool(device.held))
        assert read(tiers, handles[20:30], some(20, 30))  # of the second command
        assert len(device.held) == 1
        assert tiers.stats().prefetch_cancelled == COMMAND
        device.open()
        tiers.wait_prefetched()
        stats = tiers.stats()
        assert (stats.prefetched, stats.misses) == (70 - COMMAND, 10)
        assert read(tiers, handles, some(0, 70))
        assert tiers.stats().hits_l2 == 70 - COMMAND


def test_a_command_may_move_records_while_another_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefetching, "COMMANDS_IN_FLIGHT", 2)
    with gated() as (tiers, device):
        handles = CACHE.put(tiers)
        device.hold()
        tiers.prefetch(handles)
        eventually(lambda: len(device.held) == 2)
        assert read(
            tiers, handles[2 * COMMAND :], some(2 * COMMAND, 70)
        )  # of later ones: cancelled
        assert len(device.held) == 2
        device.open()
        tiers.wait_prefetched()
        assert tiers.stats().prefetched == 2 * COMMAND
        assert read(tiers, handles, some(0, 70))


def test_a_get_loses_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetching, "PATIENCE_S", 0.01)
    with gated() as (tiers, device):
        handles = CACHE.put(tiers)
        device.hold(1)
        tiers.prefetch(handles[:8])
        eventually(lambda: bool(device.held))
        assert read(tiers, handles[:3], some(0, 3))
        assert tiers.stats().misses == 3
        device.open()
        tiers.wait_prefetched()
        stats = tiers.stats()
        assert (stats.prefetched, stats.prefetch_cancelled, stats.l2_blocks) == (5, 3, 5)


def test_slots_of_a_released_block_stay_until_nothing_writes_there() -> None:
    with gated(l2=6) as (tiers, device):
        handles = CACHE.put(tiers)
        device.hold(1)
        assert tiers.prefetch(handles[:6]) == 6
        eventually(lambda: bool(device.held))
        tiers.release(handles[:6])
        with pytest.raises(StaleHandle):
            tiers.release(handles[:1])
        with pytest.raises(StaleHandle):
            tiers.prefetch(handles[:1])
        assert tiers.prefetch(handles[6:]) == 0  # no slot that is free
        assert tiers.stats().blocks == 64
        conserved(tiers)
        device.open()
        tiers.wait_prefetched()
        stats = tiers.stats()
        assert (stats.prefetch_cancelled, stats.l2_blocks) == (6, 0)
        assert tiers.prefetch(handles[6:]) == 6
        tiers.wait_prefetched()
        assert read(tiers, handles[6:], some(6, 70))
        assert tiers.stats().hits_l2 == 6


def test_a_block_that_somebody_still_holds_comes_up() -> None:
    with gated() as (tiers, device):
        handles = CACHE.put(tiers)
        tiers.retain(handles[:2])
        device.hold(1)
        assert tiers.prefetch(handles[:4]) == 4
        eventually(lambda: bool(device.held))
        tiers.release(handles[:4])
        device.open()
        tiers.wait_prefetched()
        assert read(tiers, handles[:2], some(0, 2))
        assert (tiers.stats().hits_l2, tiers.stats().prefetch_cancelled) == (2, 2)


def test_work_for_blocks_that_are_gone_is_not_begun() -> None:
    with gated() as (tiers, device):
        handles = CACHE.put(tiers)
        device.hold(1)
        tiers.prefetch(handles)
        eventually(lambda: bool(device.held))
        tiers.release(handles)
        assert tiers.stats().prefetch_cancelled == 70 - COMMAND
        assert tiers.poll() == COMMAND


def test_the_oldest_blocks_leave_for_new_ones_and_none_that_is_on_its_way() -> None:
    with gated(l2=6) as (tiers, device):
        handles = CACHE.put(tiers)
        assert tiers.prefetch(handles[:10]) == 6
        tiers.wait_prefetched()
        device.hold()
        assert tiers.prefetch(handles[20:24]) == 4
        assert tiers.stats().l2_blocks == 2
        assert tiers.prefetch(handles[20:30]) == 2  # four are on their way, two leave
        assert tiers.prefetch(handles[30:]) == 0
        assert tiers.prefetch(handles[20:26]) == 0
        conserved(tiers)
        device.open()
        tiers.wait_prefetched()
        assert read(tiers, handles[20:26], some(20, 26))
        assert tiers.stats().hits_l2 == 6


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_miss_and_counted(fault: str) -> None:
    failed = 1 if fault == "status" else 12
    with gated() as (tiers, device):
        handles = CACHE.put(tiers)
        device.fail(fault)
        assert tiers.prefetch(handles[:12]) == 12
        tiers.wait_prefetched()
        stats = tiers.stats()
        assert (stats.prefetch_failed, stats.l2_blocks) == (failed, 12 - failed)
        assert read(tiers, handles[:12], some(0, 12))
        assert tiers.stats().misses == failed
        device.open()
        tiers.prefetch(handles[:12])
        tiers.wait_prefetched()
        assert tiers.stats().l2_blocks == 12
        assert read(tiers, handles[:12], some(0, 12))


def test_nothing_takes_the_slots_of_a_late_run() -> None:
    with gated(l2=6) as (tiers, device):
        handles = CACHE.put(tiers)
        device.fail("timeout")
        assert tiers.prefetch(handles[:4]) == 4
        tiers.wait_prefetched()
        assert tiers.prefetch(handles[:6]) == 2
        tiers.wait_prefetched()
        assert tiers.stats().prefetch_failed == 6  # the two because that run has the buffer still
        assert tiers.prefetch(handles[:6]) == 2
        device.open()  # scribbles
        tiers.wait_prefetched()
        assert tiers.prefetch(handles[:6]) >= 4
        tiers.wait_prefetched()
        assert read(tiers, handles, some(0, 70))
        assert tiers.stats().hits_l2 >= 4


def test_blocks_in_parts() -> None:
    shape = BlockShape(64, 35, 128, DType.FP16)  # two parts
    cache = Cache.random(20, shape=shape)
    with manager(budgets(shape, l2=30), shape, wrap=GatedDevice) as tiers:
        handles = cache.put(tiers)
        device: Any = tiers.codec.device
        device.fail("", "status")
        assert tiers.prefetch(handles) == 20
        tiers.wait_prefetched()
        assert tiers.stats().prefetch_failed == 1
        assert cache.get(tiers, handles).same(cache)
        assert (tiers.stats().hits_l2, tiers.stats().misses) == (19, 1)


def test_threads_come_with_the_first_prefetch() -> None:
    before = drivers()
    with gated() as (tiers, _):
        handles = CACHE.put(tiers)
        assert read(tiers, handles, some(0, 70))
        tiers.prefetch(handles[:0])
        tiers.wait_prefetched()
        assert drivers() == before
        tiers.prefetch(handles[:1])
        assert drivers() > before


def test_close_ends_what_is_on_its_way() -> None:
    with gated() as (tiers, device):
        handles = CACHE.put(tiers)
        device.hold(1)
        tiers.prefetch(handles)
        eventually(lambda: bool(device.held))
        timer = threading.Timer(0.05, device.open)
        timer.start()
        tiers.close()
        timer.join()
        with pytest.raises(DeviceError, match="closed"):
            tiers.poll()


def test_a_refused_submission_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MemoryError

    with gated(l2=6) as (tiers, _):
        handles = CACHE.put(tiers)
        live = tiers.codec.device.live_buffers
        with monkeypatch.context() as patch:
            patch.setattr(prefetching.SpeckvDriver, "submit", refuse)
            with pytest.raises(MemoryError):
                tiers.prefetch(handles)
        assert tiers.codec.device.live_buffers == live
        assert tiers.prefetch(handles) == 6


def test_wait_prefetched_has_a_deadline() -> None:
    with gated() as (tiers, device):
        device.hold(1)
        tiers.prefetch(CACHE.put(tiers))
        with pytest.raises(DeviceTimeout, match="commands not done"):
            tiers.wait_prefetched(0.01)
