"""dma_engine with a codec made of the reference: memory, completions and the run's record after each job."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo
from speckv_pynq.spec import CommandStatus, Kind, Move, Scheme, Status
from tests.hls.kernels import descriptor
from tests.records import flipped
from tests.rtl.axi import DECERR, SLVERR, Fault, busy
from tests.rtl.beats import LINE
from tests.rtl.bench import Coverage, report, setting
from tests.rtl.dma import Bench, apply, check_done, code
from tests.rtl.dma_tables import (
    BASE,
    SCHEMES,
    compress_table,
    copy_table,
    decompress_table,
    draw_block,
    expect,
    place_record,
    start,
    windows,
)


@cocotb.test()
async def moves(dut: Any) -> None:
    """Every move, random blocks and places, under the setting's latency and stalls; runs follow each other."""
    bench = await start(
        dut,
        latency=setting("latency", 1),
        stall=setting("stall", 0.0),
        reorder=setting("reorder", False),
    )
    coverage = Coverage(
        move=list(Move),
        scheme=SCHEMES,
        kinds=(Kind.KEY, Kind.VALUE, Kind.BOTH),
        results=(0, 1, 2, 3, "none"),
        burst=("boundary", 64, 1),
        capacity=("exact", "slot"),
    )
    for count in setting("counts", [1, 6, 7, 12]):
        table = compress_table(bench, count, BASE)
        job = bench.job(Move.COMPRESS, table, **windows(bench))
        verdicts = await expect(bench, job)
        sizes = [verdict[2] for verdict in verdicts]
        back = decompress_table(bench, table, sizes, BASE)
        for row, size in zip(back, sizes, strict=True):
            coverage.hit("scheme", Scheme(row["scheme"]))
            coverage.hit("kinds", Kind(row["kinds"]))
            coverage.hit("capacity", "exact" if row["record_capacity"] == size else "slot")
        await expect(bench, bench.job(Move.DECOMPRESS, back, **windows(bench)))
        copies = copy_table(bench, count, BASE)
        await expect(bench, bench.job(Move.COPY, copies, **windows(bench) | {"results_address": 0}))
        coverage.hit("results", count % 4)
    coverage.hit("results", "none")
    for move in Move:
        coverage.hit("move", move)
    await expect(bench, bench.job(Move.COPY, table[:0], **windows(bench)))
    coverage.hit("results", 0)
    for burst in bench.memory.reads + bench.memory.writes:
        if burst.beats in (1, 64):
            coverage.hit("burst", burst.beats)
        if (burst.address + burst.beats * LINE) % 4096 == 0 and burst.beats < 64:
            coverage.hit("burst", "boundary")
    coverage.finish()


@cocotb.test()
async def default_scheme(dut: Any) -> None:
    """The job's scheme replaces those of the table when its flag says so, and only in compression."""
    bench = await start(dut)
    table = compress_table(bench, 6, BASE)
    flags = {"flags": int(spec.CommandFlag.DEFAULT_SCHEME), "scheme": int(Scheme.INT4)}
    verdicts = await expect(bench, bench.job(Move.COMPRESS, table, **windows(bench), **flags))
    made = bench.get(BASE + int(table["record_offset"][0]), LINE)
    assert np.frombuffer(made, spec.RECORD_HEADER)[0]["scheme"] == Scheme.INT4
    back = decompress_table(bench, table, [verdict[2] for verdict in verdicts], BASE)
    flags["scheme"] = 99
    await expect(bench, bench.job(Move.DECOMPRESS, back, **windows(bench), **flags))


@cocotb.test()
async def bad_descriptors(dut: Any) -> None:
    """Each fault of a descriptor is its own completion; those around it run, and nothing outside is touched."""
    bench = await start(dut, stall=0.1, latency=5)
    info = BlockInfo(16, 2, 64)
    slot = info.block_bytes + spec.MIN_SLOT_BYTES
    window = {
        "records": bench.place(slot),
        "records_bytes": slot,
        "blocks": bench.place(info.block_bytes),
        "blocks_bytes": info.block_bytes,
    }
    bench.put(window["blocks"], draw_block(bench.chance, info))
    for move, faults in ((Move.COMPRESS, "compress"), (Move.DECOMPRESS, "decompress")):
        rows, refused = [descriptor(info, Scheme.INT4)], {}
        for fields, *verdict in setting(faults, []):
            refused[len(rows)] = (verdict[0], 0, 0, verdict[1], verdict[2])
            rows += [
                descriptor(info, **{"scheme": Scheme.INT4} | fields),
                descriptor(info, Scheme.INT4),
            ]
        job = bench.job(move, np.concatenate(rows), **window)
        await expect(bench, job, refused)


