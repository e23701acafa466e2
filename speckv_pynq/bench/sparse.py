"""Sparse attention: what the ranker's choice holds of attention, what each signal adds, what a prefetch wastes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from speckv_pynq.bench.sparse_guesses import Guess
from speckv_pynq.bench.sparse_replay import (
    BLOCK_TOKENS,
    Run,
    Scene,
    points,
    replay,
)  # fmt: skip
from speckv_pynq.prefetch.bounds import Floats, Index
from speckv_pynq.prefetch.pointers import Pointers, following, joined, standing
from speckv_pynq.prefetch.ranking import DEFAULT, Ranker, Weights

SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the blocks, that a step reads
ABLATION_SHARE = 1 / 4
NOTHING = Weights(fast=0, slow=0, keys=0, misled=0, age=0, pointed=0)
ALONE = {
    "history, fast average": replace(NOTHING, fast=1),
    "history, slow average": replace(NOTHING, slow=1),
    "keys": replace(NOTHING, keys=1),
    "position": replace(NOTHING, age=1),
    "tokens": replace(NOTHING, pointed=1),
}
CHUNK_STEPS = 32  # of one sequence: what a bootstrap draws
DRAWS = 2000


@dataclass(frozen=True)
class Contribution:
    """Points of attention mass that a signal adds, with a 95 % bootstrap interval over chunks of sequences."""

    signal: str
    points: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """Of one layer of SmolLM2 at 4096 tokens: bytes a block and KV head, and CPU time of one choice."""

    bytes_per_block: int
    block_bytes: int  # its K and V in FP16
    choose_us: float


def known(tokens: Index) -> Pointers:
    """What followed earlier uses of the newest token: no prediction is needed for that."""
    return following(tokens[:, :-1], tokens[:, -1:], np.ones((len(tokens), 1), np.float32))


def masses(
    scene: Scene, share: float, pointing: list[Floats], fitted: Weights | None = None
) -> dict[str, float]:
    """Share of attention held by what each ranking chooses."""
    out = {
        "oracle": replay(scene, share, None).mean,
        "all signals": replay(scene, share, DEFAULT, pointing).mean,
    }
    if fitted is not None:
        out["all signals, fitted"] = replay(scene, share, fitted, pointing).mean
    for name, weights in ALONE.items():
        out[name] = replay(scene, share, weights, pointing).mean
    quest = replay(scene, share, ALONE["keys"], promise=scene.quest)
    return {**out, "Quest's bounds": quest.mean}


def ablation(
    scene: Scene, share: float, pointing: list[Floats], predictors: Mapping[str, Guess]
) -> list[Contribution]:
    """What each signal adds to all others, at one budget; what guesses of the next token add to all known ones."""
    whole = replay(scene, share, DEFAULT, pointing)
    without = {
        "history": replace(DEFAULT, fast=0, slow=0),
        "keys": replace(DEFAULT, keys=0, misled=0),
        "keys, their average": replace(DEFAULT, misled=0),
        "position": replace(DEFAULT, age=0),
        "the newest token": replace(DEFAULT, pointed=0),
    }
    out = [
        _contribution(scene, name, whole, replay(scene, share, weights, pointing))
        for name, weights in without.items()
        if weights != DEFAULT
    ]
    for name, guess in predictors.items():
        wider = points(scene, partial(_with_guess, guess))
        more = replay(scene, share, DEFAULT, wider)
        out.append(_contribution(scene, f"next token: {name}", more, whole))
    return out


def _with_guess(guess: Guess, tokens: Index) -> Pointers:
    """For a step whose token is known: where the tokens stand that it may give."""
    return joined(known(tokens), standing(tokens, *guess(tokens)))


def _contribution(scene: Scene, signal: str, more: Run, less: Run) -> Contribution:
    gain = 100 * (more.held - less.held)[1:].reshape(scene.steps - 1, -1, scene.layers).mean(2)
    count = -(-len(gain) // CHUNK_STEPS)
    units = np.concatenate([part.mean(0) for part in np.array_split(gain, count)])
    draws = np.random.default_rng(0).integers(0, len(units), (DRAWS, len(units)))
    low, high = np.quantile(units[draws].mean(1), (0.025, 0.975))
    return Contribution(signal, float(gain.mean()), float(low), float(high))


def cost(repeats: int = 50) -> Cost:
    """Times `Ranker.choose` on random keys."""
    kv_heads, head_dim, tokens = 3, 64, 4096
    rng = np.random.default_rng(0)
    ranker = Ranker(1, 1, kv_heads, head_dim)
    ranker.extend(0, rng.normal(size=(1, kv_heads, tokens, head_dim)).astype(np.float32))
    spans = []
    for _ in range(repeats):
        query = rng.normal(size=(1, 3 * kv_heads, head_dim)).astype(np.float32)
        start = time.thread_time()
        ranker.choose(0, query, tokens // BLOCK_TOKENS // 4)
        spans.append(time.thread_time() - start)
    held = 2 * 4 * head_dim + BLOCK_TOKENS * head_dim // 8
    return Cost(held, 2 * 2 * BLOCK_TOKENS * head_dim, 1e6 * float(np.median(spans)))
