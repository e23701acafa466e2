"""speckv_control: commands in rings in memory, with a stand-in for the DMA engine."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from speckv_pynq import spec
from speckv_pynq.driver.commands import command
from speckv_pynq.spec import CommandStatus, Opcode, Parameter, Status
from tests.rtl.axi import SLVERR, Fault
from tests.rtl.bench import Coverage, report, rng, setting
from tests.rtl.host import BASE, Host, summary

INPUTS = ("value_i", "job_tready_i", "done_tdata_i", "done_tvalid_i")
BLOCK_FAILS = 0xBAD  # a descriptor's first_layer that makes the stand-in fail it
RECORD_BYTES = 64


@dataclass
class StandIn:
    """Takes jobs, waits `delay` cycles (for as long as `hold` is set) and tells their end from their table."""

    dut: Any
    host: Host
    delay: int = 50
    hold: bool = False
    jobs: list[np.void] = field(default_factory=list)
    left: int = 0
    current: np.void | None = None
    cancelled: bool = False

    def drive(self, chance: random.Random) -> None:
        self.dut.job_tready_i.value = self.current is None
        done = self.current is not None and self.left <= 0 and not self.hold
        self.dut.done_tvalid_i.value = done
        if done and self.current is not None:
            self.dut.done_tdata_i.value = int.from_bytes(self.end(self.current), "little")

    def settle(self) -> None:
        self.left -= 1
        if self.current is None and self.dut.job_tvalid_o.value:
            raw = int(self.dut.job_tdata_o.value).to_bytes(spec.DMA_JOB.itemsize, "little")
            self.current = np.frombuffer(raw, spec.DMA_JOB)[0]
            self.jobs.append(self.current)
            self.left, self.cancelled = self.delay, False
        elif self.dut.done_tvalid_i.value and self.dut.done_tready_o.value:
            self.current = None
        self.cancelled |= bool(self.dut.cancel_o.value)

    def advance(self) -> None:
        pass

    def end(self, job: np.void) -> bytes:
        at = int(job["table_address"]) - BASE
        table = np.frombuffer(self.host.bytes, spec.DESCRIPTOR, int(job["count"]), at)
        failed = np.flatnonzero(table["first_layer"] == BLOCK_FAILS)
        done = np.zeros(1, spec.DMA_DONE)
        done["tag"], done["blocks"], done["failed"] = job["tag"], len(table), len(failed)
        done["bytes"] = RECORD_BYTES * (len(table) - len(failed))
        if len(failed):
            done["status"] = CommandStatus.FAILED_BLOCKS
            done["first_failed"], done["block_status"] = failed[0], Status.BAD_CRC
            done["value"], done["limit"] = table["first_position"][failed[0]], 77
        return done.tobytes()


@dataclass
class Bench:
    host: Host
    dma: StandIn
    source: int
    target: int
    table: int
    results: int
    seen: Coverage = field(default_factory=Coverage)

    def move(self, opcode: Opcode, tag: int, **fields: int) -> np.ndarray:
        fields = {
            "source": self.source,
            "target": self.target,
            "descriptors": self.table,
            "count": 1,
        } | fields
        return command(opcode, tag=tag, **fields)

    async def ends(self, *expected: tuple[int, CommandStatus]) -> list[np.void]:
        """The next completions are these tags with these statuses, in this order."""
        got = await self.host.completions(len(expected))
        await self.host.wait(30)  # counters and interrupts follow the write
        assert [(int(c["tag"]), CommandStatus(int(c["status"]))) for c in got] == list(expected)
        return got


async def start(dut: Any, *, slots_log2: int = 4, descriptors: int = 64) -> Bench:
    host = Host(
        dut, rng(), size=1 << 15, slots_log2=slots_log2, stall=setting("stall", 0.0), latency=setting("latency", 4)
    )  # fmt: skip
    for name in INPUTS:
        getattr(dut, name).value = 0
    dma = StandIn(dut, host)
    host.ends.append(dma)
    table = np.zeros(descriptors, spec.DESCRIPTOR)
    table["first_position"] = np.arange(descriptors)
    buffers = [host.register(bytes(n)) for n in (256, 256)]
    buffers += [host.register(table.tobytes()), host.register(bytes(16 * descriptors))]
    await host.start()
    return Bench(host, dma, *buffers)


@cocotb.test()
async def a_batch_becomes_a_job(dut: Any) -> None:
    bench = await start(dut)
    host = bench.host
    await host.registers.write("interrupt_status", 0b111)
    for move, tag in ((spec.Move.COMPRESS, 5), (spec.Move.DECOMPRESS, (1 << 64) - 1)):
        await host.submit(
            bench.move(
                Opcode.DMA_BATCH, tag, move=move, count=9, descriptors_line=3, results=bench.results, results_line=2
            )
        )  # fmt: skip
        (done,) = await bench.ends((tag, CommandStatus.OK))
        assert done["blocks"] == 9
        assert done["bytes"] == 9 * RECORD_BYTES
        assert 0 < done["duration_ns"] < 4 * 5000
        job = bench.dma.jobs[-1]
        of = {number: BASE + offset for number, (offset, _) in host.places.items()}
        blocks, records = (bench.source, bench.target)[:: 1 if move == spec.Move.COMPRESS else -1]
        assert job["tag"] == tag
        assert job["move"] == move
        assert job["count"] == 9
        assert job["table_address"] == of[bench.table] + 3 * 64
        assert job["results_address"] == of[bench.results] + 2 * 64
        assert (job["records"], job["records_bytes"]) == (of[records], 256)
        assert (job["blocks"], job["blocks_bytes"]) == (of[blocks], 256)
    assert dut.irq_o.value, "a completion interrupts"
    await host.registers.write("interrupt_status", 0b001)
    await bench.host.wait(2)
    assert not dut.irq_o.value
    assert await host.registers.read("count_commands") == 2
    assert await host.registers.read("count_blocks") == 18
    assert await host.registers.read("status") & 1, "idle"


@cocotb.test()
async def batches_run_in_order_and_before_prefetches(dut: Any) -> None:
    bench = await start(dut)
    commands = [
        bench.move(Opcode.PREFETCH, 1),
        bench.move(Opcode.DMA_BATCH, 2),
        bench.move(Opcode.PREFETCH, 3),
    ]
    commands += [bench.move(Opcode.DMA_BATCH, 4)]
    await bench.host.submit(np.concatenate(commands))
    await bench.ends(*((tag, CommandStatus.OK) for tag in (2, 4, 1, 3)))


@cocotb.test()
async def a_batch_runs_between_slices_of_a_prefetch(dut: Any) -> None:
    bench = await start(dut)
    table = np.frombuffer(bench.host.view(bench.table), spec.DESCRIPTOR).copy()
    table["first_layer"][[6, 9]] = BLOCK_FAILS
    bench.host.view(bench.table)[:] = table.view(np.uint8)
    await bench.host.submit(
        np.concatenate(
            [
                command(Opcode.SET_PARAM, tag=1, param=Parameter.PREFETCH_SLICE, value=4),
                bench.move(Opcode.PREFETCH, 2, count=11, results=bench.results),
            ]
        )
    )
    await bench.ends((1, CommandStatus.OK))
    while not bench.dma.jobs:
        await FallingEdge(dut.clk_i)
    await bench.host.submit(bench.move(Opcode.DMA_BATCH, 3, count=2))
    _, done = await bench.ends((3, CommandStatus.OK), (2, CommandStatus.FAILED_BLOCKS))
    jobs = bench.dma.jobs
    assert [int(job["tag"]) for job in jobs] == [2, 3, 2, 2]
    assert [int(job["count"]) for job in jobs] == [4, 2, 4, 3]
    results = [int(job["results_address"]) for job in jobs if job["tag"] == 2]
    assert [at - results[0] for at in results] == [0, 64, 128]
    assert (done["blocks"], done["failed"], done["first_failed"]) == (11, 2, 6)
    assert (done["block_status"], done["value"], done["limit"]) == (Status.BAD_CRC, 6, 77)
    assert done["bytes"] == 9 * RECORD_BYTES


@cocotb.test()
async def newer_prefetches_supersede(dut: Any) -> None:
    bench = await start(dut)
    set_depth = command(Opcode.SET_PARAM, tag=1, param=Parameter.PREFETCH_DEPTH, value=2)
    prefetches = [bench.move(Opcode.PREFETCH, tag, owner=tag % 2) for tag in range(10, 18)]
    await bench.host.submit(np.concatenate([set_depth, *prefetches]))
    superseded = [(tag, CommandStatus.SUPERSEDED) for tag in range(10, 14)]
    await bench.ends(
        (1, CommandStatus.OK), *superseded, *((t, CommandStatus.OK) for t in range(14, 18))
    )
    await bench.host.submit(
        np.concatenate(
            [command(Opcode.SET_PARAM, tag=2, param=1, value=0), bench.move(Opcode.PREFETCH, 3)]
        )
    )
    await bench.ends((2, CommandStatus.OK), (3, CommandStatus.SUPERSEDED))
    assert await bench.host.registers.read("count_superseded") == 5


@cocotb.test()
async def polls_wait_for_what_is_older_of_their_owner(dut: Any) -> None:
    bench = await start(dut)
    ok = CommandStatus.OK
    commands = [
        command(Opcode.POLL_DONE, tag=1, owner=1),  # nothing is older
        bench.move(Opcode.PREFETCH, 2, owner=1),
        bench.move(Opcode.DMA_BATCH, 3, owner=1),
        command(Opcode.POLL_DONE, tag=4, owner=1),
        command(Opcode.POLL_DONE, tag=5, owner=1),
        bench.move(Opcode.DMA_BATCH, 6, owner=2),
        command(Opcode.POLL_DONE, tag=7, owner=2),
        bench.move(Opcode.PREFETCH, 8, owner=1),
    ]
    await bench.host.submit(np.concatenate(commands))
    await bench.ends(*((tag, ok) for tag in (1, 3, 6, 7, 2, 4, 5, 8)))


@cocotb.test()
async def parameters(dut: Any) -> None:
    bench = await start(dut)
    host = bench.host
    good = [(1, 256), (2, 4), (3, 4), (4, 65536), (5, 600_000_000), (1, 7), (2, 1)]
    bad = [
        (1, 257, 256),
        (2, 5, 4),
        (3, 0, 1),
        (3, 5, 4),
        (4, 0, 1),
        (4, 65537, 65536),
        (5, 0, 1),
        (1, 1 << 32, 256),
    ]
    for tag, (param, value) in enumerate(good):
        await host.submit(command(Opcode.SET_PARAM, tag=tag, param=param, value=value))
        await bench.ends((tag, CommandStatus.OK))
    for tag, (param, value, limit) in enumerate(bad):
        await host.submit(command(Opcode.SET_PARAM, tag=tag, param=param, value=value))
        (done,) = await bench.ends((tag, CommandStatus.DEVICE_ERROR))
        assert (done["value"], done["limit"]) == (value & 0xFFFFFFFF, limit)
    fields = spec.REGISTERS["parameters"].fields
    shown = await host.registers.read("parameters")
    assert {n: shown >> f.low & (1 << f.bits) - 1 for n, f in fields.items()} == {
        "prefetch_depth": 7, "compression_scheme": 1, "runs_in_flight": 4,
    }  # fmt: skip
    assert await host.registers.read("prefetch_slice") == 65536
    assert await host.registers.read("command_timeout_us") == 600_000_000
    await host.submit(bench.move(Opcode.DMA_BATCH, 1, flags=spec.CommandFlag.DEFAULT_SCHEME))
    await bench.ends((1, CommandStatus.OK))
    assert (bench.dma.jobs[-1]["flags"], bench.dma.jobs[-1]["scheme"]) == (1, 1)


@cocotb.test()
async def what_is_no_command_is_refused(dut: Any) -> None:
    bench = await start(dut)
    bad = [{"opcode": 0}, {"opcode": 5}, {"move": 9}, {"flags": 2}, {"count": spec.MAX_BATCH + 1}]
    bad += [{"opcode": Opcode.SET_PARAM, "param": 0}, {"opcode": Opcode.SET_PARAM, "param": 6}]
    for tag, fields in enumerate(bad):
        row = bench.move(Opcode.DMA_BATCH, tag)
        for name, value in fields.items():
            row[name] = value
        await bench.host.submit(row)
        await bench.ends((tag, CommandStatus.DEVICE_ERROR))
    await bench.host.submit(bench.move(Opcode.DMA_BATCH, 99, count=0))
    (done,) = await bench.ends((99, CommandStatus.OK))
    assert summary(done)["blocks"] == 0
    assert not bench.dma.jobs


@cocotb.test()
async def bad_buffers(dut: Any) -> None:
    bench = await start(dut)
    host, bad = bench.host, CommandStatus.BAD_BUFFER
    freed, crooked = host.register(bytes(64)), host.register(bytes(128))
    host.enter(freed, size=0)
    host.enter(crooked, shift=8)
    cases: list[dict[str, int]] = [{name: 0} for name in ("source", "target", "descriptors")]
    cases += [{name: 15} for name in ("source", "target", "descriptors", "results", "codebooks")]
    cases += [{name: 16} for name in ("source", "results")] + [{"target": 0xFFFFFFFF}]
    cases += [{name: freed} for name in ("source", "target", "codebooks")] + [{"source": crooked}]
    cases += [{"count": 65}, {"descriptors_line": 64}, {"descriptors_line": 0xFFFFFFFF}]
    cases += [
        {"results": bench.results, "results_line": 16},
        {"results": bench.table, "results_line": 1 << 26},
    ]
    for tag, fields in enumerate(cases):
        await host.submit(
            bench.move(Opcode.DMA_BATCH if tag % 3 else Opcode.PREFETCH, tag, **fields)
        )
        await bench.ends((tag, bad))
    assert not bench.dma.jobs
    fine = [
        {"count": 64},
        {"descriptors_line": 63},
        {"results": bench.results, "results_line": 15, "count": 4},
    ]
    fine += [{"codebooks": bench.source}]
    for tag, fields in enumerate(fine):
        await host.submit(bench.move(Opcode.DMA_BATCH, tag, **fields))
        await bench.ends((tag, CommandStatus.OK))
    host.memories[0].faults.append(
        Fault(BASE + host.table, BASE + host.table + 256, SLVERR, writes=False)
    )
    await host.submit(bench.move(Opcode.DMA_BATCH, 1))
    await bench.ends((1, CommandStatus.DEVICE_ERROR))


@cocotb.test()
async def a_late_run_fences_its_target(dut: Any) -> None:
    bench = await start(dut)
    host, dma, late = bench.host, bench.dma, CommandStatus.DEVICE_TIMEOUT
    await host.registers.write("interrupt_status", 0b111)
    other = host.register(bytes(256))
    dma.hold = True
    await host.submit(bench.move(Opcode.DMA_BATCH, 1, timeout_us=2))
    (done,) = await bench.ends((1, late))
    assert 2000 <= done["duration_ns"] < 4000
    assert await host.registers.read("status") >> 1 & 1, "late"
    assert await host.registers.read("interrupt_status") == 0b011
    for tag, fields in enumerate(
        ({}, {"source": bench.target, "target": other}, {"results": bench.target}), 2
    ):
        await host.submit(bench.move(Opcode.DMA_BATCH, tag, **fields))
        await bench.ends((tag, CommandStatus.FENCED))
    await host.submit(bench.move(Opcode.PREFETCH, 5))
    await bench.ends((5, CommandStatus.FENCED))
    # The engine has one table at a time: others wait for it, each until its own deadline.
    set_time = command(Opcode.SET_PARAM, tag=6, param=Parameter.COMMAND_TIMEOUT_US, value=3)
    await host.submit(np.concatenate([set_time, bench.move(Opcode.DMA_BATCH, 7, target=other)]))
    await bench.ends((6, CommandStatus.OK), (7, late))
    await host.submit(bench.move(Opcode.DMA_BATCH, 8, target=other, timeout_us=1000))
    await host.quiet(100)
    assert dma.cancelled, "what runs late begins no more descriptors"
    dma.hold = False
    await bench.ends((8, CommandStatus.OK))
    await host.submit(bench.move(Opcode.DMA_BATCH, 9))
    await bench.ends((9, CommandStatus.OK))
    assert [int(job["tag"]) for job in dma.jobs] == [1, 8, 9]
    assert await host.registers.read("count_timeouts") == 2


@cocotb.test()
async def a_full_completion_ring_stalls(dut: Any) -> None:
    bench = await start(dut, slots_log2=2)
    host = bench.host
    for first in (0, 3, 6):
        rows = [command(Opcode.POLL_DONE, tag=tag, owner=tag) for tag in range(first, first + 3)]
        await host.submit(np.concatenate(rows))
    await bench.host.wait(1500)
    assert host.ready() == 4, "as many as there are slots"
    assert await host.registers.read("status") >> 2 & 1, "completion_full"
    tags = [int(c["tag"]) for c in await host.completions(4)]
    while len(tags) < 9:
        tags += [int(c["tag"]) for c in await host.completions(1)]
    assert tags == list(range(9))
    assert await host.registers.read("count_stall_cycles") > 500


@cocotb.test()
async def cancelling_an_owner(dut: Any) -> None:
    bench = await start(dut)
    host, dma = bench.host, bench.dma
    dma.hold = True
    rows = [command(Opcode.SET_PARAM, tag=0, param=Parameter.PREFETCH_SLICE, value=4)]
    rows += [bench.move(Opcode.PREFETCH, 1, owner=7, count=8)]
    await host.submit(np.concatenate(rows))
    await bench.ends((0, CommandStatus.OK))
    while not dma.jobs:
        await FallingEdge(dut.clk_i)
    rows = [bench.move(Opcode.PREFETCH, 2, owner=7), bench.move(Opcode.PREFETCH, 3, owner=8)]
    rows += [command(Opcode.POLL_DONE, tag=4, owner=7)]
    await host.submit(np.concatenate(rows))
    await bench.host.wait(400)
    await host.registers.write("cancel_owner", 7)
    await bench.ends((2, CommandStatus.CANCELLED), (4, CommandStatus.CANCELLED))
    dma.hold = False
    done, _ = await bench.ends((1, CommandStatus.CANCELLED), (3, CommandStatus.OK))
    assert done["blocks"] == 4, "it ends after its slice"


@cocotb.test()
async def closing_and_opening_again(dut: Any) -> None:
    bench = await start(dut)
    host = bench.host
    bench.dma.delay = 600
    rows = [bench.move(Opcode.DMA_BATCH, tag) for tag in (1, 2)] + [bench.move(Opcode.PREFETCH, 3)]
    await host.submit(np.concatenate(rows))
    await bench.host.wait(500)
    await host.registers.write("control", 0)
    closed = CommandStatus.CLOSED
    await bench.ends((2, closed), (3, closed), (1, CommandStatus.OK))
    await bench.host.wait(10)
    assert await host.registers.read("status") & 1
    assert (
        await host.registers.read("command_head")
        == await host.registers.read("completion_tail")
        == 0
    )
    host.head = host.tail = 0
    host.bytes[: 2 * host.slots * 64] = bytes(2 * host.slots * 64)
    for name in ("command_tail", "completion_head"):
        await host.registers.write(name, 0)
    await host.registers.write("control", 1)
    await host.submit(bench.move(Opcode.DMA_BATCH, 1))
    await bench.ends((1, CommandStatus.OK))


@cocotb.test()
async def a_ring_that_cannot_be_read_halts(dut: Any) -> None:
    bench = await start(dut)
    host = bench.host
    fault = Fault(BASE + host.ring, BASE + host.ring + 64, SLVERR)
    host.memories[0].faults.append(fault)
    await host.submit(bench.move(Opcode.DMA_BATCH, 1))
    await host.quiet(300)
    assert await host.registers.read("status") >> 3 & 1
    assert await host.registers.read("interrupt_status") >> 2 & 1
    assert await host.registers.read("command_head") == 0


@cocotb.test()
async def many_random_commands_all_end_once(dut: Any) -> None:
    bench = await start(dut)
    host, chance = bench.host, rng()
    seen = Coverage(
        status=[
            s.name for s in (CommandStatus.OK, CommandStatus.BAD_BUFFER, CommandStatus.SUPERSEDED)
        ]
    )
    bench.dma.delay, wanted, done = 30, [], []
    for first in range(0, setting("commands", 120), 4):
        rows = []
        for tag in range(first, first + 4):
            kind, owner = chance.choice(list(Opcode)), chance.randrange(3)
            if kind in (Opcode.SET_PARAM, Opcode.POLL_DONE):
                value = chance.randrange(4)
                rows.append(command(kind, tag=tag, owner=owner, param=1, value=value))
            else:
                source = chance.choice([bench.source, bench.source, bench.source, 9])
                rows.append(
                    bench.move(kind, tag, owner=owner, source=source, count=chance.randrange(6))
                )
            wanted.append(tag)
        await host.submit(np.concatenate(rows))
        if host.ready():
            done += await host.completions(host.ready())
    for _ in range(200):
        if len(done) >= len(wanted):
            break
        done += await host.completions(max(1, host.ready()))
    for completion in done:
        seen.hit("status", CommandStatus(int(completion["status"])).name)
    assert sorted(int(c["tag"]) for c in done) == wanted
    await host.quiet(500)
    assert await host.registers.read("status") & 1
    seen.finish()
    report(commands=len(wanted))
