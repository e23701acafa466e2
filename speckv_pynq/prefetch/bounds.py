"""Bounds of the keys of each block (Quest, arXiv 2406.10774), and what share of attention they promise a query."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]
RUN_TOKENS = 8  # that share bounds: runs of half a block promise far better than whole blocks do
REACH = (
    0.35  # of the way from the middle of the bounds to the bound itself; fitted with the weights
)
FIRST_ROOM = 64  # blocks


class KeyBounds:
    """Of one layer: the largest and least value of each channel, over runs of `run_tokens` keys.

    Per row and KV head it holds 2 * head_dim float32 a run. The keys are those that attention multiplies with, RoPE
    applied. A crop leaves the bounds as they are: they stay bounds, though wider than need be.
    """

    def __init__(
        self,
        rows: int,
        kv_heads: int,
        head_dim: int,
        block_tokens: int,
        run_tokens: int = RUN_TOKENS,
    ) -> None:
        self.length = 0  # tokens
        self.block_tokens, self.run_tokens = block_tokens, min(run_tokens, block_tokens)
        room = FIRST_ROOM * block_tokens // self.run_tokens
        self._bounds = np.zeros((rows, kv_heads, room, 2, head_dim), np.float32)

    @property
    def rows(self) -> int:
        return len(self._bounds)

    @property
    def kv_heads(self) -> int:
        return int(self._bounds.shape[1])

    @property
    def head_dim(self) -> int:
        return int(self._bounds.shape[4])

    @property
    def blocks(self) -> int:
        """Those begun."""
        return -(-self.length // self.block_tokens)

    @property
    def runs(self) -> int:
        """Those begun."""
        return -(-self.length // self.run_tokens)

    @property
    def bounds(self) -> Floats:
        """(rows, kv_heads, runs, 2, head_dim): upper and lower bounds, a view."""
        return self._bounds[:, :, : self.runs]

    def extend(self, keys: Floats) -> None:
        """Appends (rows, kv_heads, tokens, head_dim) keys."""
        size, tokens = self.run_tokens, keys.shape[2]
        self._reserve(-(-(self.length + tokens) // size))
        inside = min(tokens, -self.length % size)  # what the last run still takes
        if inside:
            upper, lower = np.moveaxis(self._bounds[:, :, self.runs - 1], 2, 0)
            np.maximum(upper, keys[:, :, :inside].max(2), out=upper)
            np.minimum(lower, keys[:, :, :inside].min(2), out=lower)
        at, run = inside, -(-(self.length + inside) // size)
        whole = (tokens - inside) // size
        if whole:
            at += whole * size
            parts = keys[:, :, inside:at].reshape(*keys.shape[:2], whole, size, -1)
            self._set(run, run + whole, parts)
        if at < tokens:
            self._set(run + whole, run + whole + 1, keys[:, :, None, at:])
        self.length += tokens

    def promise(self, query: Floats, scale: float, reach: float = REACH) -> Floats:
        """(rows, blocks) float32: the share of attention that each block seems to have, mean over query heads.

        query: (rows, q_heads, head_dim) float32. Each run counts as one key, whose product with the query is `reach` of
        the way from the middle of what the bounds allow to the most: 1 is Quest's bound.
        """
        rows, q_heads, head_dim = query.shape
        grouped = (0.5 * scale * query).reshape(rows, self.kv_heads, -1, head_dim)
        spread = reach * np.abs(grouped)
        factors = np.concatenate((grouped + spread, grouped - spread), axis=-1)
        held = self.bounds.reshape(rows, self.kv_heads, self.runs, 2 * head_dim)
        powers = factors @ held.swapaxes(2, 3)
        powers -= powers.max(-1, keepdims=True)
        np.exp(powers, out=powers)
        powers /= powers.sum(-1, keepdims=True) * q_heads
        starts = np.arange(0, self.runs, self.block_tokens // self.run_tokens)
        return np.add.reduceat(powers.sum((1, 2)), starts, axis=1)

    def crop(self, length: int) -> None:
        """Keeps the first `length` tokens."""
        self.length = min(self.length, length)

    def select(self, rows: Index) -> None:
        """Row i becomes what row rows[i] is."""
        self._bounds = self._bounds[rows]

    def _set(self, first: int, end: int, parts: Floats) -> None:
        """parts: (rows, kv_heads, runs, tokens, head_dim)."""
        self._bounds[:, :, first:end, 0] = parts.max(3)
        self._bounds[:, :, first:end, 1] = parts.min(3)

    def _reserve(self, runs: int) -> None:
        room = self._bounds.shape[2]
        if runs > room:
            more = np.zeros_like(self._bounds[:, :, :1]).repeat(max(runs, 2 * room) - room, axis=2)
            self._bounds = np.concatenate((self._bounds, more), axis=2)
