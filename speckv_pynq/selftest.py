"""One block written, read back and compared: shows a device that answers, but wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.block import NUMPY_DTYPES, BlockShape, block_ids
from speckv_pynq.errors import DeviceError, RecordError

if TYPE_CHECKING:
    from speckv_pynq.codec import Codec

# Root mean square error over root mean square value, for sample_block. Loose on purpose: quality
# is measured elsewhere, this only tells a working kernel from a broken one.
MAX_RELATIVE_ERROR = 0.2


def self_test(codec: Codec, seed: int = 0) -> None:
    """DeviceError when a block does not come back, or when a damaged record is not refused."""
    k, v = sample_block(codec.shape, seed)
    ids = block_ids(1, 64)
    records = codec.encode_arrays(k, v, ids)
    name = f"{codec.device.name}, scheme {codec.scheme.name.lower()}"
    if records != codec.encode_arrays(k, v, ids):
        raise DeviceError(f"self-test of {name}: the same block gave two different records")
    for kind, sent, got in zip("kv", (k, v), codec.decode_arrays(records, ids), strict=True):
        if sent is not None and got is not None:
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


def _compare(name: str, sent: npt.NDArray[Any], got: npt.NDArray[Any], codec: Codec) -> None:
    if codec.scheme in (spec.Scheme.RAW, spec.Scheme.LOSSLESS):
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
