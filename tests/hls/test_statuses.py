"""Each status is reachable, is the reference's, and says what was found and what the limit is."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record, int8_delta_rle
from speckv_pynq.reference.record import KNOWN, SCHEMES
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import make_bits
from tests.hls.kernels import Kernels, block_bytes_of, descriptor, guarded, is_untouched
from tests.records import HEADER_FAULTS, flipped, payload_of, with_fields, with_payload

INFO = BlockInfo(16, 2, 64)
KIND = INFO.block_bytes // 2
LINE = spec.LINE_BYTES
SLOT = INFO.block_bytes + spec.MIN_SLOT_BYTES
LOSSY = tuple(s for s in SCHEMES if s != Scheme.RAW)

# Descriptor fields that no kernel may accept, in either direction, and what it must say.
DESCRIPTOR_FAULTS = [
    ({"record_offset": 8}, Status.MISALIGNED, 8, LINE),
    ({"key_offset": 32}, Status.MISALIGNED, 32, LINE),
    ({"value_offset": KIND + 1}, Status.MISALIGNED, KIND + 1, LINE),
    ({"record_capacity": SLOT + 63}, Status.MISALIGNED, SLOT + 63, LINE),
    ({"record_offset": LINE}, Status.OUT_OF_RANGE, LINE, 0),
    ({"record_offset": (1 << 64) - LINE}, Status.OUT_OF_RANGE, (1 << 32) - LINE, 0),
    ({"record_capacity": SLOT + LINE}, Status.OUT_OF_RANGE, 0, 0),
    ({"record_capacity": (1 << 32) - LINE}, Status.OUT_OF_RANGE, 0, 0),
    ({"key_offset": KIND + LINE}, Status.OUT_OF_RANGE, KIND + LINE, KIND),
    ({"value_offset": KIND + LINE}, Status.OUT_OF_RANGE, KIND + LINE, KIND),
    ({"value_offset": (1 << 64) - KIND}, Status.OUT_OF_RANGE, (1 << 32) - KIND, KIND),
    ({"kinds": Kind.KEY}, Status.OUT_OF_RANGE, KIND, 0),  # value_offset of a kind not there
    ({"kinds": Kind.VALUE, "key_offset": LINE}, Status.OUT_OF_RANGE, LINE, 0),
    ({"dtype": 3}, Status.BAD_DTYPE, 3, None),
    ({"kinds": 0}, Status.BAD_SHAPE, 0, Kind.BOTH),
    ({"kinds": 4}, Status.BAD_SHAPE, 4, Kind.BOTH),
    ({"tokens": 0}, Status.BAD_SHAPE, 0, 64),
    ({"tokens": 48}, Status.BAD_SHAPE, 48, 64),
    ({"head_dim": 72}, Status.BAD_SHAPE, 72, 256),
    ({"heads": 0}, Status.BAD_SHAPE, 0, 1),
    ({"heads": 257}, Status.BLOCK_TOO_LARGE, 257 * 4096, spec.MAX_BLOCK_BYTES),
    (
        {"heads": 0xFFFF, "tokens": 64, "head_dim": 256},  # 32 bits do not hold its bytes
        Status.BLOCK_TOO_LARGE,
        0xFFFF * 65536 % (1 << 32),
        spec.MAX_BLOCK_BYTES,
    ),
]
COMPRESS_FAULTS = [
    ({"scheme": Scheme.KLT}, Status.CODEBOOK_MISMATCH, 0, 0),  # no codebook was given
    ({"scheme": max(KNOWN) + 1}, Status.BAD_SCHEME, max(KNOWN) + 1, max(KNOWN)),
    ({"scheme": 255}, Status.BAD_SCHEME, 255, max(KNOWN)),
    ({"dtype": DType.FP32}, Status.BAD_DTYPE, DType.FP32, DType.BF16),
    ({"record_capacity": SLOT - LINE}, Status.RECORD_TOO_SMALL, SLOT - LINE, SLOT),
    ({"record_capacity": 0}, Status.RECORD_TOO_SMALL, 0, SLOT),
]


def sample(scheme: Scheme = Scheme.INT8_DELTA_RLE, case: str = "runs") -> bytes:
    k, v = (make_bits(case, seed, INFO.shape, INFO.dtype) for seed in (1, 2))
    return encode_record(k, v, scheme, dtype=INFO.dtype)


def in_slot(record: bytes) -> np.ndarray:
    return np.frombuffer(record + bytes(SLOT - len(record)), np.uint8)


def assert_says(completion: np.void, status: Status, value: int, limit: int | None) -> None:
    assert completion["status"] == status
    assert completion["value"] == value
    assert limit is None or completion["limit"] == limit
    assert (completion["flags"], completion["record_bytes"]) == (0, 0)


@pytest.mark.parametrize(
    ("fields", "status", "value", "limit"),
    DESCRIPTOR_FAULTS + COMPRESS_FAULTS,
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_compress_refuses(
    kernels: Kernels, fields: dict, status: Status, value: int, limit: int | None
) -> None:
    memory, slot = guarded(SLOT)
    table = descriptor(INFO, **{"scheme": Scheme.INT8_DELTA_RLE, **fields})
    blocks = np.zeros(INFO.block_bytes, np.uint8)
    call, completions = kernels.call("compress", blocks, slot, table)
    assert call == Status.OK
    assert_says(completions[0], status, value, limit)
    assert is_untouched(memory)


@pytest.mark.parametrize(
    ("fields", "status", "value", "limit"),
    [*DESCRIPTOR_FAULTS, ({"record_capacity": 0}, Status.RECORD_TOO_SMALL, 0, 64)],
    ids=lambda x: str(x) if isinstance(x, dict) else "",
)
def test_decompress_refuses(
    kernels: Kernels, fields: dict, status: Status, value: int, limit: int | None
) -> None:
    memory, blocks = guarded(INFO.block_bytes)
    table = descriptor(INFO, **fields)
    call, completions = kernels.call("decompress", in_slot(sample()), blocks, table)
    assert call == Status.OK
    assert_says(completions[0], status, value, limit)
    assert is_untouched(memory)


def assert_refused_as_by_reference(kernels: Kernels, record: bytes, info: BlockInfo) -> Status:
    with pytest.raises(RecordError) as caught:
        decode_record(record, info)
    completion, _, _ = kernels.decode(record, info)
    error, low = caught.value, 0xFFFFFFFF
    assert_says(completion, error.status, error.value & low, error.limit & low)
    return Status(error.status)


@pytest.mark.parametrize("scheme", LOSSY)
@pytest.mark.parametrize(("field", "value", "status"), HEADER_FAULTS)
def test_header_faults(
    kernels: Kernels, field: str, value: int, status: Status, scheme: Scheme
) -> None:
    record = with_fields(sample(scheme), **{field: value})
    assert assert_refused_as_by_reference(kernels, record, INFO) == status


@pytest.mark.parametrize("fields", [{"flags": 0}, {"scheme_params": 1}, {"payload_bytes": 8191}])
def test_raw_header_faults(kernels: Kernels, fields: dict) -> None:
    assert_refused_as_by_reference(kernels, with_fields(sample(Scheme.RAW), **fields), INFO)


def test_a_record_cut_short(kernels: Kernels) -> None:
    record = sample(Scheme.RAW)[:-LINE]
    status = assert_refused_as_by_reference(kernels, record, INFO)
    assert status == Status.RECORD_TOO_SMALL


def test_bad_crc_and_bad_payload(kernels: Kernels) -> None:
    record = sample()
    status = assert_refused_as_by_reference(kernels, flipped(record, 8 * 64), INFO)
    assert status == Status.BAD_CRC
    for key_bytes in (len(payload_of(record)) + 1, len(payload_of(record)) + 2, 1, 0xFFFFFFFF):
        params = np.frombuffer(int8_delta_rle.PARAMS.pack(0, 0, key_bytes), np.uint8)
        cut = with_fields(record, scheme_params=params)
        assert assert_refused_as_by_reference(kernels, cut, INFO) == Status.BAD_PAYLOAD
    payload = payload_of(record)
    params = np.frombuffer(int8_delta_rle.PARAMS.pack(0, 0, len(payload)), np.uint8)
    odd = with_payload(record, payload[:-1], scheme_params=params)
    assert assert_refused_as_by_reference(kernels, odd, INFO) == Status.BAD_PAYLOAD


def test_scheme_asked_for_is_ignored_on_the_way_back(kernels: Kernels) -> None:
    _, blocks = guarded(INFO.block_bytes)
    table = descriptor(INFO, scheme=255)
    _, completions = kernels.call("decompress", in_slot(sample()), blocks, table)
    assert completions[0]["status"] == Status.OK


@pytest.mark.parametrize("kernel", ["compress", "decompress"])
def test_another_abi_touches_nothing(kernels: Kernels, kernel: str) -> None:
    memory, target = guarded(SLOT)
    table = np.repeat(descriptor(INFO), 3)
    status, completions = kernels.call(
        kernel, np.zeros(SLOT, np.uint8), target, table, abi_id=spec.ABI_ID ^ 1
    )
    assert status == Status.ABI_MISMATCH
    assert (completions["status"] == Status.ABI_MISMATCH).all()
    assert is_untouched(memory)


def test_one_descriptor_too_many(kernels: Kernels) -> None:
    memory, records = guarded(SLOT)
    table = np.repeat(descriptor(INFO), spec.MAX_BATCH + 1)
    status, _ = kernels.call("compress", np.zeros(INFO.block_bytes, np.uint8), records, table)
    assert status == Status.OUT_OF_RANGE
    assert is_untouched(memory)


def test_an_empty_table_is_fine(kernels: Kernels) -> None:
    nothing = np.zeros(0, np.uint8)
    assert kernels.call("compress", nothing, nothing, np.zeros(0, spec.DESCRIPTOR))[0] == Status.OK


def test_a_bad_descriptor_does_not_hurt_its_neighbours(kernels: Kernels) -> None:
    """Faults of the kernel and of the bounds check in one table, good blocks between them."""
    k, v = (make_bits("runs", seed, INFO.shape, INFO.dtype) for seed in (1, 2))
    table = np.repeat(descriptor(INFO, Scheme.INT8_DELTA_RLE), 7)
    table["record_offset"] = np.arange(7) * SLOT
    table["tokens"][1] = 17
    table["key_offset"][2] = 1 << 40
    table["record_offset"][5] = 1 << 40
    _, records = guarded(7 * SLOT)
    _, completions = kernels.call("compress", block_bytes_of(k, v), records, table)
    good = [0, 3, 4, 6]
    assert completions["status"].tolist() == [
        Status.OK if i in good else Status.BAD_SHAPE if i == 1 else Status.OUT_OF_RANGE
        for i in range(7)
    ]
    for i in range(7):
        slot = records[i * SLOT : (i + 1) * SLOT]
        if i in good:
            assert slot[: completions["record_bytes"][i]].tobytes() == sample()
            assert completions["flags"][i] == Flag(0)
        else:
            assert is_untouched(slot)


def test_this_file_reaches_every_status() -> None:
    reached = {status for _, status, *_ in DESCRIPTOR_FAULTS + COMPRESS_FAULTS}
    reached |= {status for _, _, status in HEADER_FAULTS}
    reached |= {Status.OK, Status.ABI_MISMATCH, Status.BAD_CRC, Status.BAD_PAYLOAD}
    of_prediction = {Status.PREDICTOR_MISMATCH, Status.BAD_TOKEN, Status.BAD_STATE}
    # Those: test_prefetch.py. The bus answers the RTL alone: tests/rtl/test_dma_engine.py.
    assert reached == set(Status) - of_prediction - {Status.BUS_ERROR}
