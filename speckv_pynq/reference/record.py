"""One block as a record: header (spec RECORD_HEADER, 64 bytes), payload, zeros up to a whole line.

The order of the checks in `decode_record` is the order of the kernels: the first fault found is the
one reported. Header and payload are covered by the CRC, the padding is not and is never read.

A scheme that cannot hold a block (a value that is not finite, which `lossless` holds), or whose payload would not be
smaller than the block, falls back to the block itself: payload as in `raw`, Flag.RAW set, scheme_params zero,
`scheme` still what was asked for. Scheme `raw` sets the flag too. `klt` falls back to `int4` first, where a
value is out of its range or int4's payload is not larger: `scheme` is int4's then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.block import EXACT_SCHEMES
from speckv_pynq.codebook import Codebook
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import int4, int8_delta_rle, klt, lossless, rans, raw
from speckv_pynq.reference.crc32c import crc32c
from speckv_pynq.reference.floats import FORMATS, is_finite
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status

CODERS = {Scheme.INT8_DELTA_RLE: int8_delta_rle, Scheme.INT4: int4}
SCHEMES = (Scheme.RAW, *CODERS, Scheme.LOSSLESS)  # that need no codebook
KNOWN = (*SCHEMES, Scheme.KLT)
BITS: dict[DType, np.dtype[Any]] = {
    DType.FP16: np.dtype(np.uint16),
    DType.BF16: np.dtype(np.uint16),
    DType.FP32: np.dtype(np.uint32),
}
INFERRED = {"float16": DType.FP16, "float32": DType.FP32, "uint32": DType.FP32}
COVERED = spec.RECORD_HEADER.itemsize - 4  # header bytes under the CRC, which stands last
Arrays = dict[Kind, np.ndarray]


@dataclass(frozen=True)
class BlockInfo:
    """Shape and identity of a block: what its record's header says and a reader expects."""

    tokens: int
    heads: int
    head_dim: int
    dtype: DType = DType.FP16
    kinds: Kind = Kind.BOTH
    first_layer: int = 0
    layer_count: int = 1
    first_head: int = 0
    first_position: int = 0
    layout_fingerprint: int = 0
    codebook_fingerprint: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.tokens, self.heads, self.head_dim

    @property
    def kind_list(self) -> list[Kind]:
        return [kind for kind in (Kind.KEY, Kind.VALUE) if kind in Kind(self.kinds)]

    @property
    def kind_values(self) -> int:
        return self.tokens * self.heads * self.head_dim

    @property
    def block_bytes(self) -> int:
        """Bytes of all kinds together, uncompressed."""
        return len(self.kind_list) * self.kind_values * spec.DTYPE_BYTES[DType(self.dtype)]


def fault(status: Status, what: str, value: int, limit: int, remedy: str) -> RecordError:
    return RecordError(
        f"{what} {value}, should be {limit}: {remedy}", status=status, value=value, limit=limit
    )


def check_block(info: BlockInfo, scheme: Scheme) -> None:
    """What every kernel checks before it touches a block."""
    ask = "ask for a shape that kernels accept"
    if scheme not in KNOWN:
        raise fault(Status.BAD_SCHEME, "scheme", scheme, max(KNOWN), ask)
    if info.dtype not in BITS or (info.dtype == DType.FP32 and scheme not in EXACT_SCHEMES):
        raise fault(Status.BAD_DTYPE, "dtype", info.dtype, DType.BF16, ask)
    if info.kinds not in (Kind.KEY, Kind.VALUE, Kind.BOTH):
        raise fault(Status.BAD_SHAPE, "kinds", info.kinds, Kind.BOTH, ask)
    if info.tokens not in spec.BLOCK_TOKENS_ALLOWED:
        raise fault(Status.BAD_SHAPE, "tokens", info.tokens, max(spec.BLOCK_TOKENS_ALLOWED), ask)
    if info.head_dim not in spec.HEAD_DIM_ALLOWED:
        raise fault(Status.BAD_SHAPE, "head_dim", info.head_dim, max(spec.HEAD_DIM_ALLOWED), ask)
    if info.heads < 1:
        raise fault(Status.BAD_SHAPE, "heads", info.heads, 1, ask)
    if info.block_bytes > spec.MAX_BLOCK_BYTES:
        limit = spec.MAX_BLOCK_BYTES
        raise fault(Status.BLOCK_TOO_LARGE, "block bytes", info.block_bytes, limit, "split by head")


def book_of(info: BlockInfo, codebook: Codebook | None) -> klt.Book:
    """What scheme klt needs for this block; RecordError when the codebook was not made for it."""

    def refuse(name: str, value: int, limit: int) -> RecordError:
        ask = "load the codebook that the records were made with"
        return fault(Status.CODEBOOK_MISMATCH, f"codebook's {name}", value, limit, ask)

    if codebook is None:
        raise refuse("slot", 0, 0)
    if codebook.fingerprint != info.codebook_fingerprint:
        raise refuse("fingerprint", codebook.fingerprint, info.codebook_fingerprint)
    unit = codebook.units[codebook.slots.get(info.first_layer, 0)]
    for name in ("heads", "head_dim", "kinds", "first_layer", "layer_count"):
        if getattr(unit, name) != getattr(info, name):
            raise refuse(name, getattr(unit, name), getattr(info, name))
    return klt.Book(unit, codebook.tables, info.first_position)


