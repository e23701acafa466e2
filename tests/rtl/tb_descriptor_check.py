"""descriptor_check: the first fault in the kernels' order, its value and limit; beats of K and V; one a cycle."""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo
from speckv_pynq.spec import DType, Kind, Scheme, Status
from tests.rtl.bench import begin, report, setting
from tests.rtl.compress_jobs import INFO, descriptor_of, refused_jobs

LATENCY = 2
Result = tuple[int, int, int]


def completion_result(completion: int) -> Result:
    row = np.frombuffer(completion.to_bytes(16, "little"), spec.COMPLETION)[0]
    return int(row["status"]), int(row["value"]), int(row["limit"])


def decompress_cases() -> list[tuple[int, Result]]:
    """What a reader can check before it has the header: any scheme, a capacity of one line."""
    fine = (int(Status.OK), 0, 0)
    cases: list[tuple[dict[str, int], Result]] = [
        ({"scheme": 255}, fine),
        ({"record_capacity": spec.LINE_BYTES}, fine),
        ({"record_capacity": 0}, (Status.RECORD_TOO_SMALL, 0, spec.LINE_BYTES)),
        ({"record_capacity": 65}, (Status.MISALIGNED, 65, spec.LINE_BYTES)),
        ({"dtype": DType.FP32}, fine),
        ({"dtype": 3, "tokens": 1}, (Status.BAD_DTYPE, 3, DType.FP32)),
        ({"kinds": 0}, (Status.BAD_SHAPE, 0, Kind.BOTH)),
        ({"heads": 0}, (Status.BAD_SHAPE, 0, 1)),
    ]
    return [
        (descriptor_of(INFO, fields.pop("scheme", Scheme.INT4), **fields), result)
        for fields, result in cases
    ]


def good_infos() -> list[BlockInfo]:
    return [
        BlockInfo(tokens, 2, head_dim, dtype=dtype, kinds=kinds)
        for tokens in spec.BLOCK_TOKENS_ALLOWED
        for head_dim in (64, 80, 96)
        for dtype in DType
        for kinds in (Kind.KEY, Kind.VALUE, Kind.BOTH)
    ] + [BlockInfo(16, 1, head_dim) for head_dim in spec.HEAD_DIM_ALLOWED]


@cocotb.test()
async def first_fault(dut: Any) -> None:
    limit = setting("max_block_bytes", 0)
    cases = [(j.descriptor, 1, completion_result(j.completion), None) for j in refused_jobs(limit)]
    cases += [(descriptor, 0, result, None) for descriptor, result in decompress_cases()]
    for info in good_infos():
        beats = info.block_bytes // len(info.kind_list) // spec.LINE_BYTES
        wanted = tuple(beats * (kind in info.kinds) for kind in (Kind.KEY, Kind.VALUE))
        if info.block_bytes > limit:
            refused = (int(Status.BLOCK_TOO_LARGE), info.block_bytes, limit)
            cases.append((descriptor_of(info, Scheme.RAW), 1, refused, None))
        else:
            cases.append((descriptor_of(info, Scheme.RAW), 1, (0, 0, 0), wanted))
            cases.append((descriptor_of(info, Scheme.RAW), 0, (0, 0, 0), wanted))
    await begin(dut, ["valid_i"])
    # A case a cycle; results come LATENCY cycles later.
    for at in range(len(cases) + LATENCY):
        dut.valid_i.value = at < len(cases)
        if at < len(cases):
            dut.descriptor_i.value, dut.compress_i.value = cases[at][:2]
        if at >= LATENCY:
            descriptor, compress, result, beats = cases[at - LATENCY]
            assert dut.valid_o.value
            got = tuple(int(p.value) for p in (dut.status_o, dut.value_o, dut.limit_o))
            assert got == result, f"case {at - LATENCY}, compress {compress}: {descriptor:0128x}"
            if beats is not None:
                assert (int(dut.key_beats_o.value), int(dut.value_beats_o.value)) == beats
        await FallingEdge(dut.clk_i)
    assert not dut.valid_o.value
    report(cases=len(cases))
