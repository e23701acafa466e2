"""What is kept of the keys of each block: bounds of each channel (Quest, arXiv 2406.10774) and their mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
FIRST_ROOM = 64  # blocks


class KeySummary:
    """Of one layer: per row, KV head and block of `block_tokens` keys, the channels' maxima, minima and means.

    The keys are those that attention multiplies with, RoPE applied. A crop leaves the bounds as they are: they stay
    bounds, though wider than they need be, and the mean is that of the tokens before the crop until the block refills.
    """

    def __init__(self, rows: int, kv_heads: int, head_dim: int, block_tokens: int) -> None:
        self.length = 0  # tokens
        self.block_tokens = block_tokens
        self._parts = np.empty((3, rows, kv_heads, FIRST_ROOM, head_dim), np.float32)

    @property
    def rows(self) -> int:
        return int(self._parts.shape[1])

    @property
    def blocks(self) -> int:
        """Those begun."""
        return -(-self.length // self.block_tokens)

    @property
    def upper(self) -> Floats:
        """(rows, kv_heads, blocks, head_dim), a view."""
        return self._parts[0, :, :, : self.blocks]

    @property
    def lower(self) -> Floats:
        """(rows, kv_heads, blocks, head_dim), a view."""
        return self._parts[1, :, :, : self.blocks]

    @property
    def mean(self) -> Floats:
        """(rows, kv_heads, blocks, head_dim), a view."""
        return self._parts[2, :, :, : self.blocks]

    def extend(self, keys: Floats) -> None:
        """Appends (rows, kv_heads, tokens, head_dim) keys."""
        size, tokens = self.block_tokens, keys.shape[2]
        self._reserve(-(-(self.length + tokens) // size))
        inside = -self.length % size  # what the last block still takes
        if inside and tokens:
            self._widen(keys[:, :, :inside])
        whole = max(0, tokens - inside) // size
        if whole:
            at = inside + whole * size
            parts = keys[:, :, inside:at].reshape(*keys.shape[:2], whole, size, keys.shape[3])
            new = self._parts[:, :, :, self.blocks : self.blocks + whole]
            new[0], new[1], new[2] = parts.max(3), parts.min(3), parts.mean(3)
            self.length += whole * size
            inside = at
        if tokens > inside:
            self._begin(keys[:, :, inside:])

    def crop(self, length: int) -> None:
        """Keeps the first `length` tokens."""
        self.length = min(self.length, length)

    def select(self, rows: npt.NDArray[np.int64]) -> None:
        """Row i becomes what row rows[i] is."""
        self._parts = np.ascontiguousarray(self._parts[:, rows])

    def _widen(self, keys: Floats) -> None:
        block, held = self.length // self.block_tokens, self.length % self.block_tokens
        upper, lower, mean = self._parts[:, :, :, block]
        np.maximum(upper, keys.max(2), out=upper)
        np.minimum(lower, keys.min(2), out=lower)
        mean += (keys.sum(2) - keys.shape[2] * mean) / (held + keys.shape[2])
        self.length += keys.shape[2]

    def _begin(self, keys: Floats) -> None:
        new = self._parts[:, :, :, self.blocks]
        new[0], new[1], new[2] = keys.max(2), keys.min(2), keys.mean(2)
        self.length += keys.shape[2]

    def _reserve(self, blocks: int) -> None:
        room = self._parts.shape[3]
        if blocks > room:
            shape = list(self._parts.shape)
            shape[3] = max(blocks, 2 * room)
            parts = np.empty(shape, np.float32)
            parts[:, :, :, : self.blocks] = self._parts[:, :, :, : self.blocks]
            self._parts = parts