@cocotb.test()
async def bad_copies(dut: Any) -> None:
    bench = await start(dut, stall=0.1)
    window = {"records_bytes": 4096, "blocks_bytes": 8192}
    window |= {"records": bench.place(4096), "blocks": bench.place(8192)}
    faults = [
        ({"record_offset": 8}, Status.MISALIGNED, 8, LINE),
        ({"key_offset": 1}, Status.MISALIGNED, 1, LINE),
        ({"record_capacity": 65}, Status.MISALIGNED, 65, LINE),
        ({"record_capacity": 0}, Status.RECORD_TOO_SMALL, 0, LINE),
        ({"record_offset": 4096}, Status.OUT_OF_RANGE, 4096, 2048),
        ({"record_capacity": 8192}, Status.OUT_OF_RANGE, 0, 0),
        ({"key_offset": 8192 - 1024}, Status.OUT_OF_RANGE, 7168, 6144),
        ({"key_offset": (1 << 64) - 64}, Status.OUT_OF_RANGE, (1 << 32) - 64, 6144),
    ]
    table = np.zeros(2 * len(faults) + 1, spec.DESCRIPTOR)
    table["record_capacity"] = 2048
    refused = {}
    for i, (fields, *verdict) in enumerate(faults):
        for name, value in fields.items():
            table[name][2 * i + 1] = value
        refused[2 * i + 1] = (int(verdict[0]), 0, 0, verdict[1], verdict[2])
    await expect(bench, bench.job(Move.COPY, table, **window), refused)


@cocotb.test()
async def damaged_records(dut: Any) -> None:
    """A record that its decoder refuses leaves its block's place as it was, and no other."""
    bench = await start(dut, latency=3, stall=0.2)
    table = compress_table(bench, 12, BASE)
    verdicts = await expect(bench, bench.job(Move.COMPRESS, table, **windows(bench)))
    for i in (0, 3, 4, 11):
        at, size = BASE + int(table["record_offset"][i]), verdicts[i][2]
        payload_bits = 8 * (size - 2 * LINE)
        bit = bench.chance.randrange(payload_bits)
        bench.put(at, flipped(bench.get(at, size), bit))
    back = decompress_table(bench, table, [verdict[2] for verdict in verdicts], BASE)
    verdicts = await expect(bench, bench.job(Move.DECOMPRESS, back, **windows(bench)))
    assert [i for i, verdict in enumerate(verdicts) if verdict[0]] == [0, 3, 4, 11]


@cocotb.test()
async def bus_errors(dut: Any) -> None:
    """Memory that answers with an error fails the descriptor that it answers to, in reads and in writes."""
    bench = await start(dut, latency=7, stall=0.1, reorder=True)
    info = BlockInfo(16, 2, 64)
    made = compress_table(bench, 10, BASE, [info] * 10)
    sizes = [v[2] for v in await expect(bench, bench.job(Move.COMPRESS, made, **windows(bench)))]
    back = decompress_table(bench, made, sizes, BASE)
    for move, table in ((Move.COMPRESS, made), (Move.DECOMPRESS, back)):
        job = bench.job(move, table, **windows(bench))
        record = [BASE + int(at) for at in table["record_offset"]]
        value = [BASE + int(at) for at in table["value_offset"]]
        source, target = (value, record) if move == Move.COMPRESS else (record, value)
        rows = int(job["table_address"][0])
        bench.memory.faults = [
            Fault(source[1], source[1] + 1, SLVERR, writes=False),
            Fault(target[2] + LINE, target[2] + LINE + 1, DECERR, reads=False),
            Fault(rows + 5 * LINE, rows + 5 * LINE + 1, DECERR, writes=False),
            Fault(source[9] + 2 * LINE, source[9] + 2 * LINE + 1, DECERR, writes=False),
        ]
        bad = {1: SLVERR, 2: DECERR, 5: DECERR, 9: DECERR}
        refused = {i: (int(Status.BUS_ERROR), 0, 0, code, 0) for i, code in bad.items()}
        want, verdicts = apply(bench, job, refused)
        done = await bench.run(job)
        bench.memory.faults = []
        check_done(done, job, verdicts, CommandStatus.FAILED_BLOCKS)
        # Where its write failed, what was written around the bad line is nobody's.
        touched = (
            [record[2]] if move == Move.COMPRESS else [BASE + int(table["key_offset"][2]), value[2]]
        )
        for at in touched:
            nbytes = (
                int(made["record_capacity"][2]) if move == Move.COMPRESS else info.block_bytes // 2
            )
            want[at - BASE : at - BASE + nbytes] = bench.get(at, nbytes)
        assert bench.memory.data == want


