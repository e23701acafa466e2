"""What is kept of each block's keys: bounds (Quest, arXiv 2406.10774), and which half of them each key lies in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speckv_pynq.native import key_promise

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]
FIRST_ROOM = 64  # blocks


class KeyBounds:
    """Of one layer: per row, KV head and block, each channel's largest and least value, and a bit a key and channel.

    The bit says whether the key lies in the upper half of the bounds; a key counts as the middle of its half. A block
    costs 2 * head_dim float32 and block_tokens * head_dim bits a KV head; the keys of the unfinished one are held as
    they are. Keys are those that attention multiplies with, RoPE applied.
    """

    def __init__(self, rows: int, kv_heads: int, head_dim: int, block_tokens: int) -> None:
        self.length = 0  # tokens
        self.block_tokens = block_tokens
        size = (rows, kv_heads, FIRST_ROOM)
        self._bounds = np.zeros((*size, 2, head_dim), np.float32)  # upper, lower
        self._halves = np.zeros((*size, block_tokens, -(-head_dim // 8)), np.uint8)
        self._open = np.zeros((rows, kv_heads, block_tokens, head_dim), np.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, KV heads, head_dim."""
        rows, kv_heads, _, head_dim = self._open.shape
        return rows, kv_heads, head_dim

    @property
    def nbytes(self) -> int:
        """Bytes held, room for growth included."""
        return self._bounds.nbytes + self._halves.nbytes + self._open.nbytes

    @property
    def blocks(self) -> int:
        """Those begun."""
        return -(-self.length // self.block_tokens)

    def extend(self, keys: Floats) -> None:
        """Appends (rows, kv_heads, tokens, head_dim) keys."""
        size, tokens, at = self.block_tokens, keys.shape[2], 0
        self._reserve(-(-(self.length + tokens) // size))
        while at < tokens:
            block, held = divmod(self.length, size)
            count = min(tokens - at, size - held)
            if not held and tokens - at >= size:  # whole blocks, all at once
                whole = (tokens - at) // size
                count = whole * size
                parts = keys[:, :, at : at + count]
                self._close(block, parts.reshape(*keys.shape[:2], whole, size, -1))
            else:
                self._grow(block, held, keys[:, :, at : at + count])
            self.length += count
            at += count

    def promise(self, query: Floats, scale: float) -> Floats:
        """(rows, blocks) float32: the share of attention that each block seems to have, mean over query heads.

        query: (rows, q_heads, head_dim) float32.
        """
        return key_promise(
            self._bounds, self._halves, self._open, self.length, np.float32(scale) * query
        )

    def most(self, query: Floats) -> Floats:
        """(rows, q_heads, blocks) float32: Quest's bound, the largest product with a key that the bounds allow."""
        rows, kv_heads, head_dim = self.shape
        grouped = query.reshape(rows, kv_heads, -1, head_dim)
        factors = np.concatenate((np.maximum(grouped, 0), np.minimum(grouped, 0)), axis=-1)
        held = self._bounds[:, :, : self.blocks].reshape(rows, kv_heads, -1, 2 * head_dim)
        return (factors @ held.swapaxes(2, 3)).reshape(rows, query.shape[1], -1)

    def crop(self, length: int) -> None:
        """Keeps the first `length` tokens. A block that is cut keeps its bounds, and its keys as its bits tell them."""
        if length >= self.length:
            return
        block, held = divmod(length, self.block_tokens)
        if held and block < self.length // self.block_tokens:
            self._open[:] = self._keys(block)
        self.length = length

    def select(self, rows: Index) -> None:
        """Row i becomes what row rows[i] is."""
        self._bounds, self._halves = self._bounds[rows], self._halves[rows]
        self._open = self._open[rows]

    # ---- inside

    def _keys(self, block: int) -> Floats:
        """(rows, kv_heads, block_tokens, head_dim) float32: the middles of the halves."""
        upper, lower = np.moveaxis(self._bounds[:, :, block, :, None], 2, 0)
        bits = np.unpackbits(self._halves[:, :, block], axis=-1, count=self._open.shape[3])
        return lower + (upper - lower) * (np.float32(0.25) + np.float32(0.5) * bits)

    def _grow(self, block: int, held: int, keys: Floats) -> None:
        """Tokens of a block that others have begun, or will end."""
        upper, lower = np.moveaxis(self._bounds[:, :, block], 2, 0)
        most, least = keys.max(2), keys.min(2)
        upper[:] = np.maximum(upper, most) if held else most
        lower[:] = np.minimum(lower, least) if held else least
        self._open[:, :, held : held + keys.shape[2]] = keys
        if held + keys.shape[2] == self.block_tokens:
            self._code(block, self._open[:, :, None])

    def _close(self, block: int, parts: Floats) -> None:
        """parts: (rows, kv_heads, blocks, block_tokens, head_dim)."""
        held = self._bounds[:, :, block : block + parts.shape[2]]
        held[:, :, :, 0], held[:, :, :, 1] = parts.max(3), parts.min(3)
        self._code(block, parts)

    def _code(self, block: int, parts: Floats) -> None:
        end = block + parts.shape[2]
        middle = self._bounds[:, :, block:end].mean(3, keepdims=True)
        self._halves[:, :, block:end] = np.packbits(parts > middle, axis=-1)

    def _reserve(self, blocks: int) -> None:
        room = self._bounds.shape[2]
        if blocks > room:
            more = ((0, 0), (0, 0), (0, max(blocks, 2 * room) - room), (0, 0), (0, 0))
            self._bounds, self._halves = np.pad(self._bounds, more), np.pad(self._halves, more)
