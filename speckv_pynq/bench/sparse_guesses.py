"""Guesses of the next token for sparse attention: any predictor fits in; here, the truth and a copy of the past."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from speckv_pynq.prefetch.bounds import Floats, Index

LONGEST = 4  # tokens of context that a copy goes by
GUESSES = 4
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


def copy(so_far: Index) -> tuple[Index, Floats]:
    """What followed the longest earlier matches of the newest tokens, the newest match first; each counts alike."""
    ids = np.full((len(so_far), GUESSES), -1, np.int64)
    for row, tokens in enumerate(so_far):
        found: list[int] = []
        for length in range(LONGEST, 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], length)
            matches = np.flatnonzero((windows == tokens[-length:]).all(1)) + length
            found += [int(token) for token in tokens[matches[::-1]]]
            found = list(dict.fromkeys(found))[:GUESSES]
        ids[row, : len(found)] = found
    return ids, np.full(ids.shape, 1.0, np.float32)


def accuracy(guess: Guess, tokens: Index, first: int) -> float:
    """How often the next token is among the guesses, from position `first` on; tokens: (rows, n)."""
    hits = []
    for n in range(first + 1, tokens.shape[1]):
        ids, _ = guess(tokens[:, :n])
        hits.append((ids == tokens[:, n : n + 1]).any(1).mean())
    return float(np.mean(hits))
