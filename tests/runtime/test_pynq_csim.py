"""The csim board: ap_ctrl_hs registers, a worker a unit, memory that shows missing syncs."""

from __future__ import annotations

import threading
import time

import pytest

from speckv_pynq import spec
from speckv_pynq.device.ap_ctrl import (
    AP_DONE,
    AP_IDLE,
    AP_READY,
    AP_START,
    CTRL,
    IP_IER,
    IP_ISR,
    ComputeUnit,
    describe_ctrl,
)
from speckv_pynq.device.csim_dram import FIRST_ADDRESS, Dram
from speckv_pynq.errors import DeviceBufferError, DeviceError

ARGUMENTS = (
    spec.KernelArgument("data", 512, 0x10, True, False),
    spec.KernelArgument("count", 32, 0x1C, False, False),
)


class Unit:
    """A unit over a Python function that records its arguments and thread, and waits at a gate."""

    def __init__(self) -> None:
        self.calls, self.threads, self.gate = [], [], threading.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.unit = ComputeUnit("unit", ARGUMENTS, 256, self.execute)
        self.registers = self.unit.view(0, 256)

    def execute(self, arguments: dict[str, int]) -> None:
        self.calls.append(arguments)
        self.threads.append(threading.get_ident())
        assert self.gate.wait(5)
        if self.error:
            raise self.error

    def run(self) -> int:
        """Starts, waits for idle, and returns the first CTRL value that had it."""
        self.registers[0] = AP_START
        deadline = time.monotonic() + 5
        while not (value := int(self.registers[0])) & AP_IDLE:
            assert time.monotonic() < deadline
        return value


@pytest.fixture
def unit():
    made = Unit()
    yield made
    made.gate.set()
    assert made.unit.stop(5)


def test_reset_state_is_idle(unit):
    assert int(unit.registers[0]) == AP_IDLE


def test_done_and_ready_clear_when_read(unit):
    assert unit.run() == AP_DONE | AP_IDLE | AP_READY
    assert int(unit.registers[0]) == AP_IDLE


def test_arguments_are_taken_at_the_start_with_both_words(unit):
    unit.registers[4:6] = 0x1234_5678, 0x9
    unit.registers[0x1C // 4] = 7
    unit.run()
    assert unit.calls == [{"data": 0x9_1234_5678, "count": 7}]


def test_a_start_while_busy_is_dropped_and_start_stays_set(unit):
    unit.gate.clear()
    unit.registers[0] = AP_START
    unit.registers[0] = AP_START
    assert int(unit.registers[0]) == AP_START
    unit.gate.set()
    while not int(unit.registers[0]) & AP_IDLE:
        time.sleep(1e-4)
    assert len(unit.calls) == 1


def test_one_thread_serves_every_call(unit):
    for _ in range(5):
        unit.run()
    assert len(set(unit.threads)) == 1
    assert unit.threads[0] != threading.get_ident()


def test_an_interrupt_status_is_set_when_enabled_and_toggled_when_written(unit):
    unit.run()
    assert int(unit.registers[IP_ISR // 4]) == 0
    unit.registers[IP_IER // 4] = 0xFF
    unit.run()
    assert int(unit.registers[IP_ISR // 4]) == 3
    unit.registers[IP_ISR // 4] = 1
    assert int(unit.registers[IP_ISR // 4]) == 2


def test_reserved_words_keep_nothing(unit):
    unit.registers[0x18 // 4] = 5
    unit.registers[0x80 // 4] = 5
    assert int(unit.registers[0x18 // 4]) == int(unit.registers[0x80 // 4]) == 0


def test_a_failed_run_is_done_and_its_error_is_kept_once(unit):
    unit.error = RuntimeError("broken")
    assert unit.run() & AP_DONE
    assert unit.unit.take_error() is unit.error
    assert unit.unit.take_error() is None


def test_a_stopped_unit_answers_with_an_error(unit):
    assert unit.unit.stop(5)
    assert unit.run() & AP_DONE
    assert "replaced" in str(unit.unit.take_error())


def test_a_view_of_a_view_is_the_same_register(unit):
    part = unit.registers[4:8].view("u4")[1:2]
    part[0] = 42
    assert unit.unit.words[5] == 42
    with pytest.raises(IndexError, match="register word 1 of 1"):
        part[1]


def test_control_in_words():
    assert describe_ctrl(AP_START) == "CTRL=0x01 (AP_START)"
    assert describe_ctrl(0) == "CTRL=0x00 (no bit set)"
    assert CTRL == 0


def test_addresses_need_both_words_and_have_guard_pages():
    dram = Dram()
    first, _ = dram.allocate(4096)
    second, _ = dram.allocate(1)
    assert first >= FIRST_ADDRESS > 1 << 32
    assert second >= first + 2 * 4096
    with pytest.raises(DeviceError, match="decode error"):
        dram.resolve(first + 4096, 1, "port")


def test_a_range_ends_with_its_buffer():
    dram = Dram()
    address, _ = dram.allocate(640)
    assert dram.resolve(address + 64, 576, "port").nbytes == 576
    with pytest.raises(DeviceError, match=r"577 bytes at .* run past the buffer's end, 576 bytes"):
        dram.resolve(address + 64, 577, "port")


def test_a_released_buffer_is_no_memory():
    dram = Dram()
    address, _ = dram.allocate(64)
    dram.release(address)
    dram.release(address)
    assert dram.live_buffers == dram.live_bytes == 0
    with pytest.raises(DeviceBufferError, match="is freed"):
        dram.sides(address)


def test_the_device_side_starts_with_what_nobody_wrote():
    dram = Dram()
    _, device = dram.sides(dram.allocate(256)[0])
    assert (device == 0xA5).all()


def test_a_large_pool_costs_only_what_is_touched():
    dram = Dram()
    address, host = dram.allocate(1 << 40)
    host[1 << 39] = 1
    assert dram.sides(address)[1][1 << 39] == 0


@pytest.mark.parametrize("nbytes", [0, -1])
def test_a_buffer_has_bytes(nbytes):
    with pytest.raises(DeviceBufferError, match=f"a buffer of {nbytes} bytes"):
        Dram().allocate(nbytes)
