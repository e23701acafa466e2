"""csim makes the reference's records, and the reference's blocks of them: every scheme and shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.block import EXACT_SCHEMES
from speckv_pynq.reference import BlockInfo, crc32c, decode_record, encode_record
from speckv_pynq.reference.record import SCHEMES
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import FINITE_CASES, LOSSY_DTYPES, block_infos, blocks, identity, make_bits
from tests.hls.kernels import Kernels, same
from tests.records import header_of


def assert_agrees(
    kernels: Kernels,
    info: BlockInfo,
    k: np.ndarray | None,
    v: np.ndarray | None,
    scheme: Scheme,
) -> bytes:
    """Encodes with both, compares, decodes with both, compares; returns the record."""
    want = encode_record(k, v, scheme, **identity(info))
    completion, record = kernels.encode(info, k, v, scheme)
    assert (completion["status"], completion["value"], completion["limit"]) == (Status.OK, 0, 0)
    assert record == want
    assert completion["flags"] == header_of(record)["flags"]
    done, got_k, got_v = kernels.decode(record, info)
    assert (done["status"], done["flags"]) == (Status.OK, completion["flags"])
    assert done["record_bytes"] == len(record)
    want_k, want_v = decode_record(record, info)
    assert same(got_k, want_k)
    assert same(got_v, want_v)
    return record


@given(blocks(), st.sampled_from(SCHEMES))
def test_finite_blocks(kernels: Kernels, block: tuple, scheme: Scheme) -> None:
    assert_agrees(kernels, *block, scheme)


@given(blocks(cases=("any", "zeros", "runs")), st.sampled_from(SCHEMES))
def test_blocks_with_any_bit_patterns_come_back_exactly_if_raw(
    kernels: Kernels, block: tuple, scheme: Scheme
) -> None:
    record = assert_agrees(kernels, *block, scheme)
    info, k, v = block
    if header_of(record)["flags"] & Flag.RAW:
        _, got_k, got_v = kernels.decode(record, info)
        assert same(got_k, k)
        assert same(got_v, v)


@pytest.mark.parametrize("scheme", EXACT_SCHEMES)
@given(block_infos(dtypes=(DType.FP32,)))
def test_fp32_blocks(kernels: Kernels, scheme: Scheme, info: BlockInfo) -> None:
    rng = np.random.default_rng(info.first_position)
    k, v = (rng.integers(0, 1 << 32, info.shape, np.uint32) for _ in range(2))
    k, v = k if Kind.KEY in info.kinds else None, v if Kind.VALUE in info.kinds else None
    assert_agrees(kernels, info, k, v, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("head_dim", spec.HEAD_DIM_ALLOWED)
@pytest.mark.parametrize("tokens", spec.BLOCK_TOKENS_ALLOWED)
def test_largest_block_of_each_shape(
    kernels: Kernels, tokens: int, head_dim: int, scheme: Scheme
) -> None:
    heads = spec.MAX_BLOCK_BYTES // (4 * tokens * head_dim)
    info = BlockInfo(tokens, heads, head_dim)
    k, v = (make_bits(case, heads, info.shape, DType.FP16) for case in ("normal", "channels"))
    assert_agrees(kernels, info, k, v, scheme)


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", FINITE_CASES)
def test_each_kind_of_values(kernels: Kernels, case: str, scheme: Scheme, dtype: DType) -> None:
    info = BlockInfo(32, 3, 80, dtype=dtype)
    k, v = (make_bits(case, seed, info.shape, dtype) for seed in (1, 2))
    assert_agrees(kernels, info, k, v, scheme)


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != Scheme.LOSSLESS])
@pytest.mark.parametrize("bad", ["infinity", "nan"])
@pytest.mark.parametrize("kinds", [Kind.KEY, Kind.VALUE])
@pytest.mark.parametrize("place", [0, 1023, 1024, -1])
def test_one_value_that_is_not_finite_is_seen_anywhere(
    kernels: Kernels, place: int, kinds: Kind, bad: str, scheme: Scheme, dtype: DType
) -> None:
    infinity = {DType.FP16: 0x7C00, DType.BF16: 0x7F80}[dtype]
    info = BlockInfo(32, 1, 64, dtype=dtype)
    arrays = {kind: np.zeros(info.shape, np.uint16) for kind in (Kind.KEY, Kind.VALUE)}
    arrays[kinds].flat[place] = (infinity if bad == "infinity" else infinity + 1) | 0x8000
    record = assert_agrees(kernels, info, *arrays.values(), scheme)
    assert header_of(record)["flags"] == Flag.RAW
    assert header_of(record)["scheme"] == scheme


@given(st.binary(max_size=600), st.integers(0, 0xFFFFFFFF))
def test_crc32c(kernels: Kernels, data: bytes, seed: int) -> None:
    assert kernels.crc32c(data, seed) == crc32c(data, seed)
