"""kv_decompress: completions and blocks equal the reference's, whatever the record; rates without stalls."""

import random
from collections.abc import Sequence
from typing import Any

import cocotb
import numpy as np

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo, encode_record
from speckv_pynq.spec import DType, Scheme, Status
from tests.blocks import FINITE_CASES
from tests.records import flipped, payload_of, repaired, with_fields, with_payload
from tests.rtl.beats import LINE, completion_of
from tests.rtl.bench import Coverage, Receiver, Sender, begin, report, rng, run_streams, setting
from tests.rtl.record_cases import (
    KINDS,
    Block,
    Case,
    case_of,
    random_block,
    real_blocks,
    small_info,
)

LOSSY = (DType.FP16, DType.BF16)


def record_of(block: Block, scheme: Scheme) -> bytes:
    info, k, v = block
    identity = {
        name: getattr(info, name)
        for name in BlockInfo.__dataclass_fields__
        if name not in ("tokens", "heads", "head_dim", "kinds")
    }
    return encode_record(k, v, scheme, **identity)


async def run(dut: Any, cases: Sequence[Case], chance: random.Random) -> Receiver:
    """Feeds the cases and compares everything that comes back."""
    await begin(
        dut, ["descriptor_tvalid_i", "record_tvalid_i", "block_tready_i", "completion_tready_i"]
    )
    stall, pressure = setting("stall", 0.0), setting("pressure", 0.0)

    def sender(name: str, items: list[Any], *more: str) -> Sender:
        data = tuple(getattr(dut, f"{name}_{port}_i") for port in ("tdata", *more))
        valid, ready = getattr(dut, f"{name}_tvalid_i"), getattr(dut, f"{name}_tready_o")
        return Sender(data if more else data[0], valid, ready, items, stall=stall)

    def receiver(name: str, *more: str) -> Receiver:
        data = tuple(getattr(dut, f"{name}_{port}_o") for port in ("tdata", *more))
        valid, ready = getattr(dut, f"{name}_tvalid_o"), getattr(dut, f"{name}_tready_i")
        return Receiver(data if more else data[0], valid, ready, stall=pressure)

    descriptors = sender("descriptor", [case.descriptor for case in cases])
    records = sender("record", [beat for case in cases for beat in case.beats], "tlast")
    block, completion = receiver("block", "tlast"), receiver("completion")
    want = [(beat, int(last)) for case in cases for beat, last in case.block]
    await run_streams(
        dut,
        chance,
        [descriptors, records, block, completion],
        until=lambda: len(completion.items) == len(cases) and records.done,
        most_cycles=10 * (len(want) + len(records.items)) + 200 * len(cases) + 2000,
    )
    for number, case in enumerate(cases):
        got = completion.items[number]
        assert got == case.completion, (
            f"record {number}: completion {got:032x}, not {case.completion:032x}"
        )
    assert len(block.items) == len(want)
    for number, (got, beat) in enumerate(zip(block.items, want, strict=True)):
        assert got == beat, f"beat {number} of all blocks: {got[0]:0128x}, not {beat[0]:0128x}"
    beats = 0
    for case, cycle in zip(cases, completion.cycles, strict=True):
        beats += len(case.block)
        assert not case.block or block.cycles[beats - 1] < cycle, (
            "a completion came before its block's end"
        )
    return block


@cocotb.test()
async def blocks(dut: Any) -> None:
    """Records of random blocks of every shape, and of real ones."""
    chance = rng()
    scheme = Scheme(setting("scheme", Scheme.INT4))
    dtypes = (*LOSSY, DType.FP32) if scheme == Scheme.RAW else LOSSY
    coverage = Coverage(
        dtype=dtypes,
        kinds=KINDS,
        tokens=spec.BLOCK_TOKENS_ALLOWED,
        head_dim=spec.HEAD_DIM_ALLOWED,
        raw=(True, False) if scheme != Scheme.RAW else (True,),
        slack=(True, False),
    )
    source: list[Block] = []
    for number in range(setting("random", 60)):
        info = small_info(chance, dtypes, setting("block_bytes", 16384))
        # What is not finite falls back to raw.
        source.append(
            random_block(
                chance, info, "any" if number % 8 == 0 and info.dtype != DType.FP32 else None
            )
        )
    real = real_blocks(setting("block_bytes", 16384))
    source += [next(real) for _ in range(setting("real", 10))]
    cases = []
    for block in source:
        slack = chance.choice((0, 0, 1, 5))
        case = case_of(record_of(block, scheme), block[0], slack)
        assert case.status == Status.OK
        for name in ("dtype", "kinds", "tokens", "head_dim"):
            coverage.hit(name, getattr(block[0], name))
        coverage.hit("raw", bool(case.completion >> 16 & 1))
        coverage.hit("slack", bool(slack))
        cases.append(case)
    await run(dut, cases, chance)
    report(random=setting("random", 60), real=setting("real", 10))
    coverage.finish()


