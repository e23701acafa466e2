"""The csim device: order, engines, deadlines, errors, buffers, threads and forks."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.block import BlockShape, block_ids
from speckv_pynq.codec import Codec
from speckv_pynq.device.csim import INLINE_BYTES, CsimDevice, _engine, _stop_engines
from speckv_pynq.errors import (
    AbiMismatch,
    ConfigError,
    DeviceBufferError,
    DeviceError,
    DeviceTimeout,
)
from tests.runtime.kernels import Echo, Gate, device_with, large_table

pytestmark = [pytest.mark.requires("libspeckv"), pytest.mark.timeout(60)]
SHAPE = BlockShape(32, 8, 128, spec.DType.FP16)


@pytest.fixture
def device() -> Iterator[CsimDevice]:
    with CsimDevice(2) as opened:
        yield opened


def engines() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("speckv-csim")]


@pytest.mark.parametrize("num_engines", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 4, 5, 64])
def test_completions_come_in_the_order_of_descriptors(num_engines: int, count: int) -> None:
    echo = Echo()
    with device_with(echo, num_engines) as device, device.allocate(64) as buffer:
        table = large_table(count)
        done = device.start_compress(buffer, buffer, table).wait()
    assert done["value"].tolist() == table["record_offset"].tolist()
    assert sum(echo.slices) == count
    assert len(echo.slices) == min(num_engines, count)
    assert max(echo.slices) - min(echo.slices) <= 1


def test_a_call_never_has_more_descriptors_than_kernels_take() -> None:
    echo = Echo()
    with device_with(echo) as device, device.allocate(64) as buffer:
        for table in (large_table(spec.MAX_BATCH + 1), np.zeros(spec.MAX_BATCH + 1, "V64")):
            echo.slices.clear()
            device.start_compress(buffer, buffer, table.view(spec.DESCRIPTOR)).wait()
            assert sum(echo.slices) == spec.MAX_BATCH + 1
            assert max(echo.slices) <= spec.MAX_BATCH


def test_a_small_table_runs_at_once_and_an_empty_one_needs_no_kernel() -> None:
    echo = Echo()
    with device_with(echo) as device, device.allocate(64) as buffer:
        small = large_table(1)
        small["heads"] = INLINE_BYTES // (4 * 64 * 128)
        run = device.start_compress(buffer, buffer, small)
        assert run.done()
        assert echo.slices == [1]
        assert len(device.start_compress(buffer, buffer, large_table(0)).wait()) == 0
        assert echo.slices == [1]


def test_the_table_may_be_changed_after_start() -> None:
    gate = Gate()
    with device_with(gate) as device, device.allocate(64) as buffer:
        table = large_table(3)
        run = device.start_compress(buffer, buffer, table)
        table["record_offset"] = 7
        gate.opened.set()
        assert run.wait()["value"].tolist() == [0, 64, 128]


def encode_all(device: CsimDevice, blocks: np.ndarray, timeout_s: float = 30) -> bytes:
    """Codes (n, block_bytes) blocks in one table; all records' slots as bytes."""
    n, codec = len(blocks), Codec(device, SHAPE, spec.Scheme.INT8_DELTA_RLE)
    with (
        device.allocate(blocks.nbytes) as source,
        device.allocate(n * SHAPE.slot_bytes) as records,
        device.allocate(blocks.nbytes) as back,
    ):
        source.array[:] = blocks.reshape(-1)
        slots, at = np.arange(n) * SHAPE.slot_bytes, np.arange(n) * SHAPE.block_bytes
        ids = block_ids(1, np.arange(n) * 32)
        done = codec.encode(source, ids, at, records, slots, timeout_s=timeout_s)
        codec.decode(records, ids, slots, done["record_bytes"], back, at, timeout_s=timeout_s)
        return records.array.tobytes() + back.array.tobytes()


