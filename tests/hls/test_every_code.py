"""Every fp16 and bf16 code through each conversion of the kernels: into q, and from every absmax."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo, encode_record, int4, int8_delta_rle
from speckv_pynq.reference.floats import FORMATS, magnitude_from_ratio, take_apart
from speckv_pynq.reference.record import SCHEMES
from speckv_pynq.spec import DType, Kind, Scheme
from tests.blocks import LOSSY_DTYPES, make_bits
from tests.hls.kernels import Kernels
from tests.hls.test_agrees_with_reference import assert_agrees
from tests.records import with_payload

EVERY_CODE = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_raw_keeps_every_code(kernels: Kernels, dtype: DType) -> None:
    info = BlockInfo(64, 4, 256, dtype=dtype, kinds=Kind.KEY)
    assert info.kind_values == EVERY_CODE.size
    codes = EVERY_CODE.reshape(info.shape)
    assert_agrees(kernels, info, codes, None, Scheme.RAW)
    _, record = kernels.encode(info, codes, None, Scheme.RAW)
    _, got, _ = kernels.decode(record, info)
    assert got.tobytes() == codes.tobytes()


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != Scheme.RAW])
def test_every_code_is_coded_beside_larger_ones(
    kernels: Kernels, scheme: Scheme, dtype: DType
) -> None:
    """Codes in order, so that each also meets a block (and a group) whose largest value is near."""
    fmt = FORMATS[dtype]
    finite = np.arange(fmt.max_finite + 1, dtype=np.uint16)
    info = BlockInfo(16, 1, 64, dtype=dtype)
    values = np.stack([finite, finite | 0x8000], 1).reshape(-1)
    values = np.pad(values, (0, -values.size % (2 * info.kind_values)))
    for block in values.reshape(-1, 2, *info.shape):
        assert_agrees(kernels, info, *block, scheme)


def all_levels() -> bytes:
    """Runs whose decoded q are 0, 1, ... 127, -127, ... -1, then zeros: 1,024 values."""
    q = np.concatenate([np.arange(128), np.arange(-127, 0), np.zeros(1024 - 255, np.int64)])
    return int8_delta_rle.run_lengths(np.diff(q, prepend=0).astype(np.uint8))


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_int8_decodes_every_level_of_every_absmax(kernels: Kernels, dtype: DType) -> None:
    fmt = FORMATS[dtype]
    info = BlockInfo(16, 1, 64, dtype=dtype)
    absmaxes = np.arange(fmt.max_finite + 1, dtype=np.uint16).reshape(-1, 2)
    _, exponent, mantissa = take_apart(absmaxes, fmt)
    want = magnitude_from_ratio(
        mantissa[..., None] * np.arange(128),
        int8_delta_rle.LEVELS,
        exponent[..., None] - fmt.bias - fmt.mantissa_bits,
        fmt,
    )
    runs = all_levels()
    zeros = np.zeros(info.shape, np.uint16)
    template = encode_record(zeros, zeros, Scheme.INT8_DELTA_RLE, dtype=dtype)
    params = np.frombuffer(int8_delta_rle.PARAMS.pack(0, 0, len(runs)), np.uint8)
    template = with_payload(template, runs + runs, scheme_params=params)
    records = np.repeat(np.frombuffer(template, np.uint8)[None], len(absmaxes), axis=0)
    at = spec.RECORD_HEADER.fields["scheme_params"][1]
    records[:, at : at + 4] = absmaxes.view(np.uint8)
    for record in records:
        covered = np.concatenate([record[:60], record[64 : 64 + 2 * len(runs)]])
        record[60:64] = np.frombuffer(kernels.crc32c(covered).to_bytes(4, "little"), np.uint8)
    for (completion, *kinds), tables in zip(
        kernels.decode_many([r.tobytes() for r in records], info), want, strict=True
    ):
        assert completion["status"] == 0
        for got, table in zip(kinds, tables, strict=True):
            got = got.reshape(-1)
            assert np.array_equal(got[:128], table)
            assert np.array_equal(got[128:255], table[:0:-1] | 0x8000)
            assert not got[255:].any()


INT4_INFO = {dtype: BlockInfo(16, 8, 256, dtype=dtype, kinds=Kind.KEY) for dtype in LOSSY_DTYPES}
# U at which results are subnormal, normal and saturated, and where the kernels change their way.
INT4_EXPONENTS = {
    DType.FP16: [*range(-60, 30), -(1 << 15), -200, 200, (1 << 15) - 1],
    DType.BF16: [*range(-170, -112), -100, -1, 0, *range(12, 34, 2), *range(90, 140, 4)],
}


def int4_corners(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Every code eight times, (2048,) each: with zero points at their ends, near 0, and drawn."""
    code = np.tile(np.arange(256), 8)
    z = np.random.default_rng(seed).integers(-2048, 2048, code.size)
    ends = np.repeat([2047, -2048, 0, -60], 256)
    z[: ends.size] = ends
    return code, z


def int4_corner_record(dtype: DType, u: int) -> tuple[bytes, np.ndarray]:
    """(record, key): q of token t is t, so each of 2,048 groups decodes all sixteen."""
    info = INT4_INFO[dtype]
    template = encode_record(np.zeros(info.shape, np.uint16), None, Scheme.INT4, dtype=dtype)
    q = np.broadcast_to(np.arange(16)[:, None, None], info.shape)
    code, z = int4_corners(u & 0xFFFF)
    high = (z.reshape(-1, 2) >> 8 & 15) << (0, 4)
    planes = (code, z & 255, high.sum(axis=1), int4.pack_values(q))
    payload = b"".join(plane.astype(np.uint8).tobytes() for plane in planes)
    params = np.frombuffer(int4.PARAMS.pack(u, 0, 0), np.uint8)
    groups = int4.group_shape(Kind.KEY, info.shape)
    key = int4.dequantise(u, code.reshape(groups), z.reshape(groups), q, Kind.KEY, FORMATS[dtype])
    return with_payload(template, payload, scheme_params=params), key


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_int4_decodes_every_code_at_every_exponent(kernels: Kernels, dtype: DType) -> None:
    for u in INT4_EXPONENTS[dtype]:
        record, want = int4_corner_record(dtype, u)
        completion, got, _ = kernels.decode(record, INT4_INFO[dtype])
        assert completion["status"] == 0
        assert got.tobytes() == want.tobytes(), f"U = {u}"


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_int4_steps_where_roundings_meet(kernels: Kernels, dtype: DType) -> None:
    """One steady channel sets the unit and the rest have small steps: then each bit of a range counts."""
    info = BlockInfo(16, 1, 256, dtype=dtype, kinds=Kind.KEY)
    for seed in range(120):
        assert_agrees(
            kernels, info, make_bits("steady", seed, info.shape, dtype), None, Scheme.INT4
        )
