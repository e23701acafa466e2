"""SpeckvDriver: what commands do, on a device whose runs end when the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.driver import MAX_RUNS_IN_FLIGHT, command
from speckv_pynq.driver.completion import Completion
from speckv_pynq.errors import (
    CommandCancelled,
    CommandError,
    ConfigError,
    DeviceBufferError,
    DeviceError,
    DeviceTimeout,
    RecordError,
    RingFull,
)
from speckv_pynq.spec import CommandStatus, Opcode, Parameter
from tests.runtime.held_device import Held, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.close()


def test_completions_come_in_order_of_finishing_with_their_tags(held: Held) -> None:
    for name in (1, 2):
        held.dma(name)
    held.device.run(2).end()
    assert [done.tag for done in held.driver.poll_done(5.0)] == [2]
    held.device.run(1).end()
    assert [done.tag for done in held.driver.poll_done(5.0)] == [1]
    assert held.driver.poll_done(5.0) == []  # nothing open: no wait


def test_owners_have_completions_of_their_own(held: Held) -> None:
    held.dma(1, owner=5)
    held.dma(1, owner=6)
    eventually(lambda: len(held.device.runs) == 2)
    for run in held.device.runs:
        run.end()
    held.driver.drain(5.0)
    assert [(done.owner, done.tag) for done in held.driver.poll_done(owner=6)] == [(6, 1)]
    assert [(done.owner, done.tag) for done in held.driver.poll_done(owner=5)] == [(5, 1)]
    assert held.driver.poll_done() == []


def test_an_owner_that_reads_nothing_stops_nobody_else() -> None:
    held = Held(slots=2, holding=False)
    for name in (0, 1):
        held.dma(name, owner=3)
    held.driver.drain(5.0)
    with pytest.raises(RingFull):
        held.dma(2, owner=3)
    held.dma(2, owner=4)
    assert held.driver.wait(2, 5.0, owner=4).ok
    held.close()


def test_a_demand_waits_for_no_prefetch(held: Held) -> None:
    """Prefetches fill their slots, one runs and never ends: demand goes through untouched."""
    held.driver.set_param(Parameter.PREFETCH_DEPTH, 16)
    for name in range(16):
        held.prefetch(name)
    with pytest.raises(RingFull):
        held.prefetch(16)
    for name in range(100, 140):
        held.dma(name)
        held.device.run(name).end()
        assert held.driver.wait(name, 5.0).ok
    assert [name for name in held.device.names if name < 100] == [0]


def test_one_command_can_be_drained_and_read_later(held: Held) -> None:
    held.dma(1, owner=3)
    held.dma(2, owner=3)
    with pytest.raises(DeviceTimeout, match="1 commands not done"):
        held.driver.drain(0.001, owner=3, tag=1)
    held.device.run(1).end()
    held.driver.drain(5.0, owner=3, tag=1)
    assert held.driver.outstanding(3) == 1
    assert [done.tag for done in held.driver.poll_done(owner=3)] == [1]
    held.device.run(2).end()


def test_a_cancelled_prefetch_ends_after_its_slice(held: Held) -> None:
    held.driver.set_param(Parameter.PREFETCH_SLICE, 3)
    held.prefetch(10, count=9)
    held.prefetch(30)
    first = held.device.run(10)
    assert held.driver.cancel(tag=10) == 1
    assert held.driver.cancel(tag=10) == 0
    first.end()
    done = held.driver.wait(10, 5.0)
    assert (done.status, int(done.row["blocks"]), done.bytes) == (CommandStatus.CANCELLED, 3, 192)
    with pytest.raises(CommandCancelled, match="prefetch 10 of owner 0: cancelled"):
        done.check()
    held.device.run(30).end()
    assert held.driver.wait(30, 5.0).ok
    assert held.device.names == [10, 30]


def test_cancelling_ends_what_waits_and_leaves_what_runs(held: Held) -> None:
    held.driver.set_param(Parameter.RUNS_IN_FLIGHT, 1)
    for name in range(4):
        held.dma(name, owner=name % 2)
    held.device.run(0)
    assert held.driver.cancel(owner=0) == 1
    assert held.driver.cancel(owner=9) == 0
    assert [d.status for d in held.driver.poll_done(owner=0)] == [CommandStatus.CANCELLED]
    for name in (0, 1, 3):
        held.device.run(name).end()
    held.driver.drain(5.0)
    assert held.device.names == [0, 1, 3]


def test_newer_prefetches_push_out_the_oldest_of_their_owner(held: Held) -> None:
    held.driver.set_param(Parameter.PREFETCH_DEPTH, 2)
    held.prefetch(0)
    held.device.run(0)
    held.prefetch(1, owner=7)
    for name in (2, 3, 4, 5):
        held.prefetch(name)
    done = held.driver.poll_done()
    assert [(d.tag, d.status) for d in done] == [(n, CommandStatus.SUPERSEDED) for n in (2, 3)]
    for name in (0, 1, 4, 5):
        held.device.run(name).end()
    held.driver.drain(5.0)
    assert [d.tag for d in held.driver.poll_done()] == [0, 4, 5]
    held.driver.set_param(Parameter.PREFETCH_DEPTH, 0)
    held.prefetch(6)
    assert held.driver.poll_done()[0].status is CommandStatus.SUPERSEDED
    assert held.device.names == [0, 1, 4, 5]


def test_a_slot_used_again_changes_nothing_for_the_command_that_runs() -> None:
    held = Held(slots=1)
    held.driver.set_param(Parameter.PREFETCH_SLICE, 1)
    held.prefetch(0, count=2, results=held.results)
    held.device.run(0)
    held.prefetch(50, owner=1, results=held.results, results_line=9)
    for name in (0, 1, 50):
        held.device.run(name).end()
    held.driver.wait(0, 5.0).check()
    held.driver.wait(50, 5.0, owner=1).check()
    written = held.device.buffers[3].array.view(spec.COMPLETION)["record_bytes"]
    assert np.flatnonzero(written).tolist() == [
        0,
        1,
        9 * spec.LINE_BYTES // spec.COMPLETION.itemsize,
    ]
    held.close()


def test_runs_in_flight_is_obeyed_at_once(held: Held) -> None:
    held.driver.set_param(Parameter.RUNS_IN_FLIGHT, 1)
    for name in range(6):
        held.dma(name)
    held.device.run(0)
    time.sleep(0.01)
    assert held.device.names == [0]
    held.driver.set_param(Parameter.RUNS_IN_FLIGHT, MAX_RUNS_IN_FLIGHT)
    eventually(lambda: len(held.device.runs) == MAX_RUNS_IN_FLIGHT)
    time.sleep(0.01)
    assert len(held.device.runs) == MAX_RUNS_IN_FLIGHT


def test_a_full_ring_refuses_or_waits_until_a_completion_is_read() -> None:
    held = Held(slots=2, holding=False)
    for name in (0, 1):
        held.dma(name)
    held.driver.drain(5.0)
    with pytest.raises(RingFull, match=r"1 commands do not fit 2 slots after 0 s"):
        held.dma(2)
    with pytest.raises(RingFull, match=r"after 0\.02 s"):
        held.dma(2, ring_timeout_s=0.02)
    with pytest.raises(ConfigError, match="3 commands in a ring of 2 slots"):
        held.driver.submit(np.concatenate([command(Opcode.POLL_DONE, tag=i) for i in (7, 8, 9)]))
    reader = threading.Timer(0.02, held.driver.poll_done)
    reader.start()
    held.dma(2, ring_timeout_s=5.0)
    reader.join()
    assert held.driver.wait(2, 5.0).ok
    held.close()


@pytest.mark.parametrize("slots", [0, 3, -4, 1 << 20])
def test_slots_are_a_power_of_two(slots: int) -> None:
    with pytest.raises(ConfigError, match=f"slots {slots} "):
        Held(slots)


def test_set_param_and_poll_done_in_a_batch(held: Held) -> None:
    def change(tag: int, parameter: int, value: int) -> np.ndarray:
        return command(Opcode.SET_PARAM, tag=tag, param=parameter, value=value)

    run = command(Opcode.DMA_BATCH, tag=2, descriptors_line=2, count=1, **held.fields)
    poll, other = command(Opcode.POLL_DONE, tag=3), command(Opcode.POLL_DONE, tag=3, owner=4)
    held.driver.submit(np.concatenate([change(1, Parameter.PREFETCH_DEPTH, 9), run, poll, other]))
    assert held.driver.parameters.prefetch_depth == 9
    assert [(d.tag, d.opcode) for d in held.driver.poll_done()] == [(1, Opcode.SET_PARAM)]
    assert [d.tag for d in held.driver.poll_done(owner=4)] == [3]
    held.dma(4)
    held.device.run(4).end()
    assert held.driver.wait(4, 5.0).ok  # later than the poll, which still waits for 2
    assert held.driver.outstanding(0) == 2
    held.device.run(2).end()
    held.driver.drain(5.0)
    assert [(d.tag, d.opcode) for d in held.driver.poll_done()] == [
        (2, Opcode.DMA_BATCH),
        (3, Opcode.POLL_DONE),
    ]


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"opcode": 9}, CommandError, "opcode 9"),
        ({"opcode": 0}, CommandError, "opcode 0"),
        ({"move": 2}, CommandError, "move 2"),
        ({"flags": 4}, CommandError, "flags 0x4"),
        ({"source": 99}, DeviceBufferError, "source 99"),
        ({"target": 0}, DeviceBufferError, "target 0"),
        ({"codebooks": 99}, DeviceBufferError, "codebooks 99"),
        ({"results": 99}, DeviceBufferError, "results 99"),
        ({"count": 1025}, DeviceBufferError, "descriptors reach byte 65600 of a buffer of 65536"),
        ({"descriptors_line": 0xFFFFFFFF, "count": 1}, DeviceBufferError, "descriptors reach byte"),
        ({"results_line": 1024, "results": 4, "count": 1}, DeviceBufferError, "results reach"),
        ({"opcode": 3, "param": 77}, ConfigError, "parameter 77"),
        ({"opcode": 3, "param": 3, "value": 5}, ConfigError, r"runs_in_flight 5 .* 1\.\.4"),
        ({"opcode": 3, "param": 2, "value": 99}, ConfigError, "compression_scheme 99"),
        ({"opcode": 3, "param": 5, "value": 1 << 63}, ConfigError, "command_timeout_us"),
        ({"tag": 50}, CommandError, "command 50 of owner 0: another"),
    ],
)
def test_a_bad_command_takes_its_batch_with_it(
    held: Held, fields: dict[str, int], error: type, text: str
) -> None:
    good = command(Opcode.DMA_BATCH, tag=50, count=1, **held.fields)
    change = command(Opcode.SET_PARAM, tag=51, param=Parameter.PREFETCH_DEPTH, value=1)
    bad = command(Opcode.DMA_BATCH, tag=52, count=1, **held.fields)
    for name, value in fields.items():
        bad[name] = value
    before = held.driver.parameters
    with pytest.raises(error, match=text):
        held.driver.submit(np.concatenate([good, change, bad]))
    assert held.driver.parameters == before
    assert held.driver.outstanding() == 0
    assert held.driver.poll_done() == []
    assert held.device.runs == []


def test_arguments_that_are_no_command(held: Held) -> None:
    with pytest.raises(CommandError, match=r"not 1-D spec\.COMMAND"):
        held.driver.submit(np.zeros(2, spec.DESCRIPTOR))
    with pytest.raises(CommandError, match="count: 4294967296 is not within"):
        held.dma(1, count=1 << 32)
    with pytest.raises(CommandError, match="colour"):
        held.dma(1, colour=2)
    with pytest.raises(CommandError, match="99 is not registered"):
        held.driver.unregister(99)
    with pytest.raises(CommandError, match="12 of owner 0 is neither"):
        held.driver.wait(12)
    for timeout_s in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="timeout_s"):
            held.driver.poll_done(timeout_s)


def test_waiting_has_a_deadline_and_the_command_goes_on(held: Held) -> None:
    held.dma(1)
    with pytest.raises(DeviceTimeout, match=r"command 1 of owner 0 not done after 0\.01 s"):
        held.driver.wait(1, 0.01)
    with pytest.raises(DeviceTimeout, match=r"1 commands not done after 0\.01 s"):
        held.driver.drain(0.01)
    assert held.driver.poll_done(0.01) == []
    held.device.run(1).end()
    assert held.driver.wait(1, 5.0).ok


def test_an_unregistered_buffer_serves_the_commands_submitted_before(held: Held) -> None:
    held.driver.set_param(Parameter.RUNS_IN_FLIGHT, 1)
    for name in (1, 2):
        held.dma(name)
    held.driver.unregister(held.table)
    with pytest.raises(DeviceBufferError, match=f"descriptors {held.table}"):
        held.dma(3)
    for name in (1, 2):
        held.device.run(name).end()
    held.driver.drain(5.0)
    assert all(done.ok for done in held.driver.poll_done())


def test_a_closed_driver_says_so(held: Held) -> None:
    held.driver.close()
    for call in (
        lambda: held.dma(1),
        lambda: held.driver.register(held.device.buffers[0]),
        lambda: held.driver.set_param(Parameter.PREFETCH_DEPTH, 1),
    ):
        with pytest.raises(DeviceError, match="closed"):
            call()
    held.driver.close()


@pytest.mark.parametrize(
    ("status", "error"), [("BAD_CRC", RecordError), ("BUS_ERROR", DeviceError)]
)
def test_a_bus_error_is_the_device_s_fault_and_not_the_record_s(
    status: str, error: type[Exception]
) -> None:
    row = np.zeros(1, spec.COMMAND_COMPLETION)
    row["opcode"], row["status"] = Opcode.DMA_BATCH, CommandStatus.FAILED_BLOCKS
    row["blocks"], row["failed"], row["block_status"] = 4, 1, spec.Status[status]
    with pytest.raises(error, match=status.lower()):
        Completion(row[0], decoding=True).check()