@cocotb.test()
async def bus_errors_of_copies(dut: Any) -> None:
    """A copy stops writing where its source fails; a failing target fails the copy."""
    bench = await start(dut, latency=4)
    table = np.zeros(3, spec.DESCRIPTOR)
    for i in range(3):
        place_record(bench, table[i : i + 1], 100 * LINE, BASE)
        table["key_offset"][i] = bench.place(100 * LINE) - BASE
    job = bench.job(Move.COPY, table, **windows(bench))
    source, target = BASE + int(table["record_offset"][0]), BASE + int(table["key_offset"][1])
    bench.memory.faults = [
        Fault(source + 40 * LINE, source + 41 * LINE, SLVERR, writes=False),
        Fault(target + 99 * LINE, target + 100 * LINE, DECERR, reads=False),
    ]
    refused = {i: (int(Status.BUS_ERROR), 0, 0, c, 0) for i, c in ((0, SLVERR), (1, DECERR))}
    want, verdicts = apply(bench, job, refused)
    for i, lines in ((0, 40), (1, 99)):
        copied = bench.get(BASE + int(table["record_offset"][i]), lines * LINE)
        at = int(table["key_offset"][i])
        want[at : at + len(copied)] = copied
    check_done(await bench.run(job), job, verdicts, CommandStatus.FAILED_BLOCKS)
    assert bench.memory.data == want


@cocotb.test()
async def completions_that_cannot_be_written(dut: Any) -> None:
    """The run says so; the next one is not touched by it."""
    bench = await start(dut)
    job = bench.job(Move.COPY, copy_table(bench, 5, BASE), **windows(bench))
    results = int(job["results_address"][0])
    bench.memory.faults = [Fault(results, results + 1)]
    want, verdicts = apply(bench, job, {})
    want[results - BASE : results - BASE + LINE] = bench.get(results, LINE)
    check_done(await bench.run(job), job, verdicts, CommandStatus.DEVICE_ERROR)
    assert bench.memory.data == want
    bench.memory.faults = []
    await expect(bench, bench.job(Move.COPY, copy_table(bench, 2, BASE), **windows(bench)))


class Cancel:
    """Raises cancel_i for a cycle once `count` descriptors have their writes asked for."""

    def __init__(self, bench: Bench, writes: int) -> None:
        self.bench, self.writes, self.raised = bench, writes, 0

    def drive(self, chance: random.Random) -> None:
        due = len(self.bench.memory.writes) >= self.writes
        self.raised += due and self.raised < 2
        self.bench.dut.cancel_i.value = self.raised == 1

    def settle(self) -> None:
        pass

    def advance(self) -> None:
        pass


@cocotb.test()
async def cancelled(dut: Any) -> None:
    """What has begun ends as ever, the rest of the table is not touched, and the next run starts afresh."""
    for move in Move:
        bench = await start(dut, latency=10)
        if move == Move.COPY:
            table = copy_table(bench, 60, BASE, 60)
        else:
            table = compress_table(bench, 60, BASE, [BlockInfo(16, 1, 64)] * 60)
        if move == Move.DECOMPRESS:
            sizes = [
                v[2] for v in await expect(bench, bench.job(Move.COMPRESS, table, **windows(bench)))
            ]
            table = decompress_table(bench, table, sizes, BASE)
        job = bench.job(move, table, **windows(bench))
        before = bytearray(bench.memory.data)
        bench.ends.append(Cancel(bench, len(bench.memory.writes) + 5))
        done = await bench.run(job)
        after, bench.memory.data = bench.memory.data, before
        ran = int(done["blocks"])
        assert 0 < ran < 50, f"{ran} of 60 descriptors ran"
        want, verdicts = apply(bench, job, {}, upto=ran)
        assert after == want
        check_done(done, job, verdicts, CommandStatus.CANCELLED)
        bench.memory.data = after
        await expect(bench, bench.job(Move.COPY, copy_table(bench, 3, BASE), **windows(bench)))


@cocotb.test()
async def throughput(dut: Any) -> None:
    """Beats a cycle of long transfers on an ideal memory that is `latency` cycles away; one block's latency."""
    figures = {}
    info = BlockInfo(*setting("shape", [32, 4, 128]))  # 64 KiB
    for move in (Move.COPY, Move.COMPRESS, Move.DECOMPRESS):
        bench = await start(dut, 1 << 22, latency=setting("latency", 40))
        count = setting("count", 4)
        if move == Move.COPY:
            table = np.zeros(count, spec.DESCRIPTOR)
            for i in range(count):
                place_record(bench, table[i : i + 1], info.block_bytes, BASE)
                table["key_offset"][i] = bench.place(info.block_bytes) - BASE
        else:
            table = compress_table(bench, count, BASE, [info] * count)
            table["scheme"] = Scheme.RAW
        if move == Move.DECOMPRESS:
            for row in table:
                half = info.block_bytes // 2
                block = [bench.get(BASE + int(row[f"{n}_offset"]), half) for n in ("key", "value")]
                record, _ = code(True, row.tobytes(), b"".join(block))
                bench.put(BASE + int(row["record_offset"]), record)
            table = decompress_table(bench, table, [len(record)] * count, BASE)
        job = bench.job(move, table, **windows(bench))
        memory = bench.memory
        await expect(bench, job)
        figures[f"{move.name.lower()}_read_busy"] = busy(memory.read_cycles)
        figures[f"{move.name.lower()}_write_busy"] = busy(memory.write_cycles)
        figures[f"{move.name.lower()}_latency_cycles"] = memory.write_cycles[0]
    report(**figures)
