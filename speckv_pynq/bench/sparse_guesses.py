"""Guesses of the next token for sparse attention: the truth, a copy of the past, the token predictor, any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.predictor import Predictor
from speckv_pynq.prefetch.bounds import Floats, Index
from speckv_pynq.prefetch.tokens import TokenPredictor

LONGEST = 4  # tokens of context that a copy goes by
GUESSES = 4
SCORE_ONE = 1024.0  # of the token predictor's scores
Guess = Callable[[Index], tuple[Index, Floats]]  # (rows, n) tokens so far -> ids, shares: (rows, k)


def truth(tokens: Index) -> Guess:
    """Knows what comes, (rows, all) int64: the most that a predictor could give."""

    def guess(so_far: Index) -> tuple[Index, Floats]:
        n = so_far.shape[1]
        if n == tokens.shape[1]:  # nothing comes
            return nothing(so_far)
        return tokens[:, n : n + 1], np.ones((len(tokens), 1), np.float32)

    return guess


def nothing(so_far: Index) -> tuple[Index, Floats]:
    """No guess."""
    return np.full((len(so_far), 1), -1, np.int64), np.zeros((len(so_far), 1), np.float32)


def copied(tokens: Index) -> Index:
    """What followed the longest earlier matches of the newest of (n,) tokens, the newest match first; -1 for none."""
    found: list[int] = []
    for length in range(min(LONGEST, len(tokens) - 1), 0, -1):
        windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], length)
        matches = np.flatnonzero((windows == tokens[-length:]).all(1)) + length
        found = list(dict.fromkeys([*found, *tokens[matches[::-1]].tolist()]))[:GUESSES]
    return np.array(found + [-1] * (GUESSES - len(found)), np.int64)


def trained(path: Path, tokens: Index, first: int) -> Guess:
    """What the token predictor of that file gives, on csim, for (rows, n) tokens from position `first` on.

    The shares are the softmax of its best guesses' scores.
    """
    found: dict[int, tuple[Index, Floats]] = {}
    rows, length = tokens.shape
    capacity = 1 << (length - 1).bit_length()
    with (
        CsimDevice(1) as device,
        TokenPredictor(device, Predictor.load(path), capacity, rows) as predictor,
    ):
        for row in range(rows):
            predictor.open(row)
            predictor.extend(row, tokens[row, :first])
        for n in range(first, length):
            best = predictor.step(np.arange(rows), tokens[:, n], GUESSES)
            powers = np.exp((best.score - best.score.max(1, keepdims=True)) / SCORE_ONE)
            shares = powers / powers.sum(1, keepdims=True)
            found[n + 1] = best.token.astype(np.int64), shares.astype(np.float32)
    return lambda so_far: found[so_far.shape[1]]


def by_row(predict: Callable[[Index], Index]) -> Guess:
    """A predictor of one sequence, (n,) tokens so far -> (k,) ids, for all rows; its guesses count alike."""

    def guess(so_far: Index) -> tuple[Index, Floats]:
        ids = np.stack([predict(tokens) for tokens in so_far])
        return ids, np.ones(ids.shape, np.float32)

    return guess


copy = by_row(copied)


def accuracy(guess: Guess, tokens: Index, first: int) -> float:
    """How often the next token is among the guesses, from position `first` on; tokens: (rows, n)."""
    hits = []
    for n in range(first + 1, tokens.shape[1]):
        ids, _ = guess(tokens[:, :n])
        hits.append((ids == tokens[:, n : n + 1]).any(1).mean())
    return float(np.mean(hits))
