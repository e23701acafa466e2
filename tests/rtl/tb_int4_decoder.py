"""int4_decoder: payloads to blocks, bit for bit, at one beat a cycle."""

from typing import Any

import cocotb

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo, int4
from speckv_pynq.reference.floats import FORMATS
from speckv_pynq.spec import DType, Kind
from tests.rtl.beats import to_beats
from tests.rtl.bench import Coverage, Receiver, Sender, begin, report, rng, run_streams, setting
from tests.rtl.record_cases import KINDS, random_block, small_info

LOSSY = (DType.FP16, DType.BF16)


def job_of(info: BlockInfo, params: bytes) -> tuple[int, ...]:
    return (
        bool(info.kinds & Kind.KEY),
        bool(info.kinds & Kind.VALUE),
        info.dtype == DType.BF16,
        info.tokens,
        info.heads,
        info.head_dim,
        int.from_bytes(params[:4], "little"),
    )


def block_beats(info: BlockInfo, payload: bytes, params: bytes) -> list[tuple[int, int]]:
    arrays = int4.decode(payload, params, Kind(info.kinds), info.shape, FORMATS[DType(info.dtype)])
    beats = to_beats(b"".join(a.tobytes() for a in arrays.values()))
    return [(beat, i == len(beats) - 1) for i, beat in enumerate(beats)]


async def run(dut: Any, cases: list[tuple[BlockInfo, bytes, bytes]], chance: Any) -> Receiver:
    await begin(dut, ["job_valid_i", "payload_tvalid_i", "block_tready_i"])
    job_ports = ("has_key", "has_value", "bf16", "tokens", "heads", "head_dim", "exponents")
    jobs = Sender(
        tuple(getattr(dut, f"{name}_i") for name in job_ports),
        dut.job_valid_i,
        dut.job_ready_o,
        [job_of(info, params) for info, _, params in cases],
    )
    payload = Sender(
        dut.payload_tdata_i,
        dut.payload_tvalid_i,
        dut.payload_tready_o,
        [line for _, payload, _ in cases for line in to_beats(payload)],
        stall=setting("stall", 0.0),
    )
    block = Receiver(
        (dut.block_tdata_o, dut.block_tlast_o),
        dut.block_tvalid_o,
        dut.block_tready_i,
        stall=setting("pressure", 0.0),
    )
    want = [beat for case in cases for beat in block_beats(*case)]
    await run_streams(
        dut,
        chance,
        [jobs, payload, block],
        until=lambda: len(block.items) == len(want),
        most_cycles=20 * len(want) + 2000,
    )
    assert block.items == want
    return block


@cocotb.test()
async def blocks(dut: Any) -> None:
    chance = rng()
    coverage = Coverage(
        dtype=LOSSY,
        kinds=KINDS,
        tokens=spec.BLOCK_TOKENS_ALLOWED,
        head_dim=spec.HEAD_DIM_ALLOWED,
        source=("encoded", "any"),
    )
    cases = []
    for number in range(setting("cases", 40)):
        info, k, v = random_block(chance, small_info(chance, LOSSY, setting("block_bytes", 16384)))
        arrays = {kind: a for kind, a in ((Kind.KEY, k), (Kind.VALUE, v)) if a is not None}
        payload, params = int4.encode(arrays, FORMATS[DType(info.dtype)])
        if number % 2:  # any bytes are a payload, any exponent decodes
            payload = chance.randbytes(len(payload))
            units = [
                chance.choice(
                    (
                        chance.randint(-180, 140),
                        chance.randint(-40, 20),
                        chance.randint(-32768, 32767),
                    )
                )
                if kind in arrays
                else 0
                for kind in (Kind.KEY, Kind.VALUE)
            ]
            params = int4.PARAMS.pack(*units, 0)
        coverage.hit("source", "any" if number % 2 else "encoded")
        for name in ("dtype", "kinds", "tokens", "head_dim"):
            coverage.hit(name, getattr(info, name))
        cases.append((info, payload, params))
    block = await run(dut, cases, chance)
    report(beats=len(block.items))
    coverage.finish()


@cocotb.test()
async def rate(dut: Any) -> None:
    """Records of one shape without a pause, nothing in the way."""
    chance = rng()
    tokens, heads, head_dim = setting("shape", [32, 2, 64])
    info = BlockInfo(tokens, heads, head_dim)
    size = int4.payload_bytes(info.shape, info.kind_list)
    params = int4.PARAMS.pack(-12, -12, 0)
    cases = [(info, chance.randbytes(size), params) for _ in range(setting("records", 6))]
    block = await run(dut, cases, chance)
    first = block.cycles[0]
    report(
        beats_per_cycle=(len(block.items) - 1) / (block.cycles[-1] - first),
        latency_cycles=first,
        beats=len(block.items),
    )