def test_many_runs_over_many_engines_equal_one_engine() -> None:
    rng = np.random.default_rng(5)
    tables = []
    for n in (1, 2, 3, 9, 17):
        values = rng.integers(-500, 500, (n, SHAPE.block_bytes // 16)).astype(np.float16)
        tables.append(np.repeat(values, 8, axis=1).view(np.uint8))  # in runs, so that they code
    with CsimDevice(1) as single:
        want = [encode_all(single, table) for table in tables]
        assert single.live_buffers == 0
    with CsimDevice(3) as device, ThreadPoolExecutor(4) as callers:
        got = list(callers.map(lambda table: encode_all(device, table), tables * 2))
        assert device.live_buffers == 0
    assert got == want * 2


def test_deadline_names_seconds_and_outstanding_and_the_run_goes_on() -> None:
    gate = Gate()
    with device_with(gate, 2) as device, device.allocate(64) as buffer:
        run = device.start_decompress(buffer, buffer, large_table(10))
        assert not run.done()
        for _ in range(2):
            with pytest.raises(DeviceTimeout, match=r"10 of 10 descriptors .* after 0\.01 s"):
                run.wait(timeout_s=0.01)
        with pytest.raises(DeviceTimeout):
            run.wait(timeout_s=0)
        gate.opened.set()
        assert len(run.wait()) == 10
        assert run.done()
        assert len(run.wait(timeout_s=0)) == 10


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), float("inf")])
def test_a_wait_has_an_end(timeout_s: float) -> None:
    gate = Gate()
    with device_with(gate) as device, device.allocate(64) as buffer:
        run = device.start_decompress(buffer, buffer, large_table(2))
        with pytest.raises(ConfigError, match="timeout_s"):
            run.wait(timeout_s)
        gate.opened.set()


def test_an_idle_engine_keeps_no_run_alive() -> None:
    with device_with(Echo()) as device, device.allocate(64) as buffer:
        run = device.start_compress(buffer, buffer, large_table(2))
        run.wait()
        gone = weakref.ref(run)
        del run
        deadline = time.monotonic() + 5
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.001)  # the engine may still be on its way back to the queue
        assert gone() is None


def test_kernels_see_tables_aligned_to_lines() -> None:
    echo = Echo()
    with device_with(echo) as device, device.allocate(64) as buffer:
        for count in range(1, 20):
            device.start_compress(buffer, buffer, large_table(count)).wait()
    assert all(address % spec.LINE_BYTES == 0 for address in echo.tables)


def test_an_error_in_an_engine_reaches_wait_and_the_engine_lives_on() -> None:
    faults = iter([ZeroDivisionError("kernel"), None])

    def kernel(*arguments: int) -> int:
        fault = next(faults)
        if fault is not None:
            raise fault
        return 0

    with device_with(kernel) as device, device.allocate(64) as buffer:
        run = device.start_compress(buffer, buffer, large_table(2))
        for _ in range(2):
            with pytest.raises(DeviceError, match="kernel"):
                run.wait()
        assert len(device.start_compress(buffer, buffer, large_table(2)).wait()) == 2


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (spec.Status.ABI_MISMATCH, AbiMismatch, "abi_id"),
        (spec.Status.BAD_SHAPE, DeviceError, "bad_shape"),
        (999, DeviceError, "999"),
    ],
)
@pytest.mark.parametrize("heads", [1, 8])
def test_a_call_that_fails_as_a_whole(status: int, error: type, text: str, heads: int) -> None:
    with device_with(lambda *_: status) as device, device.allocate(64) as buffer:
        table = large_table(2)
        table["heads"] = heads
        with pytest.raises(error, match=text):
            device.start_compress(buffer, buffer, table).wait()


