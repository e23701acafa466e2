"""Which blocks of a layer sparse attention reads: a small score of history, key bounds, position and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speckv_pynq.errors import ConfigError, ShapeError
from speckv_pynq.prefetch.bounds import Floats, Index, KeyBounds
from speckv_pynq.prefetch.history import SLOW, History, blend
from speckv_pynq.prefetch.pointers import Pointers, pointed

FLOOR = np.float32(1e-6)  # of a share of attention, before its logarithm
ALWAYS, NEVER = np.float32(1e30), np.float32(-1e30)  # scores of forced blocks, of padding alone


@dataclass(frozen=True)
class Weights:
    """score = fast log(fast average) + slow log(slow average) + keys log(promise) - misled log(average promise)
    - age log(blocks from the end) + pointed (the largest weight of a pointer into the block).

    Averages are of shares of attention, a promise is the share that key bounds give a block for this step's query.
    The defaults are fitted on traces of two models, by coordinate search on the attention that the choice holds.
    """

    fast: float = 0.5
    slow: float = 0.4
    keys: float = 2.2
    misled: float = 0.3
    age: float = -0.3
    pointed: float = 0.15


DEFAULT = Weights()


class Ranker:
    """Scores of the blocks of `block_tokens` tokens, of each layer and row; all rows are of one length.

    A step, for each layer: `ahead` (before its query is there, for a prefetch), `extend` with the step's keys,
    `choose` with its queries, `observe` with the attention that the chosen blocks got. Nothing else is learned of
    blocks that are not chosen, as in real sparse decoding.

    The first `sink_blocks` and the last `recent_blocks` (the unfinished one is the last) are always chosen, and count
    in the budget. padding: (rows,) int64, tokens of padding at each row's left: sinks begin behind them, and blocks of
    padding alone are chosen last. scale: of the dot products, default head_dim ** -0.5.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        kv_heads: int,
        head_dim: int,
        *,
        block_tokens: int = 16,
        sink_blocks: int = 1,
        recent_blocks: int = 2,
        scale: float | None = None,
        padding: Index | None = None,
        weights: Weights = DEFAULT,
    ) -> None:
        counts = (layers, rows, kv_heads, head_dim, block_tokens, recent_blocks)
        if min(counts) < 1 or sink_blocks < 0:
            raise ConfigError(
                f"layers, rows, KV heads, head_dim, block_tokens, recent_blocks {counts}: each at least 1; "
                f"sink_blocks {sink_blocks}: at least 0"
            )
        self.sink_blocks, self.recent_blocks = sink_blocks, recent_blocks
        self.block_tokens, self.weights = block_tokens, weights
        self.scale = head_dim**-0.5 if scale is None else scale
        padding = np.zeros(rows, np.int64) if padding is None else padding
        self._first = padding // block_tokens
        self._keys = [KeyBounds(rows, kv_heads, head_dim, block_tokens) for _ in range(layers)]
        self._history = [History(rows) for _ in range(layers)]

    # ---- what the sequence is

    @property
    def rows(self) -> int:
        return len(self._first)

    @property
    def nbytes(self) -> int:
        """Bytes held of all layers: what is kept of keys, and histories."""
        return sum(k.nbytes + h.nbytes for k, h in zip(self._keys, self._history, strict=True))

    def blocks(self, layer: int) -> int:
        """Begun ones, the unfinished one included."""
        return self._keys[layer].blocks

    def forced(self, layer: int) -> int:
        """Blocks of a row that are always chosen: the least budget, once there are so many."""
        return min(self.blocks(layer), self.sink_blocks + self.recent_blocks)

    def extend(self, layer: int, keys: Floats) -> None:
        """Appends (rows, kv_heads, tokens, head_dim) float32 keys as attention uses them, RoPE applied."""
        held = self._keys[layer]
        rows, kv_heads, head_dim = held.shape
        if keys.ndim != 4 or (*keys.shape[:2], keys.shape[3]) != held.shape:
            raise ShapeError(f"keys {keys.shape}: not ({rows}, {kv_heads}, tokens, {head_dim})")
        held.extend(keys)
        self._history[layer].resize(held.blocks)

    def crop(self, length: int) -> None:
        """Keeps the first `length` tokens of all layers."""
        for held, history in zip(self._keys, self._history, strict=True):
            held.crop(length)
            history.resize(held.blocks)

    def select(self, rows: Index) -> None:
        """Row i becomes what row rows[i] is."""
        self._first = self._first[rows]
        for held, history in zip(self._keys, self._history, strict=True):
            held.select(rows)
            history.select(rows)

    # ---- what is read

    def scores(self, layer: int, query: Floats, pointers: Pointers | None = None) -> Floats:
        """(rows, blocks) float32, higher is better. query: (rows, q_heads, head_dim) float32, RoPE applied."""
        promise = self._promise(layer, query)
        return combined(self.weights, self._history[layer], promise, self._pointed(layer, pointers))

    def choose(
        self, layer: int, query: Floats, budget_blocks: int, pointers: Pointers | None = None
    ) -> Index:
        """(rows, min(budget_blocks, blocks)) int64 ascending: the blocks to read at this step.

        query: (rows, q_heads, head_dim) float32, RoPE applied; what its keys promise is remembered for `ahead`.
        """
        self._check_budget(layer, budget_blocks)
        promise, history = self._promise(layer, query), self._history[layer]
        scores = combined(self.weights, history, promise, self._pointed(layer, pointers))
        history.promise(promise)
        return self._best(scores, budget_blocks)

    def ahead(self, layer: int, budget_blocks: int, pointers: Pointers | None = None) -> Index:
        """As `choose`, by the query of the step before: what the next step will read, for a prefetch."""
        self._check_budget(layer, budget_blocks)
        history = self._history[layer]
        points = self._pointed(layer, pointers)
        latest = np.maximum(history.latest, 0)  # of a block begun since, nothing is known
        return self._best(combined(self.weights, history, latest, points), budget_blocks)

    def observe(self, layer: int, blocks: Index, mass: Floats) -> None:
        """Learns from attention: (rows, n) int64 blocks that were read, none twice, and the share each got of it.

        mass: (rows, n) float32, mean over query heads, so that a row sums to 1. After a dense prefill, the mass that
        its last query gives to all blocks is a good start.
        """
        if blocks.shape != mass.shape or blocks.ndim != 2 or len(blocks) != self.rows:
            raise ShapeError(f"blocks {blocks.shape}, mass {mass.shape}: not ({self.rows}, n) both")
        self._history[layer].observe(blocks, mass)

    # ---- inside

    def _promise(self, layer: int, query: Floats) -> Floats:
        rows, kv_heads, head_dim = self._keys[layer].shape
        if query.ndim != 3 or query.shape[::2] != (rows, head_dim) or query.shape[1] % kv_heads:
            raise ShapeError(
                f"query {query.shape}: not ({rows}, a multiple of {kv_heads}, {head_dim})"
            )
        return self._keys[layer].promise(query, self.scale)

    def _pointed(self, layer: int, pointers: Pointers | None) -> Floats | None:
        if pointers is None:
            return None
        return pointed(pointers, self.rows, self.blocks(layer), self.block_tokens)

    def _check_budget(self, layer: int, budget_blocks: int) -> None:
        least = self.forced(layer)
        if budget_blocks < least:
            raise ConfigError(f"budget_blocks {budget_blocks} < {least}, which are always chosen")

    def _best(self, scores: Floats, budget_blocks: int) -> Index:
        return best(scores, budget_blocks, self._first, self.sink_blocks, self.recent_blocks)