def build_header(
    info: BlockInfo, scheme: Scheme, flags: Flag, params: bytes, payload: bytes
) -> bytes:
    """The 64 header bytes, CRC32C of header bytes 0-59 and payload included."""
    header = np.zeros((), spec.RECORD_HEADER)
    header["magic"], header["format_version"] = spec.MAGIC, spec.FORMAT_VERSION
    header["scheme"], header["flags"] = scheme, flags
    for name in BlockInfo.__dataclass_fields__:
        header[name] = getattr(info, name)
    header["payload_bytes"] = len(payload)
    header["scheme_params"] = np.frombuffer(params, np.uint8)
    header["crc32c"] = crc32c(header.tobytes()[:COVERED] + payload)
    return header.tobytes()


def encode_payload(
    arrays: Arrays, info: BlockInfo, scheme: Scheme, book: klt.Book | None = None
) -> tuple[Flag, Scheme, bytes, bytes]:
    """arrays: bit patterns (tokens, heads, head_dim) per kind -> (flags, scheme, scheme_params, payload)."""
    coded, used = None, scheme
    if scheme == Scheme.LOSSLESS:
        coded = lossless.encode(arrays, DType(info.dtype))
    elif scheme != Scheme.RAW and all(is_finite(a, FORMATS[info.dtype]) for a in arrays.values()):
        if scheme == Scheme.KLT:
            assert book is not None
            coded = klt.encode(arrays, FORMATS[info.dtype], book)
            if not coded or len(coded[0]) >= int4.payload_bytes(info.shape, info.kind_list):
                coded, used = None, Scheme.INT4
        if coded is None:
            coded = CODERS[used].encode(arrays, FORMATS[info.dtype])
    if coded and len(coded[0]) < info.block_bytes:
        return Flag(0), used, coded[1], coded[0]
    return Flag.RAW, scheme, bytes(8), raw.encode(list(arrays.values()))


def encode_record(
    k: np.ndarray | None,
    v: np.ndarray | None,
    scheme: Scheme,
    *,
    dtype: DType | None = None,
    codebook: Codebook | None = None,
    **identity: Any,
) -> bytes:
    """k, v: (tokens, heads, head_dim), float16, float32 or bit patterns; None: the record lacks it.

    dtype: needed for uint16 arrays (bf16 has no NumPy type). codebook: for scheme klt; its fingerprint must stand in
    the identity. identity: the fields of BlockInfo from first_layer on. Returns the whole record: header, payload,
    zeros up to a line.
    """
    given = {kind: a for kind, a in ((Kind.KEY, k), (Kind.VALUE, v)) if a is not None}
    tokens, heads, head_dim = next(iter(given.values())).shape
    if dtype is None:
        dtype = INFERRED[next(iter(given.values())).dtype.name]
    info = BlockInfo(tokens, heads, head_dim, dtype, Kind(sum(given)), **identity)
    check_block(info, scheme)
    book = book_of(info, codebook) if scheme == Scheme.KLT else None
    arrays: Arrays = {kind: np.ascontiguousarray(a).view(BITS[dtype]) for kind, a in given.items()}
    flags, used, params, payload = encode_payload(arrays, info, scheme, book)
    padding = -len(payload) % spec.LINE_BYTES
    return build_header(info, used, flags, params, payload) + payload + bytes(padding)


def parse_header(record: bytes) -> np.void:
    """The header as a spec.RECORD_HEADER scalar; nothing but its size is checked."""
    size = spec.RECORD_HEADER.itemsize
    if len(record) < size:
        raise fault(Status.RECORD_TOO_SMALL, "record bytes", len(record), size, "refetch the block")
    return np.frombuffer(record[:size], spec.RECORD_HEADER)[0]


