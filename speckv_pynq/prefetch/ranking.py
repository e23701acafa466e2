"""Which blocks of a layer sparse attention should read: a small score from history, key bounds, position, prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import ConfigError, ShapeError
from speckv_pynq.prefetch.bounds import Floats, KeySummary

Index = npt.NDArray[np.int64]
RATES = {"fast": 0.3, "slow": 0.05}  # of the running averages of attention
FLOOR = 1e-6  # of a share of attention, before its logarithm
ALWAYS, NEVER = np.float32(1e30), np.float32(-1e30)  # scores of forced blocks, of padding alone
DEFAULT: Mapping[str, float] = {
    "fast": 0.5,
    "slow": 0.5,
    "bound": 0.5,
    "mean": 0.5,
    "predicted": 0.3,
}


class Candidates(NamedTuple):
    """Positions that a prediction of tokens points to: (rows, n) int64, -1 for none; and their weights, float32."""

    positions: Index
    weights: Floats


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
        weights: Mapping[str, float] = DEFAULT,
    ) -> None:
        if (
            min(layers, rows, kv_heads, head_dim, block_tokens, recent_blocks) < 1
            or sink_blocks < 0
        ):
            raise ConfigError(
                f"{layers} layers, {rows} rows, {kv_heads} heads of {head_dim}, {block_tokens} tokens a block, "
                f"{recent_blocks} recent blocks: each at least 1; sink_blocks {sink_blocks}: at least 0"
            )
        self.layers, self.block_tokens = layers, block_tokens
        self.sink_blocks, self.recent_blocks = sink_blocks, recent_blocks
        self.scale = head_dim**-0.5 if scale is None else scale
        self.weights = dict(weights)
        self._first = (np.zeros(rows, np.int64) if padding is None else padding) // block_tokens
        self._keys = [KeySummary(rows, kv_heads, head_dim, block_tokens) for _ in range(layers)]
        self._averages = [np.zeros((len(RATES), rows, 0), np.float32) for _ in range(layers)]
        self._queries: list[Floats | None] = [None] * layers

    # ---- what the sequence is

    @property
    def rows(self) -> int:
        return len(self._first)

    def blocks(self, layer: int) -> int:
        """Begun ones, the unfinished one included."""
        return self._keys[layer].blocks

    def forced(self, layer: int) -> int:
        """Blocks of a row that are always chosen: the least budget, once there are so many."""
        return min(self.blocks(layer), self.sink_blocks + self.recent_blocks)

    def extend(self, layer: int, keys: Floats) -> None:
        """Appends (rows, kv_heads, tokens, head_dim) float32 keys as attention uses them, RoPE applied."""
        summary = self._keys[layer]
        summary.extend(keys)
        old = self._averages[layer]
        new = summary.blocks - old.shape[2]
        if new > 0:
            self._averages[layer] = np.pad(old, ((0, 0), (0, 0), (0, new)))

    def crop(self, length: int) -> None:
        """Keeps the first `length` tokens of all layers."""
        for layer, summary in enumerate(self._keys):
            summary.crop(length)
            self._averages[layer] = self._averages[layer][:, :, : summary.blocks]

    def select(self, rows: Index) -> None:
        """Row i becomes what row rows[i] is."""
        self._first = self._first[rows]
        for layer, summary in enumerate(self._keys):
            summary.select(rows)
            self._averages[layer] = self._averages[layer][:, rows]
            query = self._queries[layer]
            self._queries[layer] = None if query is None else query[rows]

    # ---- what is read

    def scores(
        self, layer: int, query: Floats | None, candidates: Candidates | None = None
    ) -> Floats:
        """(rows, blocks) float32, higher is better. query: (rows, q_heads, head_dim) float32, or None for none."""
        weights, summary = self.weights, self._keys[layer]
        total = np.zeros((self.rows, summary.blocks), np.float32)
        for average, name in zip(self._averages[layer], RATES, strict=True):
            total += weights[name] * np.log(average + FLOOR)
        if query is not None:
            bound, mean = self._estimates(summary, query)
            total += weights["bound"] * np.log(bound + FLOOR)
            total += weights["mean"] * np.log(mean + FLOOR)
        if candidates is not None:
            total += weights["predicted"] * self._pointed(summary.blocks, candidates)
        return total

    def choose(
        self, layer: int, query: Floats, budget_blocks: int, candidates: Candidates | None = None
    ) -> Index:
        """(rows, min(budget_blocks, blocks)) int64 ascending: the blocks to read. Remembers the query for `ahead`."""
        chosen = self._best(layer, self.scores(layer, query, candidates), budget_blocks)
        self._queries[layer] = query
        return chosen

    def ahead(self, layer: int, budget_blocks: int, candidates: Candidates | None = None) -> Index:
        """As `choose`, but by the query of the step before: what a prefetch for the next step should bring."""
        return self._best(
            layer, self.scores(layer, self._queries[layer], candidates), budget_blocks
        )

    def observe(self, layer: int, blocks: Index, mass: Floats) -> None:
        """Learns from attention: (rows, n) blocks that were read, and the share of attention each got.

        mass: (rows, n) float32, mean over query heads, so that a row sums to 1. After a dense prefill, the mass of the
        last query over all blocks is a good start.
        """
        if blocks.shape != mass.shape or blocks.shape[0] != self.rows:
            raise ShapeError(
                f"blocks {blocks.shape}, mass {mass.shape}: (rows {self.rows}, n) each"
            )
        for average, rate in zip(self._averages[layer], RATES.values(), strict=True):
            old = np.take_along_axis(average, blocks, 1)
            np.put_along_axis(average, blocks, old + rate * (mass - old), 1)

    # ---- inside

    def _estimates(self, summary: KeySummary, query: Floats) -> tuple[Floats, Floats]:
        """Shares of attention, (rows, blocks) each: by the bounds of the keys, by their means."""
        rows, q_heads, head_dim = query.shape
        kv_heads = summary.upper.shape[1]
        grouped = (self.scale * query).reshape(rows, kv_heads, q_heads // kv_heads, head_dim)
        bound = np.maximum(grouped, 0) @ summary.upper.swapaxes(2, 3)
        bound += np.minimum(grouped, 0) @ summary.lower.swapaxes(2, 3)
        return _shares(bound), _shares(grouped @ summary.mean.swapaxes(2, 3))

    def _pointed(self, blocks: int, candidates: Candidates) -> Floats:
        """(rows, blocks): the weights of the candidates in each block, summed."""
        positions, weights = candidates
        out = np.zeros((self.rows, blocks), np.float32)
        rows, places = np.nonzero((positions >= 0) & (positions < blocks * self.block_tokens))
        np.add.at(out, (rows, positions[rows, places] // self.block_tokens), weights[rows, places])
        return out

    def _best(self, layer: int, scores: Floats, budget_blocks: int) -> Index:
        blocks, least = self.blocks(layer), self.forced(layer)
        if budget_blocks < least:
            raise ConfigError(f"budget_blocks {budget_blocks} < {least}, which are always chosen")
        if budget_blocks >= blocks:
            return np.broadcast_to(np.arange(blocks), (self.rows, blocks)).copy()
        at = np.arange(blocks)
        first = self._first[:, None]
        scores[at < first] = NEVER
        scores[(at >= first) & (at < first + self.sink_blocks)] = ALWAYS
        scores[:, max(0, blocks - self.recent_blocks) :] = ALWAYS
        return np.sort(
            np.argpartition(-scores, budget_blocks - 1, axis=1)[:, :budget_blocks], axis=1
        )


def _shares(logits: Floats) -> Floats:
    """(rows, blocks): softmax over blocks, mean over heads, of (rows, kv_heads, group, blocks)."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    powers /= powers.sum(-1, keepdims=True)
    return powers.mean((1, 2))