def combined(
    weights: Weights, history: History, promise: Floats, points: Floats | None = None
) -> Floats:
    """(rows, blocks) float32: the score. A block of which nothing was seen yet is taken at what its keys promise."""
    fast = np.where(history.fast < 0, promise, history.fast)
    slow = np.where(history.slow < 0, promise, history.slow)
    average = blend(history.promised, promise, SLOW)
    out = np.zeros_like(promise)
    for weight, share in (
        (weights.fast, fast),
        (weights.slow, slow),
        (weights.keys, promise),
        (-weights.misled, average),
    ):
        if weight:
            out += np.float32(weight) * np.log(share + FLOOR)
    if weights.age:
        blocks = promise.shape[1]
        out -= np.float32(weights.age) * np.log(blocks - np.arange(blocks, dtype=np.float32))
    if points is not None and weights.pointed:
        out += np.float32(weights.pointed) * points
    return out


def best(
    scores: Floats, budget_blocks: int, first: Index, sink_blocks: int, recent_blocks: int
) -> Index:
    """(rows, min(budget_blocks, blocks)) int64 ascending: the forced blocks and those of the highest scores.

    scores: (rows, blocks), of equal ones the earlier wins. first: (rows,) int64, each row's first block with a token.
    """
    at, first = np.arange(scores.shape[1]), first[:, None]
    scores = np.where(at < first, NEVER, scores)
    scores = np.where((at >= first) & (at < first + sink_blocks), ALWAYS, scores)
    scores[:, max(0, len(at) - recent_blocks) :] = ALWAYS
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.sort(order[:, :budget_blocks], axis=1)