def check_header(header: np.void, info: BlockInfo) -> None:
    """Everything a header can say wrong, given the block that the reader expects."""

    def must_equal(name: str, want: int, status: Status, remedy: str) -> None:
        if int(header[name]) != want:
            raise fault(status, name, int(header[name]), int(want), remedy)

    damaged, other = "record damaged; refetch the block", "record of another block"
    must_equal("magic", spec.MAGIC, Status.BAD_MAGIC, "not a record")
    must_equal("format_version", spec.FORMAT_VERSION, Status.BAD_VERSION, "encode the block again")
    if int(header["flags"]) & ~int(Flag.RAW):
        raise fault(Status.BAD_FLAGS, "flags", int(header["flags"]), Flag.RAW, damaged)
    must_equal("reserved0", 0, Status.BAD_FLAGS, damaged)
    must_equal("reserved1", 0, Status.BAD_FLAGS, damaged)
    if header["scheme"] not in KNOWN:
        raise fault(Status.BAD_SCHEME, "scheme", int(header["scheme"]), max(KNOWN), damaged)
    for name in ("dtype", "kinds", "tokens", "heads", "head_dim"):
        must_equal(name, getattr(info, name), Status.SHAPE_MISMATCH, other)
    for name in ("first_position", "first_layer", "layer_count", "first_head"):
        must_equal(name, getattr(info, name), Status.IDENTITY_MISMATCH, other)
    must_equal("layout_fingerprint", info.layout_fingerprint, Status.LAYOUT_MISMATCH, other)
    must_equal("codebook_fingerprint", info.codebook_fingerprint, Status.CODEBOOK_MISMATCH, other)
    if info.dtype == DType.FP32 and header["scheme"] not in EXACT_SCHEMES:
        raise fault(Status.BAD_DTYPE, "dtype", info.dtype, DType.BF16, damaged)
    if header["flags"] & Flag.RAW:
        if header["scheme_params"].any():
            found = int(header["scheme_params"].view("<u8")[0]) & 0xFFFFFFFF
            raise fault(Status.BAD_FLAGS, "scheme_params of a raw payload", found, 0, damaged)
    elif header["scheme"] == Scheme.RAW:
        raise fault(Status.BAD_FLAGS, "flags of scheme raw", 0, Flag.RAW, damaged)


def check_payload_bytes(header: np.void, info: BlockInfo) -> None:
    """Payload bytes that the scheme cannot have made from this shape."""
    found = int(header["payload_bytes"])
    if header["flags"] & Flag.RAW:
        low = high = info.block_bytes
    else:
        low, high = payload_range(Scheme(header["scheme"]), info)
    if not low <= found <= high:
        limit = low if found < low else high
        raise fault(Status.BAD_PAYLOAD_BYTES, "payload_bytes", found, limit, "record damaged")


def payload_range(scheme: Scheme, info: BlockInfo) -> tuple[int, int]:
    """Least and most payload bytes of a coded (not raw) block."""
    if scheme == Scheme.INT4:
        exact = int4.payload_bytes(info.shape, info.kind_list)
        return exact, exact
    if scheme == Scheme.KLT:
        return rans.STATE_BYTES, info.block_bytes - 1
    if scheme == Scheme.LOSSLESS:
        values = len(info.kind_list) * info.kind_values
        return lossless.least_bytes(values, DType(info.dtype)), info.block_bytes - 1
    runs = -(-info.kind_values // int8_delta_rle.MAX_RUN)
    return 2 * runs * len(info.kind_list), info.block_bytes - 1


def decode_record(
    record: bytes, info: BlockInfo, codebook: Codebook | None = None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """record, and the block that it should be -> (k, v) as bit patterns, None where it lacks one.

    codebook: for records of scheme klt. uint16 (fp16, bf16) or uint32 (fp32) of (tokens, heads, head_dim);
    RecordError on any fault.
    """
    header = parse_header(record)
    check_block(info, Scheme.RAW)
    check_header(header, info)
    is_klt = header["scheme"] == Scheme.KLT and not header["flags"] & Flag.RAW
    book = book_of(info, codebook) if is_klt else None
    check_payload_bytes(header, info)
    start, end = len(header.tobytes()), len(header.tobytes()) + int(header["payload_bytes"])
    if end > len(record):
        raise fault(Status.RECORD_TOO_SMALL, "record bytes", len(record), end, "refetch the block")
    payload = record[start:end]
    found = crc32c(record[:COVERED] + payload)
    if found != header["crc32c"]:
        stated = int(header["crc32c"])
        raise fault(Status.BAD_CRC, "crc32c", found, stated, "record damaged; refetch the block")
    arrays = decode_payload(payload, header, info, book)
    return arrays.get(Kind.KEY), arrays.get(Kind.VALUE)


def decode_payload(
    payload: bytes, header: np.void, info: BlockInfo, book: klt.Book | None = None
) -> Arrays:
    """Bit patterns per kind from a payload whose checksum holds."""
    if header["flags"] & Flag.RAW:
        kinds = info.kind_list
        decoded = raw.decode(payload, len(kinds), info.shape, BITS[DType(info.dtype)])
        return dict(zip(kinds, decoded, strict=True))
    params = header["scheme_params"].tobytes()
    if header["scheme"] == Scheme.LOSSLESS:
        return lossless.decode(payload, params, Kind(info.kinds), info.shape, DType(info.dtype))
    fmt = FORMATS[DType(info.dtype)]
    if book is not None:
        return klt.decode(payload, params, info.tokens, fmt, book)
    coder = CODERS[Scheme(header["scheme"])]
    return coder.decode(payload, params, Kind(info.kinds), info.shape, fmt)
