"""Where blocks stand in a strided K and V, checked; packing and unpacking there."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speckv_pynq.block import BlockShape
from speckv_pynq.device.protocol import DeviceBuffer
from speckv_pynq.errors import ShapeError
from speckv_pynq.native import U32, U64, SlotLayout, Workers, pack_blocks, unpack_blocks
from speckv_pynq.tiers.strided import StridedKV

Selection = slice | npt.NDArray[np.intp]


@dataclass(frozen=True)
class Places:
    """n blocks: batch row and first token of each. rows, tokens: (n,)."""

    shape: BlockShape
    kv: StridedKV
    rows: U32
    tokens: U32

    @classmethod
    def of(
        cls, shape: BlockShape, rows: npt.ArrayLike, tokens: npt.ArrayLike, kv: StridedKV
    ) -> Places:
        """ShapeError when kv is not made for the shape; ValueError when a block leaves it."""
        batch, heads, length, head_dim = kv.shape
        if (heads, head_dim, kv.kinds) != (shape.heads, shape.head_dim, shape.kinds):
            raise ShapeError(
                f"tensors have {heads} heads x {head_dim}, {kv.kinds!r}; "
                f"blocks {shape.heads} x {shape.head_dim}, {shape.kinds!r}"
            )
        rows, tokens = np.asarray(rows), np.asarray(tokens)
        if rows.ndim != 1 or rows.shape != tokens.shape:
            raise ValueError(f"rows {rows.shape} and offsets {tokens.shape} are not one (n,)")
        if rows.size:
            _check("row", rows, batch - 1)
            _check("offset", tokens, length - shape.tokens)
        return cls(shape, kv, rows.astype(np.uint32), tokens.astype(np.uint32))

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, which: Selection) -> Places:
        """Some of the blocks."""
        return Places(self.shape, self.kv, self.rows[which], self.tokens[which])

    def pack(self, memory: DeviceBuffer, slots: U64, workers: Workers) -> int:
        """Copies them into slots, bytes from memory's start; how many finite values overflowed."""
        return sum(
            pack_blocks(
                memory.array, slots + np.uint64(at), layout, self.kv.key, self.kv.value,
                self.rows, self.tokens, workers,
            )
            for at, layout in _parts(self.shape)
        )  # fmt: skip

    def unpack(self, memory: DeviceBuffer, slots: U64, workers: Workers) -> None:
        """Copies slots here."""
        for at, layout in _parts(self.shape):
            unpack_blocks(
                memory.array, slots + np.uint64(at), layout, self.kv.key, self.kv.value,
                self.rows, self.tokens, workers,
            )  # fmt: skip


@functools.cache
def _parts(shape: BlockShape) -> list[tuple[int, SlotLayout]]:
    """A slot holds the parts of a block one after the other: (offset, layout) of each."""
    one_head = shape.head_bytes * shape.kinds.bit_count()
    return [
        (first * one_head, SlotLayout(shape.tokens, heads, shape.head_dim, shape.dtype, first))
        for first, heads in shape.split()
    ]


def _check(name: str, values: npt.NDArray[np.integer], most: int) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > most:
        raise ValueError(f"{name} {low if low < 0 else high} is not within 0..{most}")