def test_an_offset_outside_its_buffer_fails_alone(device: CsimDevice) -> None:
    codec = Codec(device, SHAPE, spec.Scheme.RAW)
    with device.allocate(SHAPE.block_bytes) as blocks, device.allocate(1 << 20) as records:
        slots = np.array([0, 1 << 40, 262144, 64 * (1 << 57)], np.uint64)
        rows = codec.describe(block_ids(0, [0, 32, 64, 96]), 0, slots, SHAPE.slot_bytes)
        rows["key_offset"][2] = 1 << 62
        done = device.start_compress(blocks, records, rows).wait()
        assert done["status"].tolist() == [0, *[spec.Status.OUT_OF_RANGE] * 3]
        assert not records.array[SHAPE.slot_bytes :].any()


def test_tables_of_another_type_or_order_are_refused(device: CsimDevice) -> None:
    with device.allocate(64) as buffer:
        for table in (np.zeros(3, spec.COMPLETION), np.zeros((2, 2), spec.DESCRIPTOR)):
            with pytest.raises(DeviceError, match=r"not 1-D spec\.DESCRIPTOR"):
                device.start_compress(buffer, buffer, table)
        with pytest.raises(DeviceError, match="contiguous"):
            device.start_compress(buffer, buffer, np.zeros(4, spec.DESCRIPTOR)[::2])


def test_buffers_are_aligned_zeroed_and_counted(device: CsimDevice) -> None:
    sizes = [1, 63, 4097]
    buffers = [device.allocate(size) for size in sizes]
    assert (device.live_buffers, device.live_bytes) == (3, sum(sizes))
    for buffer, size in zip(buffers, sizes, strict=True):
        assert buffer.nbytes == size == buffer.array.nbytes
        assert buffer.array.ctypes.data % spec.LINE_BYTES == 0
        assert buffer.array.flags.writeable
        assert not buffer.array.any()
    buffers[0].free()
    buffers[0].free()
    assert (device.live_buffers, device.live_bytes) == (2, 63 + 4097)
    with buffers[1]:
        pass
    del buffers, buffer
    gc.collect()
    assert (device.live_buffers, device.live_bytes) == (0, 0)


@pytest.mark.parametrize("nbytes", [0, -1, 1 << 62, 1 << 80])
def test_sizes_that_no_system_has_are_typed_errors(device: CsimDevice, nbytes: int) -> None:
    with pytest.raises(DeviceBufferError, match="bytes"):
        device.allocate(nbytes)
    assert device.live_buffers == 0


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_reserved_pool_costs_its_touched_pages(device: CsimDevice) -> None:
    before = resident_bytes()
    with device.allocate(128 << 30, reserve=True) as pool:
        pool.array[:: 1 << 30] = 1
        assert resident_bytes() - before < 16 << 20


def test_use_after_free_is_an_error_and_a_kept_view_is_harmless(device: CsimDevice) -> None:
    buffer, other = device.allocate(4096), device.allocate(4096)
    view = buffer.array
    view[:] = 1
    buffer.free()
    for use in (
        lambda: buffer.array,
        buffer.sync_to_device,
        lambda: device.start_compress(buffer, other, large_table(1)),
        lambda: device.start_compress(other, buffer, large_table(1)),
    ):
        with pytest.raises(DeviceBufferError, match="after free"):
            use()
    assert not view.any()  # its page went back
    assert "freed" in repr(buffer)


def test_free_during_a_run_waits_for_its_end() -> None:
    gate = Gate()
    with device_with(gate) as device:
        buffer = device.allocate(4096)
        run = device.start_compress(buffer, buffer, large_table(4))
        buffer.free()
        assert (device.live_buffers, device.live_bytes) == (1, 4096)
        gate.opened.set()
        assert len(run.wait()) == 4
        assert (device.live_buffers, device.live_bytes) == (0, 0)


