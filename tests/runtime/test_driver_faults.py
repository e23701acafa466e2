"""SpeckvDriver on devices that fail, hang or lie; many threads; closing with commands in flight."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.driver import SpeckvDriver, command
from speckv_pynq.errors import (
    AbiMismatch,
    CommandCancelled,
    DeviceBufferError,
    DeviceError,
    DeviceTimeout,
    RingFull,
)
from speckv_pynq.spec import CommandStatus, Parameter
from tests.runtime.held_device import Held, HeldDevice, HeldRun, eventually
from tests.runtime.kernels import Gate, device_with, large_table, table_at

pytestmark = pytest.mark.timeout(60)
FAULTS = [
    (DeviceError("engine"), CommandStatus.DEVICE_ERROR, DeviceError),
    (DeviceTimeout("slow"), CommandStatus.DEVICE_TIMEOUT, DeviceTimeout),
    (DeviceBufferError("gone"), CommandStatus.BAD_BUFFER, DeviceBufferError),
    (AbiMismatch("other"), CommandStatus.ABI_MISMATCH, AbiMismatch),
    (MemoryError("none left"), CommandStatus.DEVICE_ERROR, DeviceError),
    (ZeroDivisionError("bug"), CommandStatus.DEVICE_ERROR, DeviceError),
    (SystemExit("out"), CommandStatus.DEVICE_ERROR, DeviceError),
]


class Faulty(HeldDevice):
    """Fails at chosen calls of start or wait, counted together; else ends runs at once."""

    def __init__(self, faults: dict[int, BaseException]) -> None:
        super().__init__(holding=False)
        self.faults, self.calls = faults, 0

    def step(self) -> None:
        call, self.calls = self.calls, self.calls + 1
        if call in self.faults:
            raise self.faults[call]

    def start_compress(self, *arguments: object) -> HeldRun:
        self.step()
        run = super().start_compress(*arguments)
        answer = run.wait

        def wait(timeout_s: float) -> np.ndarray:
            self.step()
            return answer(timeout_s)

        run.wait = wait
        return run

    start_decompress = start_compress


def driver_threads() -> int:
    return sum(thread.name.startswith("speckv-driver") for thread in threading.enumerate())


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize(("fault", "status", "kind"), FAULTS)
def test_a_fault_at_any_call_fails_that_command_alone(
    at: int, fault: BaseException, status: CommandStatus, kind: type
) -> None:
    """Four commands, two device calls each, the fault at one of them."""
    held = Held(device=Faulty({at: fault}))
    held.driver.set_param(Parameter.RUNS_IN_FLIGHT, 1)
    for name in range(4):
        (held.prefetch if name == 2 else held.dma)(name)
        held.driver.drain(5.0)
    done = held.driver.poll_done()
    assert [d.tag for d in done] == [0, 1, 2, 3]
    for d in done:
        assert d.status is (status if d.tag == at // 2 else CommandStatus.OK)
    with pytest.raises(kind, match=str(fault)) as caught:
        done[at // 2].check()
    assert caught.value.__cause__ is fault
    held.close()


@pytest.mark.parametrize(
    "answer", [None, 7, np.zeros(3, spec.COMPLETION), np.zeros(1, spec.DESCRIPTOR)]
)
def test_an_answer_that_is_none_fails_the_command(answer: object) -> None:
    wrong = Held(holding=False)
    start = wrong.device.start_compress

    def lying(*arguments: object) -> HeldRun:
        run = start(*arguments)
        run.wait = lambda timeout_s: answer
        return run

    wrong.device.start_compress = lying
    wrong.dma(1)
    assert wrong.driver.wait(1, 5.0).status is CommandStatus.DEVICE_ERROR
    wrong.device.start_compress = start
    wrong.dma(2)
    assert wrong.driver.wait(2, 5.0).ok
    wrong.close()


@pytest.mark.parametrize("own", [True, False])
def test_a_late_run_fences_its_target_until_it_ends(own: bool) -> None:
    held = Held()
    if own:
        held.dma(1, timeout_us=5000)
    else:
        held.driver.set_param(Parameter.COMMAND_TIMEOUT_US, 5000)
        held.prefetch(1)
    done = held.driver.wait(1, 5.0)
    assert done.status is CommandStatus.DEVICE_TIMEOUT
    with pytest.raises(DeviceTimeout, match=r"held for 0\.00"):
        done.check()
    assert held.driver.late_runs == 1
    for name, field in enumerate(("source", "target", "results", "descriptors", "codebooks"), 10):
        held.dma(name, **{field: held.target})
        fenced = held.driver.wait(name, 5.0)
        assert fenced.status is CommandStatus.FENCED
        with pytest.raises(DeviceError, match="may still write"):
            fenced.check()
    other = held.driver.register(held.device.allocate(64))
    held.dma(20, target=other, timeout_us=5_000_000)
    held.device.run(20).end()
    assert held.driver.wait(20, 5.0).ok
    held.device.run(1).end()
    assert held.driver.late_runs == 0
    held.dma(21, timeout_us=5_000_000)
    held.device.run(21).end()
    assert held.driver.wait(21, 5.0).ok
    assert held.device.names == [1, 20, 21]
    held.close()


def test_closing_with_commands_in_flight_completes_each_once() -> None:
    held = Held()
    held.driver.set_param(Parameter.RUNS_IN_FLIGHT, 1)
    for name in range(3):
        held.dma(name)
        held.prefetch(10 + name)
    eventually(lambda: set(held.device.names) == {0, 10})
    waiter = ThreadPoolExecutor(1).submit(held.driver.wait, 2, 20.0)
    closing = threading.Thread(target=held.driver.close)
    closing.start()
    assert waiter.result(5.0).status is CommandStatus.CLOSED
    for name in (0, 10):
        held.device.run(name).end()
    closing.join(5.0)
    assert not closing.is_alive()
    done = {d.tag: d.status for d in held.driver.poll_done()}
    assert done == {
        **dict.fromkeys((1, 11, 12), CommandStatus.CLOSED),
        **dict.fromkeys((0, 10), CommandStatus.OK),
    }
    assert held.device.names in ([0, 10], [10, 0])
    assert held.driver.outstanding() == 0


def test_closing_on_a_device_that_hangs_ends_and_completes_what_ran() -> None:
    held = Held()
    held.dma(1)
    run = held.device.run(1)
    start = time.monotonic()
    with pytest.raises(DeviceTimeout, match=r"0\.05 s after close\(\): 1 commands"):
        held.driver.close(0.05)
    assert time.monotonic() - start < 2
    done = held.driver.wait(1)
    assert done.status is CommandStatus.CLOSED
    with pytest.raises(CommandCancelled):
        done.check()
    run.end()
    held.driver.close(5.0)
    assert held.driver.poll_done() == []  # its late end is no second completion


def test_closing_waits_for_late_runs_and_says_when_they_stay() -> None:
    held = Held()
    held.dma(1, timeout_us=1000)
    assert held.driver.wait(1, 5.0).status is CommandStatus.DEVICE_TIMEOUT
    with pytest.raises(DeviceTimeout, match="0 commands, 1 late runs"):
        held.driver.close(0.01)
    held.device.run(1).end()
    held.driver.close()


def test_closing_ends_a_wait_for_slots() -> None:
    held = Held(slots=1)
    held.dma(1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(held.dma, 2, ring_timeout_s=20.0)
        time.sleep(0.02)
        held.device.run(1).end()
        held.driver.close()
        with pytest.raises(DeviceError, match="closed"):
            waiting.result(5.0)


def test_commands_are_copied_when_they_are_submitted() -> None:
    held = Held(slots=1)
    held.dma(1)
    held.device.run(1).end()
    held.driver.drain(5.0)
    rows = command(spec.Opcode.DMA_BATCH, tag=2, descriptors_line=2, count=1, **held.fields)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(held.driver.submit, rows, 20.0)
        time.sleep(0.02)
        rows["tag"], rows["descriptors_line"] = 3, 3
        held.driver.wait(1).check()
        waiting.result(5.0)
    held.device.run(2).end()
    held.driver.wait(2, 5.0).check()
    held.close()


def test_nothing_is_left_of_drivers_and_their_buffers() -> None:
    before = driver_threads()
    for _ in range(20):
        held = Held(holding=False)
        held.prefetch(1)
        held.dma(2)
        held.driver.drain(5.0)
        kept = weakref.ref(held.device.buffers[0])
        held.close()
        held.device.buffers.clear()
        gc.collect()
        assert kept() is None
    assert driver_threads() == before


@pytest.mark.parametrize("fails", [False, True])
def test_an_ended_command_keeps_no_buffer_alive(fails: bool) -> None:
    """Nor does its completion, with what the device raised."""
    held = Held()
    gone = weakref.ref(held.device.buffers[0])
    held.dma(1)
    held.device.run(1).end(error=DeviceError("injected") if fails else None)
    done = held.driver.wait(1, 5.0)
    assert done.ok is not fails
    held.driver.unregister(held.source)
    held.device.buffers.clear()
    held.device.runs.clear()

    def collected() -> bool:
        gc.collect()
        return gone() is None

    eventually(collected)
    held.close()


@pytest.mark.requires("libspeckv")
@pytest.mark.parametrize("freed", ["source", "target", "descriptors", "results"])
def test_a_buffer_freed_too_early_is_a_typed_end(freed: str) -> None:
    gate = Gate()
    with device_with(gate) as device, SpeckvDriver(device) as driver:
        buffers = {
            name: device.allocate(4096) for name in ("source", "target", "descriptors", "results")
        }
        numbers = {name: driver.register(buffer) for name, buffer in buffers.items()}
        buffers["descriptors"].array[:128] = large_table(2).view(np.uint8)
        driver.set_param(Parameter.RUNS_IN_FLIGHT, 1)
        first = driver.dma_batch(count=2, **numbers)
        second = driver.dma_batch(count=2, **numbers)
        assert gate.entered.wait(5.0)
        buffers[freed].free()
        gate.opened.set()
        done = driver.wait(first)
        assert done.ok or freed == "results"  # what runs keeps its memory
        with pytest.raises(DeviceBufferError, match=r"bad_buffer: .*free"):
            driver.wait(second).check()


@pytest.mark.requires("libspeckv")
def test_a_csim_engine_that_misses_the_deadline_and_then_recovers() -> None:
    gate = Gate()
    with device_with(gate) as device, SpeckvDriver(device) as driver:
        target, table = device.allocate(4096), device.allocate(4096)
        table.array[:128] = large_table(2).view(np.uint8)
        at, rows = driver.register(target), driver.register(table)
        fields = {"source": rows, "target": at, "descriptors": rows, "count": 2}
        with pytest.raises(DeviceTimeout, match="2 of 2 descriptors outstanding"):
            driver.wait(driver.dma_batch(timeout_us=2000, **fields)).check()
        with pytest.raises(DeviceError, match="fenced"):
            driver.wait(driver.dma_batch(**fields)).check()
        gate.opened.set()
        eventually(lambda: driver.late_runs == 0)
        driver.wait(driver.dma_batch(**fields)).check()


@pytest.mark.requires("libspeckv", "pynq")
def test_an_overlay_that_fails_a_call(tmp_path: Path) -> None:
    from speckv_pynq.device.pynq_device import PynqDevice
    from tests.runtime.boards import board

    faults = iter([ZeroDivisionError("kernel"), None])

    def kernel(*arguments: int) -> int:
        fault = next(faults)
        if fault is not None:
            raise fault
        _, address, count, _ = arguments[6:]
        table_at(address, count, spec.COMPLETION)[:] = 0
        return 0

    with (
        board(tmp_path, kernel=kernel) as overlay,
        PynqDevice(overlay) as device,
        SpeckvDriver(device) as driver,
    ):
        number = driver.register(device.allocate(4096))
        fields = {"source": number, "target": number, "descriptors": number, "count": 1}
        first = driver.wait(driver.dma_batch(**fields))
        assert first.status is CommandStatus.DEVICE_ERROR
        with pytest.raises(DeviceError, match="kernel"):
            first.check()
        driver.wait(driver.dma_batch(**fields)).check()


def test_many_threads_complete_each_command_once_under_faults() -> None:
    """Six owners submit, cancel and poll while a tenth of the device's calls fail."""
    rng = random.Random(4)
    faults = {call: DeviceError("injected") for call in range(20000) if rng.random() < 0.1}
    held = Held(slots=8, device=Faulty(faults))
    held.driver.set_param(Parameter.RUNS_IN_FLIGHT, 3)

    def owner_thread(owner: int) -> Counter[str]:
        mine, ends, open_ = random.Random(owner), Counter[str](), set[int]()

        def read(timeout_s: float) -> None:
            for done in held.driver.poll_done(timeout_s, owner=owner):
                open_.remove(done.tag)  # KeyError: completed twice
                ends[done.status.name] += 1

        for tag in range(150):
            submit = mine.choice([held.dma, held.dma, held.prefetch])
            open_.add(tag)
            while True:
                try:
                    submit(tag, owner=owner, descriptors_line=tag % 64, ring_timeout_s=0.005)
                    break
                except RingFull:
                    read(20.0)
            if mine.random() < 0.1:
                held.driver.cancel(owner=owner, tag=mine.choice(list(open_)))
            read(0.0)
        while open_:
            read(20.0)
        return ends

    with ThreadPoolExecutor(6) as pool:
        ends = sum(pool.map(owner_thread, range(6)), Counter())
    assert ends.total() == 900
    assert ends["OK"] > 300
    assert ends["DEVICE_ERROR"] > 20
    assert held.driver.outstanding() == 0
    held.close()


def test_a_forked_child_gets_an_error_and_does_not_hang() -> None:
    held = Held(holding=False)
    child = os.fork()
    if not child:
        code = 1
        try:
            held.dma(1)
        except DeviceError:
            held.driver.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    held.dma(2)
    assert held.driver.wait(2, 5.0).ok
    held.close()
