"""One block written, read back and compared: shows a device that answers, but wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.block import EXACT_SCHEMES, NUMPY_DTYPES, BlockShape, block_ids
from speckv_pynq.codebook import Codebook, Tables, Unit, padded
from speckv_pynq.errors import DeviceError, RecordError

if TYPE_CHECKING:
    from speckv_pynq.codec import Codec

# Root mean square error over root mean square value, for sample_block. Loose on purpose: quality
# is measured elsewhere, this only tells a working kernel from a broken one.
MAX_RELATIVE_ERROR = 0.2
POSITION = 64  # of the block that is sent
KLT_STEPS = 2  # largest quantised value of a klt sample


def self_test(codec: Codec, seed: int = 0) -> None:
    """DeviceError when a block does not come back, or when a damaged record is not refused."""
    codebook = None if codec.codebook is None else codec.codebook.codebook
    if codebook is None:
        layer, (k, v) = 1, sample_block(codec.shape, seed)
    else:
        layer, (k, v) = codebook.units[0].first_layer, klt_sample(codec.shape, codebook, seed)
    ids = block_ids(layer, POSITION)
    records = codec.encode_arrays(k, v, ids)
    name = f"{codec.device.name}, scheme {codec.scheme.name.lower()}"
    if records != codec.encode_arrays(k, v, ids):
        raise DeviceError(f"self-test of {name}: the same block gave two different records")
    got_kv = codec.decode_arrays(records, ids)
    if codebook is not None:
        _compare_with_reference(name, records[0], got_kv, codec, codebook)
    for kind, sent, got in zip("kv", (k, v), got_kv, strict=True):
        if codebook is None and sent is not None and got is not None:
            _compare(f"{name}: {kind}", sent, got, codec)
    damaged = bytearray(records[0])
    damaged[spec.RECORD_HEADER.itemsize] ^= 1
    try:
        codec.decode_arrays([bytes(damaged)], ids)
    except RecordError:
        return
    raise DeviceError(f"self-test of {name}: a record with a wrong bit was decoded")


def sample_block(
    shape: BlockShape, seed: int
) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
    """K and V, (1, tokens, heads, head_dim) each: normal values in runs of 16: all schemes pay."""
    rng = np.random.default_rng(seed)
    size = (1, shape.tokens, shape.heads, shape.head_dim // 16)
    arrays = [np.repeat(rng.standard_normal(size, np.float32), 16, axis=-1) for _ in "kv"]
    dtype = NUMPY_DTYPES[shape.dtype]
    if shape.dtype == spec.DType.BF16:
        arrays = [(array.view(np.uint32) >> 16).astype(dtype) for array in arrays]
    k, v = (array.astype(dtype) for array in arrays)
    return (
        k if shape.kinds & spec.Kind.KEY else None,
        v if shape.kinds & spec.Kind.VALUE else None,
    )


def klt_sample(
    shape: BlockShape, codebook: Codebook, seed: int
) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
    """K and V as in sample_block, of what the codebook's first unit expects: a few steps around its mean."""
    from speckv_pynq.reference import klt
    from speckv_pynq.reference.floats import FORMATS

    unit = codebook.units[0]
    most = np.minimum(unit.limit, KLT_STEPS).astype(np.int64)
    q = np.random.default_rng(seed).integers(-most, most + 1, (shape.tokens, unit.rank))
    book = klt.Book(unit, codebook.tables, POSITION)
    bits = klt.reconstruct(q, book, FORMATS[shape.dtype])
    dtype = NUMPY_DTYPES[shape.dtype]
    k, v = (
        np.ascontiguousarray(bits[kind]).view(dtype)[None] if kind in bits else None
        for kind in (spec.Kind.KEY, spec.Kind.VALUE)
    )
    return k, v


def sample_codebook(shape: BlockShape) -> Codebook:
    """One that only shows whether kernels work: it keeps some channels, of one layer, in steps of a quarter."""
    n = shape.kinds.bit_count() * shape.heads * shape.head_dim
    rank, pairs = min(64, n), shape.head_dim // 2
    kept = np.arange(rank) * n // rank
    analysis = np.zeros((rank, padded(n)), np.int16)
    synthesis = np.zeros((n, padded(rank)), np.int16)
    analysis[np.arange(rank), kept] = 256
    synthesis[kept, np.arange(rank)] = 2048
    unit = Unit(
        first_layer=0,
        layer_count=1,
        heads=shape.heads,
        head_dim=shape.head_dim,
        kinds=shape.kinds,
        transforms=1,
        apart=False,
        interleaved=False,
        turns=np.uint64(1 << 60) >> np.arange(pairs, dtype=np.uint64),
        exponent=np.full(n, 10, np.int8),
        mean=np.zeros(n, np.int32),
        in_shift=np.zeros(n, np.uint8),
        out_shift=np.full(n, 3, np.uint8),
        ranks=np.array([rank], np.uint16),
        analysis=analysis,
        rounding=np.full(rank, 1 << 15, np.int32),
        shift=np.full(rank, 16, np.uint8),
        limit=np.full(rank, 100, np.int16),
        classes=np.zeros((spec.KLT_TABLE_SETS, rank), np.uint8),
        synthesis=synthesis,
    )
    symbols = spec.ENTROPY_SYMBOLS
    frequency = np.full((1, symbols), (1 << spec.ENTROPY_BITS) // symbols, np.uint16)
    raw_bits, half = np.zeros(1, np.uint8), np.full(1, symbols // 2 - 1, np.uint8)
    tables = Tables(frequency, Tables.costs(frequency, raw_bits, half), raw_bits, half)
    return Codebook((unit,), tables)


def _compare_with_reference(
    name: str,
    record: bytes,
    got: tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None],
    codec: Codec,
    codebook: Codebook,
) -> None:
    from speckv_pynq.reference import BlockInfo, decode_record

    shape, unit = codec.shape, codebook.units[0]
    info = BlockInfo(
        *(shape.tokens, shape.heads, shape.head_dim, shape.dtype, shape.kinds),
        first_position=POSITION,
        first_layer=unit.first_layer,
        layer_count=unit.layer_count,
        layout_fingerprint=codec.layout_fingerprint,
        codebook_fingerprint=codebook.fingerprint,
    )
    for kind, mine, wanted in zip("kv", got, decode_record(record, info, codebook), strict=True):
        if mine is not None and wanted is not None and mine.tobytes() != wanted.tobytes():
            raise DeviceError(f"self-test of {name}: {kind} is not what the reference decodes")


def _compare(name: str, sent: npt.NDArray[Any], got: npt.NDArray[Any], codec: Codec) -> None:
    if codec.scheme in EXACT_SCHEMES:
        if sent.tobytes() != got.tobytes():
            raise DeviceError(f"self-test of {name}: an exact scheme did not return the same bytes")
        return
    want, have = (_as_float64(array, codec.shape) for array in (sent, got))
    error = float(np.sqrt(np.mean((want - have) ** 2) / np.mean(want**2)))
    if not error <= MAX_RELATIVE_ERROR:  # a NaN fails too
        raise DeviceError(f"self-test of {name}: relative error {error:.3g} > {MAX_RELATIVE_ERROR}")


def _as_float64(array: npt.NDArray[Any], shape: BlockShape) -> npt.NDArray[np.float64]:
    if shape.dtype == spec.DType.BF16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)
