"""lossless: every bit pattern comes back, ratios on real blocks, and every way a payload can contradict itself."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record, lossless, rans
from speckv_pynq.reference.lossless import ESCAPE, FREQUENCY, LAYOUTS, START
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import FINITE_CASES, REAL_BLOCKS, blocks, identity, make_bits, shapes, to_bits
from tests.records import header_of

SHAPE = (16, 1, 64)
VALUES = 16 * 64


def wide_bits(case: str, seed: int, shape: tuple[int, int, int], dtype: DType) -> np.ndarray:
    """make_bits, for fp32 too: a bf16 case above, random bits below."""
    if dtype != DType.FP32:
        return make_bits(case, seed, shape, dtype)
    low = np.random.default_rng(seed).integers(0, 1 << 16, shape, np.uint32)
    return make_bits(case, seed, shape, DType.BF16).astype(np.uint32) << 16 | low


def test_tables_cover_all_slots() -> None:
    assert FREQUENCY.shape == (lossless.CONTEXTS, lossless.SYMBOLS)
    assert FREQUENCY.min() >= 1
    assert (FREQUENCY.sum(axis=1) == rans.SLOTS).all()
    assert (START[:, 0] == 0).all()


@given(
    shapes(), st.sampled_from((*FINITE_CASES, "any")), st.integers(0, 999), st.sampled_from(DType)
)
def test_payloads_keep_every_bit(
    shape: tuple[int, int, int], case: str, seed: int, dtype: DType
) -> None:
    arrays = {kind: wide_bits(case, seed + kind, shape, dtype) for kind in (Kind.KEY, Kind.VALUE)}
    coded = lossless.encode(arrays, dtype)
    assert coded is not None
    assert len(coded[0]) >= lossless.least_bytes(2 * int(np.prod(shape)), dtype)
    back = lossless.decode(*coded, Kind.BOTH, shape, dtype)
    assert all(back[kind].tobytes() == arrays[kind].tobytes() for kind in arrays)


@given(blocks(cases=(*FINITE_CASES, "any")))
def test_records_keep_every_bit(block: tuple) -> None:
    info, k, v = block
    got = decode_record(encode_record(k, v, Scheme.LOSSLESS, **identity(info)), info)
    for a, want in zip(got, (k, v), strict=True):
        assert a is want is None or a.tobytes() == want.tobytes()


@pytest.mark.parametrize("bad", [0x7C00, 0xFC00, 0x7C01, 0x7FFF, 0xFE00, 0x8000])
def test_values_that_are_not_finite_are_coded_too(bad: int) -> None:
    bits = make_bits("normal", 3, (32, 2, 64), DType.FP16)
    bits.flat[[0, 77, -1]] = bad
    record = encode_record(bits, bits, Scheme.LOSSLESS, dtype=DType.FP16)
    assert header_of(record)["flags"] == 0
    got = decode_record(record, BlockInfo(32, 2, 64))
    assert got[0] is not None
    assert got[0].tobytes() == bits.tobytes()


def test_random_bits_fall_back_to_raw() -> None:
    bits = make_bits("any", 3, (32, 2, 64), DType.FP16)
    record = encode_record(bits, bits, Scheme.LOSSLESS, dtype=DType.FP16)
    assert header_of(record)["flags"] == Flag.RAW


@pytest.mark.parametrize(("dtype", "least"), [(DType.FP16, 1.17), (DType.BF16, 1.49)])
def test_real_blocks_shrink(dtype: DType, least: float) -> None:
    """A few blocks of a model in fp32, rounded; a model's own fp16 and bf16 caches come to the same."""
    with np.load(REAL_BLOCKS) as file:
        key, value = file["key"], file["value"]
    records = [
        encode_record(
            *(to_bits(a[row].astype(np.float64), dtype) for a in (key, value)),
            Scheme.LOSSLESS,
            dtype=dtype,
        )
        for row in range(len(key))
    ]
    assert (key.nbytes + value.nbytes) / sum(map(len, records)) > least


@pytest.mark.parametrize("dtype", DType)
def test_the_rest_is_laid_out_by_fields(dtype: DType) -> None:
    layout = LAYOUTS[dtype]
    values = np.random.default_rng(5).integers(0, 1 << layout.rest_bits, 96)
    packed = lossless.pack_rest(values, layout)
    assert len(packed) == lossless.rest_bytes(96, layout)
    assert np.array_equal(lossless.unpack_rest(packed, layout), values)
    first = layout.fields[0]
    lane = lambda i: int(values[i]) & (1 << first) - 1  # noqa: E731
    want = sum(lane(4 * first * k) << first * k for k in range(max(1, 8 // first)))
    assert int.from_bytes(packed[: 2 if first == 16 else 1], "little") == want


def sample(cases: int = 3) -> tuple[bytes, bytes]:
    """One kind of SHAPE in fp16 with some escapes -> (payload, scheme_params)."""
    bits = make_bits("normal", 8, SHAPE, DType.FP16)
    bits.flat[200 : 200 + 50 * cases : 50] = 0
    coded = lossless.encode({Kind.KEY: bits}, DType.FP16)
    assert coded is not None
    return coded


def refused(payload: bytes, params: bytes, kinds: Kind = Kind.KEY) -> RecordError:
    with pytest.raises(RecordError) as caught:
        lossless.decode(payload, params, kinds, SHAPE, DType.FP16)
    assert caught.value.status == Status.BAD_PAYLOAD
    assert str(int(caught.value.value)) in str(caught.value)
    return caught.value


def test_contradictions_are_refused() -> None:
    payload, params = sample()
    words, escapes, key, value = lossless.PARAMS.unpack(params)
    assert escapes >= 3
    pack = lossless.PARAMS.pack
    assert lossless.decode(payload, params, Kind.KEY, SHAPE, DType.FP16)
    refused(payload, pack(words, escapes, key, 1))  # V's base, but no V
    refused(payload, pack(words + 1, escapes, key, value))  # longer than the payload
    refused(payload, pack(words, escapes - 1, key, value))
    refused(payload, pack(words + 1, escapes - 1, key, value))  # the size fits, the stream does not
    refused(payload, pack(words - 1, escapes + 1, key, value))
    refused(payload[:-2] + b"\x80\x00", params)  # a top of eight bits
    refused(bytes(4) + payload[4:], params)  # a state below the least
    assert ESCAPE == lossless.SYMBOLS - 1


@given(st.integers(0, 1 << 32), st.sampled_from(DType), st.integers(0, 40))
def test_any_payload_ends(seed: int, dtype: DType, escapes: int) -> None:
    """Random words: decoding stops, with values or with a typed error."""
    rng = np.random.default_rng(seed)
    words = int(rng.integers(0, 800))
    size = lossless.least_bytes(VALUES, dtype) + 2 * words + 2 * escapes
    payload = bytearray(rng.bytes(size))
    states = rng.integers(rans.LOW, 1 << 32, spec.ENTROPY_LANES).astype("<u4")
    payload[: rans.STATE_BYTES] = states.tobytes()
    params = lossless.PARAMS.pack(words, escapes, int(rng.integers(256)), 0)
    with contextlib.suppress(RecordError):
        lossless.decode(bytes(payload), params, Kind.KEY, SHAPE, dtype)
