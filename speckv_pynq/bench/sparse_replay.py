"""Sparse attention replayed on traces with the ranker's own parts: what a choice of blocks holds of real attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speckv_pynq.bench.attention_traces import AttentionTrace
from speckv_pynq.prefetch.bounds import Floats, Index, KeyBounds
from speckv_pynq.prefetch.history import History
from speckv_pynq.prefetch.pointers import Pointers, pointed
from speckv_pynq.prefetch.ranking import Weights, best, combined

BLOCK_TOKENS = 16
SINK_BLOCKS, RECENT_BLOCKS = 1, 2
Guess = Callable[[Index], tuple[Index, Floats]]  # (rows, n) tokens -> ids, shares: (rows, k) each


@dataclass(frozen=True)
class Scene:
    """Traces of one length as one batch: a row is a layer of a sequence, those of the first sequence first.

    tokens: (sequences, n) int64. mass: (steps, rows, q_heads, blocks) float16. promise, quest: (steps, rows, blocks)
    float32, the shares that blocks seem to have by what the product keeps of keys, and by Quest's bounds.
    """

    tokens: Index
    layers: int
    mass: npt.NDArray[np.float16]
    promise: Floats
    quest: Floats

    @property
    def steps(self) -> int:
        return len(self.mass)

    @property
    def rows(self) -> int:
        return int(self.mass.shape[1])

    @property
    def first(self) -> int:
        """Position of the first step."""
        return self.tokens.shape[1] - self.steps

    def blocks(self, step: int) -> int:
        return (self.first + step) // BLOCK_TOKENS + 1

    def budget(self, step: int, share: float) -> int:
        """Blocks that a row may read: a share of those there are, rounded up."""
        return max(SINK_BLOCKS + RECENT_BLOCKS, int(np.ceil(share * self.blocks(step))))


def prepare(
    traces: Sequence[AttentionTrace],
    advance: Callable[[float], None] = lambda traces: None,
) -> Scene:
    """Everything about the traces that no choice of blocks changes."""
    mass, promise, bound = [], [], []
    for trace in traces:
        layers = range(len(trace.keys))
        mass.append(np.stack([trace.mass(i, BLOCK_TOKENS).astype(np.float16) for i in layers], 1))
        promises = _promises(trace)
        promise.append(promises[0])
        bound.append(promises[1])
        advance(1)
    return Scene(
        np.stack([trace.tokens for trace in traces]),
        len(traces[0].keys),
        np.concatenate(mass, 1),
        np.concatenate(promise, 1),
        np.concatenate(bound, 1),
    )


def _promises(trace: AttentionTrace) -> tuple[Floats, Floats]:
    """(steps, layers, blocks) float32 each, 0 where no block is yet: by `KeyBounds`, and by Quest's bounds alone."""
    layers, kv_heads, tokens, head_dim = trace.keys.shape
    bounds = KeyBounds(layers, kv_heads, head_dim, BLOCK_TOKENS)
    bounds.extend(trace.keys[:, :, : trace.first].astype(np.float32))
    ours, quest = np.zeros(
        (2, trace.queries.shape[1], layers, -(-tokens // BLOCK_TOKENS)), np.float32
    )
    for step in range(len(ours)):
        at = trace.first + step
        bounds.extend(trace.keys[:, :, at : at + 1].astype(np.float32))
        query = trace.queries[:, step].astype(np.float32)
        ours[step, :, : bounds.blocks] = bounds.promise(query, trace.scale)
        most = trace.scale * bounds.most(query)
        powers = np.exp(most - most.max(2, keepdims=True))
        powers /= powers.sum(2, keepdims=True)
        quest[step, :, : bounds.blocks] = powers.mean(1)
    return ours, quest


def points(scene: Scene, look: Callable[[Index], Pointers | None]) -> list[Floats]:
    """Of each step (rows, blocks): what `look` at the tokens up to and with the step's, (sequences, n), points to."""
    out = []
    for step in range(scene.steps):
        blocks = scene.blocks(step)
        pointers = look(scene.tokens[:, : scene.first + step + 1])
        if pointers is None:
            found = np.zeros((len(scene.tokens), blocks), np.float32)
        else:
            found = pointed(pointers, len(scene.tokens), blocks, BLOCK_TOKENS)
        out.append(found.repeat(scene.layers, axis=0))
    return out


@dataclass(frozen=True)
class Run:
    """held: (steps, rows) float32, the share of attention that the chosen blocks hold; chosen: each step's blocks."""

    held: Floats
    chosen: list[Index]

    @property
    def mean(self) -> float:
        return float(self.held[1:].mean())


def replay(
    scene: Scene,
    share: float,
    weights: Weights | None,
    pointing: Sequence[Floats] | None = None,
    promise: Floats | None = None,
    visit: Callable[[int, History], None] = lambda step, history: None,
) -> Run:
    """Chooses at each step as a `Ranker` of these weights does; None: the oracle, by the step's own attention.

    The first step reads all blocks, as a dense prefill does, and does not count. visit: called after each step.
    """
    promise = scene.promise if promise is None else promise
    first = np.zeros(scene.rows, np.int64)
    history = History(scene.rows)
    held, chosen = np.ones((scene.steps, scene.rows), np.float32), []
    for step in range(scene.steps):
        blocks = scene.blocks(step)
        history.resize(blocks)
        mass = scene.mass[step, :, :, :blocks].astype(np.float32)
        now = promise[step, :, :blocks]
        if weights is None:
            scores = mass.mean(1)
        else:
            scores = combined(weights, history, now, pointing[step] if pointing else None)
            history.promise(now)
        budget = scene.budget(step, share) if step else blocks
        read = best(scores, budget, first, SINK_BLOCKS, RECENT_BLOCKS)
        seen = np.take_along_axis(mass, read[:, None], 2)
        held[step] = seen.sum(2).mean(1)
        if weights is not None:
            history.observe(read, (seen / seen.sum(2, keepdims=True)).mean(1))
        chosen.append(read)
        visit(step, history)
    return Run(held, chosen)
