"""Records for tests: damage done to them on purpose, with the checksum repaired where asked."""

from __future__ import annotations

import numpy as np

from speckv_pynq import spec
from speckv_pynq.reference import crc32c
from speckv_pynq.spec import Status

HEADER_BYTES = spec.RECORD_HEADER.itemsize

# One field set to a value, checksum repaired -> what a reader must say. Made for an fp16 record of
# 16 tokens, 2 heads, head_dim 64, both kinds, identity zero, payload not raw.
HEADER_FAULTS = [
    ("magic", 0x564B5052, Status.BAD_MAGIC),
    ("format_version", spec.FORMAT_VERSION + 1, Status.BAD_VERSION),
    ("flags", 2, Status.BAD_FLAGS),
    ("flags", 0x8000, Status.BAD_FLAGS),
    ("reserved0", 1, Status.BAD_FLAGS),
    ("reserved1", 0x80000000, Status.BAD_FLAGS),
    ("scheme", spec.Scheme.KLT, Status.CODEBOOK_MISMATCH),  # none is given to the reader
    ("scheme", max(spec.Scheme) + 1, Status.BAD_SCHEME),
    ("scheme", 255, Status.BAD_SCHEME),
    ("dtype", spec.DType.BF16, Status.SHAPE_MISMATCH),
    ("kinds", spec.Kind.KEY, Status.SHAPE_MISMATCH),
    ("tokens", 32, Status.SHAPE_MISMATCH),
    ("heads", 1, Status.SHAPE_MISMATCH),
    ("head_dim", 80, Status.SHAPE_MISMATCH),
    ("first_position", 1, Status.IDENTITY_MISMATCH),
    ("first_layer", 1, Status.IDENTITY_MISMATCH),
    ("layer_count", 2, Status.IDENTITY_MISMATCH),
    ("first_head", 1, Status.IDENTITY_MISMATCH),
    ("layout_fingerprint", 1 << 63, Status.LAYOUT_MISMATCH),
    ("codebook_fingerprint", 1 << 63, Status.CODEBOOK_MISMATCH),
    ("payload_bytes", 0, Status.BAD_PAYLOAD_BYTES),
    ("payload_bytes", 0xFFFFFFFF, Status.BAD_PAYLOAD_BYTES),
]


def header_of(record: bytes) -> np.void:
    return np.frombuffer(record[:HEADER_BYTES], spec.RECORD_HEADER)[0]


def payload_of(record: bytes) -> bytes:
    return record[HEADER_BYTES : HEADER_BYTES + int(header_of(record)["payload_bytes"])]


def with_fields(record: bytes, **fields: object) -> bytes:
    """record with header fields replaced and the checksum made to fit what stands there."""
    header = np.frombuffer(record[:HEADER_BYTES], spec.RECORD_HEADER).copy()
    for name, value in fields.items():
        header[name] = value
    return repaired(header.tobytes() + record[HEADER_BYTES:])


def repaired(record: bytes) -> bytes:
    """record with the checksum of its header and payload."""
    start = spec.RECORD_HEADER.fields["crc32c"][1]
    crc = crc32c(record[:start] + payload_of(record))
    return record[:start] + crc.to_bytes(4, "little") + record[HEADER_BYTES:]


def with_payload(record: bytes, payload: bytes, **fields: object) -> bytes:
    """record with another payload, its length and the checksum made to fit, padded to a line."""
    padded = record[:HEADER_BYTES] + payload + bytes(-len(payload) % spec.LINE_BYTES)
    return with_fields(padded, payload_bytes=len(payload), **fields)


def flipped(record: bytes, bit: int) -> bytes:
    """record with one bit flipped, counted from the lowest bit of the first byte."""
    out = bytearray(record)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)