def damaged(chance: random.Random, record: bytes, info: BlockInfo) -> list[Case]:
    """A record with each header byte changed, with and without a right CRC; cut short; of another block; payload."""
    cases = [case_of(record, info)]
    end = LINE + len(payload_of(record))
    for byte in range(LINE):
        changed = flipped(record, 8 * byte + chance.randrange(8))
        cases += [case_of(changed, info), case_of(repaired(changed), info)]
    for _ in range(8):
        cases.append(case_of(flipped(record, chance.randrange(8 * LINE, 8 * end)), info))
    for count in (1, 2, len(record) // LINE - 1):
        cases.append(case_of(record[: LINE * count], info))
    for size in (
        0,
        1,
        2,
        info.block_bytes - 1,
        info.block_bytes,
        info.block_bytes + 1,
        1 << 20,
        (1 << 32) - 1,
    ):
        cases.append(case_of(with_fields(record, payload_bytes=size), info))
    for name in (
        "tokens",
        "heads",
        "head_dim",
        "first_position",
        "first_layer",
        "layer_count",
        "first_head",
    ):
        other = {
            "tokens": 16 if info.tokens != 16 else 32,
            "head_dim": 64 if info.head_dim != 64 else 96,
        }
        wanted = replace_info(info, name, other.get(name, getattr(info, name) + 1))
        cases.append(case_of(record, wanted))
    for name in ("layout_fingerprint", "codebook_fingerprint"):
        cases.append(case_of(record, replace_info(info, name, getattr(info, name) ^ 1 << 40)))
    for scheme in range(7):
        cases.append(case_of(with_fields(record, scheme=scheme), info))
        cases.append(case_of(with_fields(record, scheme=scheme, flags=0), info))
    for _ in range(setting("mutations", 40)):
        params = np.frombuffer(record[48:56], np.uint8).copy()
        params[chance.randrange(8)] ^= chance.randrange(256)
        changed = with_fields(record, scheme_params=params)
        if chance.random() < 0.7:
            payload = bytearray(payload_of(changed))
            for _ in range(chance.randrange(1, 4)):
                payload[chance.randrange(len(payload))] = chance.randrange(256)
            changed = with_payload(record if chance.random() < 0.5 else changed, bytes(payload))
        cases.append(case_of(changed, info))
    cases.append(case_of(record, info))
    return cases


def replace_info(info: BlockInfo, name: str, value: int) -> BlockInfo:
    fields = {field: getattr(info, field) for field in BlockInfo.__dataclass_fields__}
    return BlockInfo(**(fields | {name: value}))


def refused(info: BlockInfo) -> list[Case]:
    """Descriptors that fail by themselves take no beats."""

    def case(status: Status, value: int, limit: int, **fields: int) -> Case:
        good = case_of(bytes(LINE), info, **fields)
        return Case(good.descriptor, [], completion_of(status, value=value, limit=limit), [])

    return [
        case(Status.BAD_DTYPE, 3, 2, dtype=3),
        case(Status.BAD_SHAPE, 0, 3, kinds=0),
        case(Status.BAD_SHAPE, 33, 64, tokens=33),
        case(Status.BAD_SHAPE, 72, 256, head_dim=72),
        case(Status.BAD_SHAPE, 0, 1, heads=0),
        case(Status.MISALIGNED, 32, LINE, record_offset=32),
    ]


@cocotb.test()
async def damage(dut: Any) -> None:
    chance = rng()
    scheme = Scheme(setting("scheme", Scheme.INT4))
    seen = Coverage(status=setting("statuses", ["OK"]))
    cases: list[Case] = []
    for kinds, dtype in zip(KINDS, (*LOSSY, DType.FP16), strict=True):
        info = replace_info(small_info(chance, (dtype,), 4096), "kinds", kinds)
        name = "runs" if scheme == Scheme.INT8_DELTA_RLE else chance.choice(FINITE_CASES)
        cases += damaged(chance, record_of(random_block(chance, info, name), scheme), info)
        cases += refused(info)
    for case in cases:
        if case.status.name in seen.goals["status"]:
            seen.hit("status", case.status.name)
    await run(dut, cases, chance)
    report(cases=len(cases))
    seen.finish()


@cocotb.test()
async def rate(dut: Any) -> None:
    """Records of one shape without a pause."""
    chance = rng()
    scheme = Scheme(setting("scheme", Scheme.INT4))
    info = BlockInfo(*setting("shape", [32, 2, 64]))
    name = setting("block", None)
    cases = [
        case_of(record_of(random_block(chance, info, name), scheme), info)
        for _ in range(setting("records", 6))
    ]
    block = await run(dut, cases, chance)
    first, last = block.cycles[0], block.cycles[-1]
    report(
        beats_per_cycle=(len(block.items) - 1) / (last - first),
        record_beats_per_cycle=sum(len(case.beats) for case in cases) / last,
        latency_cycles=first,
        beats=len(block.items),
        record_beats=sum(len(case.beats) for case in cases),
    )
