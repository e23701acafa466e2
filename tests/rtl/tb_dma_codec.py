"""dma_engine with both codecs: what tables of blocks and records leave in memory is the reference's."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np

from speckv_pynq.reference import BlockInfo
from speckv_pynq.spec import Kind, Move, Scheme, Status
from tests.blocks import REAL_BLOCKS
from tests.records import flipped
from tests.rtl.axi import DECERR, Fault, busy
from tests.rtl.beats import LINE
from tests.rtl.bench import report, setting
from tests.rtl.dma import Bench, apply, check_done, code
from tests.rtl.dma_tables import (
    BASE,
    compress_table,
    copy_table,
    decompress_table,
    expect,
    start,
    windows,
)


def put_real_blocks(bench: Bench, table: np.ndarray) -> None:
    """Blocks of a real cache in place of the random ones; table: of their shape."""
    with np.load(REAL_BLOCKS) as blocks:
        for i, row in enumerate(table):
            for name in ("key", "value"):
                data = blocks[name][i % len(blocks[name])].tobytes()
                bench.put(BASE + int(row[f"{name}_offset"]), data)


def real_info() -> BlockInfo:
    with np.load(REAL_BLOCKS) as blocks:
        return BlockInfo(*blocks["key"].shape[1:])


@cocotb.test()
async def there_and_back(dut: Any) -> None:
    """Random and real blocks of every scheme to records and back, some of them damaged on the way."""
    memory = {name: setting(name, 0) for name in ("latency", "stall", "reorder")}
    bench = await start(dut, stand_in=False, **memory)
    real = compress_table(bench, 6, BASE, [real_info()] * 6)
    put_real_blocks(bench, real)
    table = np.concatenate([compress_table(bench, setting("count", 20), BASE), real])
    for i in range(len(table)):
        table["scheme"][i] = setting("schemes", [0, 1, 2])[i % len(setting("schemes", [0, 1, 2]))]
    made = await expect(bench, bench.job(Move.COMPRESS, table, **windows(bench)))
    back = decompress_table(bench, table, [verdict[2] for verdict in made], BASE)
    await expect(bench, bench.job(Move.DECOMPRESS, back, **windows(bench)))
    await expect(bench, bench.job(Move.COPY, copy_table(bench, 5, BASE), **windows(bench)))
    damaged = [0, 3, 4, len(table) - 1]
    for i in damaged:
        at, size = BASE + int(table["record_offset"][i]), made[i][2]
        bit = bench.chance.randrange(8 * (size - 2 * LINE))
        bench.put(at, flipped(bench.get(at, size), bit))
    verdicts = await expect(bench, bench.job(Move.DECOMPRESS, back, **windows(bench)))
    assert [i for i, verdict in enumerate(verdicts) if verdict[0]] == damaged


@cocotb.test()
async def bus_errors(dut: Any) -> None:
    """A source that cannot be read fails its own descriptor, whatever the codec makes of its beats."""
    bench = await start(dut, stand_in=False, latency=9)
    made = compress_table(bench, 6, BASE, [BlockInfo(16, 2, 64)] * 6)
    made["scheme"] = Scheme.INT4
    sizes = [v[2] for v in await expect(bench, bench.job(Move.COMPRESS, made, **windows(bench)))]
    back = decompress_table(bench, made, sizes, BASE)
    for move, table, name in (
        (Move.COMPRESS, made, "value_offset"),
        (Move.DECOMPRESS, back, "record_offset"),
    ):
        job = bench.job(move, table, **windows(bench))
        source = BASE + int(table[name][2]) + 5 * LINE
        bench.memory.faults = [Fault(source, source + LINE, DECERR, writes=False)]
        want, verdicts = apply(bench, job, {2: (int(Status.BUS_ERROR), 0, 0, DECERR, 0)})
        done = await bench.run(job)
        bench.memory.faults = []
        assert bench.memory.data == want
        check_done(done, job, verdicts, 1)


@cocotb.test()
async def throughput(dut: Any) -> None:
    """Beats a cycle on the side of the blocks, on an ideal memory 40 cycles away."""
    figures = {}
    info = BlockInfo(32, 2, 64, kinds=Kind.BOTH)
    for scheme in (Scheme.RAW, Scheme.INT4):
        for move in (Move.COMPRESS, Move.DECOMPRESS):
            bench = await start(dut, 1 << 20, stand_in=False, latency=40)
            table = compress_table(bench, 16, BASE, [info] * 16)
            table["scheme"] = scheme
            if move == Move.DECOMPRESS:
                sizes = []
                for row in table:
                    half = info.block_bytes // 2
                    block = [
                        bench.get(BASE + int(row[f"{n}_offset"]), half) for n in ("key", "value")
                    ]
                    record, _ = code(True, row.tobytes(), b"".join(block))
                    bench.put(BASE + int(row["record_offset"]), record)
                    sizes.append(len(record))
                table = decompress_table(bench, table, sizes, BASE)
            await expect(bench, bench.job(move, table, **windows(bench)))
            name, memory = f"{scheme.name}_{move.name}".lower(), bench.memory
            figures[f"{name}_read_busy"] = busy(memory.read_cycles)
            figures[f"{name}_write_busy"] = busy(memory.write_cycles)
            figures[f"{name}_latency_cycles"] = memory.write_cycles[0]
    report(**figures)