def test_memory_of_another_device_is_refused(device: CsimDevice) -> None:
    with CsimDevice(1) as other, device.allocate(64) as ours:
        theirs = other.allocate(64)
        with pytest.raises(DeviceBufferError, match="not memory of this csim device"):
            device.start_compress(ours, theirs, large_table(1))


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 1), (0, 65), (65, None), (64, 1), (0, -1)])
def test_sync_outside_the_buffer_is_an_error(
    device: CsimDevice, offset: int, nbytes: int | None
) -> None:
    with device.allocate(64) as buffer:
        buffer.sync_from_device(64, 0)
        with pytest.raises(DeviceBufferError, match="leaves the buffer of 64 bytes"):
            buffer.sync_to_device(offset, nbytes)


def test_close_ends_runs_engines_and_buffers() -> None:
    before = len(engines())
    gate = Gate()
    device = device_with(gate, 2)
    buffer = device.allocate(64)
    run = device.start_compress(buffer, buffer, large_table(8))
    assert gate.entered.wait(5)
    with pytest.raises(DeviceTimeout, match="2 engines still busy"):
        device.close(timeout_s=0.01)
    gate.opened.set()
    device.close()
    device.close()
    assert len(run.wait(timeout_s=0)) == 8
    assert len(engines()) == before
    assert device.live_buffers == 0
    for use in (lambda: device.allocate(64), lambda: device.start_compress(buffer, buffer, run)):
        with pytest.raises(DeviceError, match="closed"):
            use()


class SlowQueue:
    """A queue after whose put() a waiting engine has had time to act."""

    def __init__(self) -> None:
        self._queue: SimpleQueue = SimpleQueue()
        self.get = self._queue.get

    def put(self, job: object) -> None:
        self._queue.put(job)
        time.sleep(0.05)


@pytest.mark.parametrize("order", [1, -1])
def test_an_engine_that_stops_early_costs_no_other_its_mark(order: int) -> None:
    jobs = SlowQueue()
    threads = [threading.Thread(target=_engine, args=(jobs,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert _stop_engines(jobs, threads[::order], timeout_s=2) == 0


def test_a_forgotten_device_takes_its_engines_along() -> None:
    before = len(engines())
    device = CsimDevice(2)
    assert len(engines()) == before + 2
    del device
    gc.collect()
    assert len(engines()) == before


@pytest.mark.parametrize("num_engines", [0, -1, 257])
def test_num_engines_is_bounded(num_engines: int) -> None:
    with pytest.raises(ConfigError, match="num_engines"):
        CsimDevice(num_engines)


def test_a_forked_child_gets_errors_and_the_parent_goes_on() -> None:
    gate = Gate()
    with device_with(gate, 2) as device, device.allocate(64) as buffer:
        run = device.start_compress(buffer, buffer, large_table(8))
        lock_held, forked = threading.Event(), threading.Event()

        def hold_lock() -> None:  # the child inherits it locked, and nobody there to unlock it
            with device._ledger.lock:
                lock_held.set()
                forked.wait(10)

        holder = threading.Thread(target=hold_lock)
        holder.start()
        assert lock_held.wait(5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork of a threaded process
            child = os.fork()
        if not child:
            os._exit(_use_in_child(device, buffer, run))
        forked.set()
        holder.join()
        assert _exit_status(child) == 0
        gate.opened.set()
        assert len(run.wait()) == 8
        assert device.live_buffers == 1


def _use_in_child(device: CsimDevice, buffer, run) -> int:
    uses = (
        lambda: device.allocate(64),
        lambda: device.start_compress(buffer, buffer, large_table(1)),
        run.wait,
    )
    try:
        for code, use in enumerate(uses, 1):
            try:
                use()
            except DeviceError as error:
                if "fork" in str(error) and not isinstance(error, DeviceTimeout):
                    continue
            return code
        buffer.free()
        device.close()
        with CsimDevice(1) as fresh, fresh.allocate(64) as own:  # the child may open its own
            fresh.start_compress(own, own, large_table(2)).wait()
        return 0
    except BaseException:
        return 100


def _exit_status(child: int, timeout_s: float = 20) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError(f"the child hung for {timeout_s} s")
