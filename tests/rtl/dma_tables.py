"""Tables of descriptors for benches of the DMA engine, and how a run of one is judged."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo
from speckv_pynq.spec import CommandStatus, DType, Kind, Move, Scheme
from tests.hls.kernels import descriptor
from tests.rtl.axi import AxiMemory
from tests.rtl.beats import LINE
from tests.rtl.bench import begin, rng
from tests.rtl.dma import Bench, StandIn, Verdict, apply, check_done, info_of

BASE = 0x7_0000_0000  # of the memory: more than 32 bits
SCHEMES = (Scheme.RAW, Scheme.INT8_DELTA_RLE, Scheme.INT4)


async def start(dut: Any, nbytes: int = 1 << 21, *, stand_in: bool = True, **memory: Any) -> Bench:
    """The device after reset, with memory full of random bytes; stand_in: it has no codec of its own."""
    chance = rng()
    inputs = [name for name in dir(dut) if name.endswith("_i") and name not in ("clk_i", "rst_i")]
    await begin(dut, inputs)
    # What nobody writes must stay as it is.
    data = bytearray(chance.randbytes(nbytes))
    stall = memory.get("stall", 0.0)
    ends = [StandIn(dut, stall)] if stand_in else []
    return Bench(dut, chance, AxiMemory(dut, data, base=BASE, **memory), ends)


def draw_info(chance: random.Random) -> BlockInfo:
    return BlockInfo(
        chance.choice((16, 32)),
        chance.choice((1, 2, 3)),
        chance.choice((64, 80)),
        chance.choice((DType.FP16, DType.BF16)),
        chance.choice((Kind.KEY, Kind.VALUE, Kind.BOTH, Kind.BOTH)),
        first_layer=chance.randrange(100),
        first_position=chance.randrange(1 << 32),
        layout_fingerprint=chance.getrandbits(64),
    )


def draw_block(chance: random.Random, info: BlockInfo) -> bytes:
    values = np.random.default_rng(chance.getrandbits(32)).standard_normal(info.block_bytes // 2)
    if info.dtype == DType.BF16:
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype(np.float16).tobytes()


def place_block(bench: Bench, row: np.ndarray, info: BlockInfo, window: int) -> None:
    """Gives each kind of a block a place of its own, relative to `window`."""
    row["key_offset"] = row["value_offset"] = 0
    for kind, name in ((Kind.KEY, "key_offset"), (Kind.VALUE, "value_offset")):
        if kind in info.kind_list:
            row[name] = bench.place(info.block_bytes // len(info.kind_list)) - window


def place_record(bench: Bench, row: np.ndarray, capacity: int, window: int) -> None:
    row["record_capacity"] = capacity
    row["record_offset"] = bench.place(capacity) - window


def fill_block(bench: Bench, row: np.ndarray, info: BlockInfo, window: int) -> None:
    data, half = draw_block(bench.chance, info), info.block_bytes // len(info.kind_list)
    for i, kind in enumerate(info.kind_list):
        name = "key_offset" if kind == Kind.KEY else "value_offset"
        bench.put(window + int(row[name][0]), data[i * half : (i + 1) * half])


def compress_table(
    bench: Bench, count: int, window: int, infos: list[BlockInfo] | None = None
) -> np.ndarray:
    rows = []
    for i in range(count):
        info = infos[i] if infos else draw_info(bench.chance)
        row = descriptor(info, bench.chance.choice(SCHEMES))
        place_block(bench, row, info, window)
        fill_block(bench, row, info, window)
        place_record(bench, row, info.block_bytes + LINE * bench.chance.randrange(1, 4), window)
        rows.append(row)
    return np.concatenate(rows)


def decompress_table(bench: Bench, made: np.ndarray, sizes: list[int], window: int) -> np.ndarray:
    """The records of a table that was compressed, to places of their own; capacities exact or the slot."""
    table = made.copy()
    for i in range(len(table)):
        place_block(bench, table[i : i + 1], info_of(table[i]), window)
        if bench.chance.random() < 0.7:
            table["record_capacity"][i] = sizes[i]
    return table


def copy_table(bench: Bench, count: int, window: int, most_lines: int = 200) -> np.ndarray:
    table = np.zeros(count, spec.DESCRIPTOR)
    for i in range(count):
        nbytes = LINE * bench.chance.randrange(1, most_lines)
        place_record(bench, table[i : i + 1], nbytes, window)
        table["key_offset"][i] = bench.place(nbytes) - window
    return table


def windows(bench: Bench) -> dict[str, int]:
    """Both buffers: all of memory, under different bases."""
    size = len(bench.memory.data)
    return {"records": BASE, "records_bytes": size, "blocks": BASE, "blocks_bytes": size}


async def expect(
    bench: Bench,
    job: np.ndarray,
    refused: dict[int, Verdict] | None = None,
    status: CommandStatus | None = None,
) -> list[Verdict]:
    """Runs a job and compares all of memory, the completions and the run's record."""
    want, verdicts = apply(bench, job, refused or {})
    lines, first = lines_to_read(bench, job, refused or {}), len(bench.memory.reads)
    done = await bench.run(job)
    assert sum(b.beats for b in bench.memory.reads[first:] if b.name == 0) == lines
    for i, verdict in enumerate(verdicts if job["results_address"][0] else []):
        at = int(job["results_address"][0]) + 16 * i
        got = np.frombuffer(bench.get(at, 16), spec.COMPLETION)[0]
        assert tuple(got.item()) == verdict, f"descriptor {i}: got {got}, want {verdict}"
    assert bench.memory.data == want, f"memory differs from byte {first_difference(bench, want):#x}"
    failed = any(verdict[0] for verdict in verdicts)
    ended = CommandStatus.FAILED_BLOCKS if failed else CommandStatus.OK
    check_done(done, job, verdicts, status if status is not None else ended)
    return verdicts


def lines_to_read(bench: Bench, job: np.ndarray, refused: dict[int, Verdict]) -> int:
    """Of blocks, of records no more than their capacity and the largest record of the block, of copies."""
    lines = 0
    table = bench.get(int(job["table_address"][0]), LINE * int(job["count"][0]))
    for i, row in enumerate(np.frombuffer(table, spec.DESCRIPTOR)):
        capacity = int(row["record_capacity"]) // LINE
        if i in refused:
            continue
        if job["move"][0] == Move.COPY:
            lines += capacity
        else:
            block = info_of(row).block_bytes // LINE
            lines += block if job["move"][0] == Move.COMPRESS else min(capacity, block + 1)
    return lines


def first_difference(bench: Bench, want: bytearray) -> int:
    return next(
        i for i, pair in enumerate(zip(bench.memory.data, want, strict=True)) if pair[0] != pair[1]
    )
