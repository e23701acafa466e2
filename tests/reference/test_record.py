"""Records: what the header says, when the payload is the block itself, and that damage is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.block import EXACT_SCHEMES
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import BlockInfo, crc32c, decode_record, encode_record
from speckv_pynq.reference.record import SCHEMES
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import block_infos, blocks, identity, make_bits
from tests.records import HEADER_FAULTS, flipped, header_of, payload_of, with_fields

INFO = BlockInfo(16, 2, 64)
CODED = tuple(s for s in SCHEMES if s != Scheme.RAW)
LOSSY = tuple(s for s in SCHEMES if s not in EXACT_SCHEMES)


def sample(scheme: Scheme = Scheme.INT8_DELTA_RLE, case: str = "runs") -> bytes:
    k, v = (make_bits(case, seed, INFO.shape, INFO.dtype) for seed in (1, 2))
    return encode_record(k, v, scheme, dtype=INFO.dtype)


@given(blocks(), st.sampled_from(SCHEMES))
def test_header_says_what_the_block_is(block: tuple, scheme: Scheme) -> None:
    info, k, v = block
    record = encode_record(k, v, scheme, **identity(info))
    header, payload = header_of(record), payload_of(record)
    assert (header["magic"], header["format_version"]) == (spec.MAGIC, spec.FORMAT_VERSION)
    assert header["scheme"] == scheme
    for name in BlockInfo.__dataclass_fields__:
        assert header[name] == getattr(info, name)
    assert header["reserved0"] == header["reserved1"] == 0
    assert header["crc32c"] == crc32c(record[:60] + payload)
    assert len(record) % spec.LINE_BYTES == 0
    assert len(record) - 64 - len(payload) < spec.LINE_BYTES
    assert not any(record[64 + len(payload) :])


@given(blocks(cases=("any", "any_finite", "normal")))
def test_raw_is_exact(block: tuple) -> None:
    info, k, v = block
    record = encode_record(k, v, Scheme.RAW, **identity(info))
    assert header_of(record)["flags"] == Flag.RAW
    got = decode_record(record, info)
    assert [a if a is None else a.tobytes() for a in got] == [
        a if a is None else a.tobytes() for a in (k, v)
    ]


@pytest.mark.parametrize("bad", [0x7C00, 0xFC00, 0x7C01, 0x7FFF, 0xFE00])
@pytest.mark.parametrize("scheme", LOSSY)
@pytest.mark.parametrize("place", [0, -1])
def test_values_that_are_not_finite_make_the_payload_raw(
    scheme: Scheme, bad: int, place: int
) -> None:
    k, v = np.zeros(INFO.shape, np.uint16), np.zeros(INFO.shape, np.uint16)
    (v if place else k).flat[place] = bad
    record = encode_record(k, v, scheme, dtype=DType.FP16)
    header = header_of(record)
    assert (header["scheme"], header["flags"]) == (scheme, Flag.RAW)
    assert not header["scheme_params"].any()
    got = decode_record(record, INFO)
    assert (got[0].tobytes(), got[1].tobytes()) == (k.tobytes(), v.tobytes())


def test_a_payload_that_does_not_shrink_is_raw() -> None:
    alternating = np.resize(np.array([0x3C00, 0xBC00], np.uint16), INFO.shape)
    record = encode_record(alternating, alternating, Scheme.INT8_DELTA_RLE, dtype=DType.FP16)
    assert header_of(record)["flags"] == Flag.RAW
    assert payload_of(record) == 2 * alternating.tobytes()


@pytest.mark.parametrize("scheme", EXACT_SCHEMES)
@given(block_infos(dtypes=(DType.FP32,)))
def test_fp32_is_kept_exactly_and_by_exact_schemes_only(scheme: Scheme, info: BlockInfo) -> None:
    rng = np.random.default_rng(info.first_position)
    k, v = (rng.integers(0, 1 << 32, info.shape, np.uint32) for _ in range(2))
    k, v = k if Kind.KEY in info.kinds else None, v if Kind.VALUE in info.kinds else None
    record = encode_record(k, v, scheme, **identity(info))
    for got, want in zip(decode_record(record, info), (k, v), strict=True):
        assert got is want is None or got.tobytes() == want.tobytes()
    with pytest.raises(RecordError) as caught:
        encode_record(k, v, Scheme.INT8_DELTA_RLE, **identity(info))
    assert caught.value.status == Status.BAD_DTYPE


def refused(record: bytes, info: BlockInfo = INFO) -> RecordError:
    with pytest.raises(RecordError) as caught:
        decode_record(record, info)
    error = caught.value
    assert str(int(error.value)) in str(error)
    assert str(int(error.limit)) in str(error)
    return error


@pytest.mark.parametrize("scheme", CODED)
@pytest.mark.parametrize(("field", "value", "status"), HEADER_FAULTS)
def test_each_header_field_is_checked(
    field: str, value: int, status: Status, scheme: Scheme
) -> None:
    assert refused(with_fields(sample(scheme), **{field: value})).status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"flags": 0}, Status.BAD_FLAGS),
        ({"scheme_params": 1}, Status.BAD_FLAGS),
        ({"payload_bytes": INFO.block_bytes - 1}, Status.BAD_PAYLOAD_BYTES),
        ({"payload_bytes": INFO.block_bytes + 1}, Status.BAD_PAYLOAD_BYTES),
    ],
)
def test_raw_headers_have_no_freedom(fields: dict, status: Status) -> None:
    assert refused(with_fields(sample(Scheme.RAW), **fields)).status == status


def test_short_records_are_refused() -> None:
    record = sample()
    assert refused(record[:63]).status == Status.RECORD_TOO_SMALL
    end = 64 + len(payload_of(record))
    assert refused(record[: end - 1]).status == Status.RECORD_TOO_SMALL
    decode_record(record[:end], INFO)  # padding is not read


def test_fp32_in_a_header_needs_scheme_raw() -> None:
    info = BlockInfo(16, 2, 64, dtype=DType.FP32)
    record = encode_record(*(np.zeros(info.shape, np.uint32),) * 2, Scheme.RAW)
    assert refused(with_fields(record, scheme=1), info).status == Status.BAD_DTYPE


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"dtype": 3}, Status.BAD_DTYPE),
        ({"kinds": 0}, Status.BAD_SHAPE),
        ({"kinds": 4}, Status.BAD_SHAPE),
        ({"tokens": 17}, Status.BAD_SHAPE),
        ({"head_dim": 96 + 1}, Status.BAD_SHAPE),
        ({"heads": 0}, Status.BAD_SHAPE),
        ({"tokens": 64, "heads": 17, "head_dim": 256}, Status.BLOCK_TOO_LARGE),
    ],
)
def test_readers_cannot_ask_for_blocks_that_kernels_refuse(change: dict, status: Status) -> None:
    asked = BlockInfo(**{**INFO.__dict__, **change})
    assert refused(sample(), asked).status == status


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_single_flipped_bit_is_found(scheme: Scheme) -> None:
    info = BlockInfo(16, 1, 64)
    k = make_bits("runs", 5, info.shape, info.dtype)
    record = encode_record(k, k, scheme, dtype=info.dtype)
    header_bits, end = 8 * 64, 8 * (64 + len(payload_of(record)))
    step = max(1, (end - header_bits) // 2000) | 1  # odd: visits every bit of a byte
    for bit in [*range(header_bits), *range(header_bits, end, step)]:
        with pytest.raises(RecordError):
            decode_record(flipped(record, bit), info)
