"""Completions that are not ok, as typed errors that name block, value, limit and what to do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.block import BlockShape
from speckv_pynq.errors import AbiMismatch, DeviceError, RecordError, ShapeError, SpeckvError

_S = spec.Status
_DAMAGED = "record damaged; refetch the block"
_OTHER = "the record belongs to another block; refetch the block"
_CALL = "an offset or capacity of the call is wrong"

_ADVICE: dict[spec.Status, str] = {
    _S.MISALIGNED: f"{_CALL}: use multiples of {spec.LINE_BYTES}",
    _S.OUT_OF_RANGE: f"{_CALL}: it leaves its buffer",
    _S.BAD_SHAPE: "use a shape that kernels accept",
    _S.BAD_DTYPE: "use fp16 or bf16 blocks, or scheme raw for fp32",
    _S.BLOCK_TOO_LARGE: "split the block by head (BlockShape.split)",
    _S.RECORD_TOO_SMALL: _DAMAGED,
    _S.BAD_MAGIC: _DAMAGED,
    _S.BAD_VERSION: "made by another version of SpecKV; recompute the block",
    _S.SHAPE_MISMATCH: _OTHER,
    _S.IDENTITY_MISMATCH: _OTHER,
    _S.LAYOUT_MISMATCH: "made for another model, layout or RoPE; recompute the block",
    _S.CODEBOOK_MISMATCH: "made with another codebook; load that one",
    _S.BAD_PAYLOAD_BYTES: _DAMAGED,
    _S.BAD_CRC: _DAMAGED,
    _S.BAD_PAYLOAD: _DAMAGED,
    _S.BAD_FLAGS: _DAMAGED,
    _S.BUS_ERROR: "memory answered a read or write of this block with an error; look at the device's memory",
}
_IN_HEX = {_S.BAD_MAGIC, _S.BAD_CRC, _S.LAYOUT_MISMATCH, _S.CODEBOOK_MISMATCH}
_DEVICE = {_S.MISALIGNED, _S.OUT_OF_RANGE, _S.BUS_ERROR}
_SHAPE = {_S.BAD_DTYPE, _S.BAD_SHAPE, _S.BLOCK_TOO_LARGE}


def error_of(
    completions: npt.NDArray[np.void],
    ids: npt.NDArray[np.void],
    shape: BlockShape,
    layer_count: int = 1,
    *,
    decoding: bool,
) -> SpeckvError | None:
    """What the first completion that is not ok means; None when all are. ids: (n,) BLOCK_ID.

    layer_count: layers of a record.
    """
    failed = np.flatnonzero(completions["status"])
    if not len(failed):
        return None
    first = int(failed[0])
    code, value, limit = (int(completions[name][first]) for name in ("status", "value", "limit"))
    where = name_block(ids[first], shape, layer_count)
    if len(failed) > 1:
        where = f"{where} (and {len(failed) - 1} more of {len(completions)})"
    if code not in spec.Status.__members__.values():
        return DeviceError(f"{where}: unknown status {code}: device and package differ")
    status = spec.Status(code)
    shown = f"{value:#x}, limit {limit:#x}" if status in _IN_HEX else f"{value}, limit {limit}"
    text = f"{where}: {status.name.lower()} {shown}: "
    if status is _S.ABI_MISMATCH:
        return AbiMismatch(text + "rebuild the library or the overlay")
    if status in _SHAPE:
        return ShapeError(text + _ADVICE[status])
    if status in _DEVICE:
        return DeviceError(text + _ADVICE[status])
    if not decoding:
        advice = {
            _S.BAD_SCHEME: "this device does not have the scheme",
            _S.CODEBOOK_MISMATCH: "the device's codebook is not the one described; load it afresh",
            _S.RECORD_TOO_SMALL: f"the slot needs {shape.slot_bytes} bytes (BlockShape.slot_bytes)",
        }.get(status, "no kernel gives this status when coding: device and package differ")
        return DeviceError(text + advice)
    advice = _ADVICE.get(
        status, "the record's scheme is not one of this device; recompute the block"
    )
    return RecordError(text + advice, status=code, value=value, limit=limit)


def name_block(row: np.void, shape: BlockShape, layer_count: int = 1) -> str:
    """A block in words; row: one BLOCK_ID."""
    layer = int(row["layer"])
    layers = f"layers {layer}..{layer + layer_count - 1}" if layer_count > 1 else f"layer {layer}"
    position, head = int(row["first_position"]), int(row["first_head"])
    heads = int(row["heads"]) or shape.heads
    return (
        f"block of {layers}, positions {position}..{position + shape.tokens - 1}, "
        f"heads {head}..{head + heads - 1}"
    )
