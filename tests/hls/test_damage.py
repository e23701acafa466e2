"""Damaged records: every flipped bit is found, and whatever a mutation does, csim does what the
reference does. A refused record leaves its destination untouched (Kernels.decode_many checks that).
"""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record, int4
from speckv_pynq.reference.record import SCHEMES
from speckv_pynq.spec import DType, Kind, Scheme, Status
from tests.blocks import FINITE_CASES, LOSSY_DTYPES, make_bits
from tests.hls.kernels import Decoded, Kernels, same
from tests.records import (
    HEADER_BYTES,
    flipped,
    header_of,
    payload_of,
    repaired,
    with_fields,
    with_payload,
)

LOW_WORD = 0xFFFFFFFF
MUTATIONS = 2000


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_every_single_flipped_bit_is_found(kernels: Kernels, scheme: Scheme, dtype: DType) -> None:
    info = BlockInfo(16, 1, 64, dtype=dtype, kinds=Kind.VALUE if scheme == 0 else Kind.BOTH)
    k, v = (make_bits("runs", seed, info.shape, dtype) for seed in (1, 2))
    record = encode_record(None if scheme == 0 else k, v, scheme, dtype=dtype)
    bits = 8 * (HEADER_BYTES + len(payload_of(record)))
    decoded = kernels.decode_many([flipped(record, bit) for bit in range(bits)], info)
    passed = [bit for bit, (completion, *_) in enumerate(decoded) if completion["status"] == 0]
    assert passed == []


def mutate(rng: np.random.Generator, record: bytes) -> bytes:
    """One to three random damages to header or payload, the checksum often repaired after them."""
    for _ in range(rng.integers(1, 4)):
        end = HEADER_BYTES + len(payload_of(record))
        how = rng.integers(6)
        if how == 0:  # any bit
            record = flipped(record, int(rng.integers(8 * min(end, len(record)))))
        elif how == 1:  # a header field
            name = rng.choice(spec.RECORD_HEADER.names)
            field = spec.RECORD_HEADER.fields[name][0]
            record = with_fields(
                record, **{name: np.frombuffer(rng.bytes(field.itemsize), field)[0]}
            )
        elif how == 2:  # scheme_params stay plausible: small changes
            params = header_of(record)["scheme_params"].copy()
            params[rng.integers(8)] ^= rng.integers(256)
            record = with_fields(record, scheme_params=params)
        elif how == 3:  # payload bytes
            payload = bytearray(payload_of(record))
            for place in rng.integers(max(1, len(payload)), size=rng.integers(1, 9)):
                payload[place : place + 1] = rng.bytes(1)
            record = with_payload(record, bytes(payload))
        elif how == 4:  # payload cut short or made longer, to odd lengths too
            payload = payload_of(record)
            cut = int(rng.integers(max(1, len(payload))))
            record = with_payload(record, payload[:cut] + rng.bytes(int(rng.integers(64))))
        else:  # another scheme's meaning for the same payload
            record = with_fields(record, scheme=rng.integers(5), flags=rng.integers(2))
        if len(payload_of(record)) > 2 * spec.MAX_BLOCK_BYTES:
            break
    return repaired(record) if rng.integers(4) else record


def reference_outcome(record: bytes, info: BlockInfo) -> tuple:
    """(status, value, limit, k, v), the numbers cut to the 32 bits that a completion has."""
    try:
        k, v = decode_record(record + bytes(-len(record) % spec.LINE_BYTES), info)
    except RecordError as error:
        return error.status, error.value & LOW_WORD, error.limit & LOW_WORD, None, None
    return Status.OK, 0, 0, k, v


def assert_as_reference(decoded: Decoded, record: bytes, info: BlockInfo) -> Status:
    completion, k, v = decoded
    status, value, limit, want_k, want_v = reference_outcome(record, info)
    assert (completion["status"], completion["value"], completion["limit"]) == (
        status,
        value,
        limit,
    )
    assert same(k, want_k)
    assert same(v, want_v)
    return status


@pytest.mark.parametrize("scheme", SCHEMES)
def test_mutated_records_end_as_in_the_reference(kernels: Kernels, scheme: Scheme) -> None:
    rng = np.random.default_rng([20261125, scheme])
    seen: set[Status] = set()
    done = 0
    while done < MUTATIONS // len(SCHEMES):
        dtype = LOSSY_DTYPES[rng.integers(2)]
        kinds = Kind(int(rng.integers(1, 4)))
        info = BlockInfo(16, int(rng.integers(1, 3)), 80, dtype=dtype, kinds=kinds)
        case = rng.choice(FINITE_CASES)
        k, v = (
            make_bits(case, seed, info.shape, dtype) if kind in kinds else None
            for seed, kind in ((done, Kind.KEY), (done + 1, Kind.VALUE))
        )
        record = encode_record(k, v, scheme, dtype=dtype)
        mutants = [mutate(rng, record) for _ in range(20)]
        decoded = kernels.decode_many(mutants, info)
        seen |= {assert_as_reference(d, m, info) for d, m in zip(decoded, mutants, strict=True)}
        done += len(mutants)
    # Not only the first gates: mutations reach the decoders and pass them.
    assert {Status.OK, Status.BAD_CRC, Status.BAD_FLAGS, Status.BAD_PAYLOAD_BYTES} <= seen
    assert Status.BAD_PAYLOAD in seen or scheme == Scheme.RAW


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_any_int4_payload_decodes_as_in_the_reference(kernels: Kernels, dtype: DType) -> None:
    """Codes and zero points that no encoder makes, at every exponent, in and out of range."""
    info = BlockInfo(16, 1, 80, dtype=dtype)
    zeros = np.zeros(info.shape, np.uint16)
    template = encode_record(zeros, zeros, Scheme.INT4, dtype=dtype)
    rng = np.random.default_rng(7)
    size = int4.payload_bytes(info.shape, info.kind_list)
    exponents = [*range(-180, 140), *rng.integers(-(1 << 15), 1 << 15, 80).tolist(), -(1 << 15)]
    records = []
    for u in exponents:
        params = np.frombuffer(int4.PARAMS.pack(u, int(rng.integers(-40, 20)), 0), np.uint8)
        records.append(with_payload(template, rng.bytes(size), scheme_params=params))
    for decoded, record in zip(kernels.decode_many(records, info), records, strict=True):
        assert assert_as_reference(decoded, record, info) == Status.OK
