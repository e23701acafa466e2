"""Positions that tokens point to: where a token stood before, and what followed it there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from speckv_pynq.prefetch.bounds import Floats, Index

PAIR = 3.0  # what a match of two tokens counts, against one
NONE = -1


class Pointers(NamedTuple):
    """positions: (rows, n) int64, -1 for none; weights: (rows, n) float32, about 1 for a certain token."""

    positions: Index
    weights: Floats


def following(tokens: Index, guesses: Index, shares: Floats) -> Pointers:
    """What came after earlier uses of tokens: induction heads look there.

    tokens: (rows, n) int64, the sequence. guesses: (rows, k) int64, what may come next, -1 for none; shares: (rows, k)
    float32, how likely each is. The newest token itself is known: `following(tokens[:, :-1], tokens[:, -1:], ones)`.
    """
    previous = (
        tokens[:, :-1] == tokens[:, -1:]
    )  # position p is followed by p + 1, which may be the guess
    found = []
    for row in range(len(tokens)):
        matches = guesses[row, :, None] == tokens[row]
        guess, place = np.nonzero(matches & (guesses[row, :, None] >= 0))
        pair = np.zeros(len(place), bool)
        pair[place > 0] = previous[row, place[place > 0] - 1]
        found.append((place + 1, shares[row, guess] * np.where(pair, PAIR, 1)))
    return _padded(found)


def standing(tokens: Index, guesses: Index, shares: Floats) -> Pointers:
    """Where tokens stand that may come next; arguments as of `following`."""
    found = []
    for row in range(len(tokens)):
        guess, place = np.nonzero(
            (guesses[row, :, None] == tokens[row]) & (guesses[row, :, None] >= 0)
        )
        found.append((place, shares[row, guess]))
    return _padded(found)


def joined(*parts: Pointers) -> Pointers:
    """All of them."""
    positions = np.concatenate([part.positions for part in parts], axis=1)
    return Pointers(positions, np.concatenate([part.weights for part in parts], axis=1))


def pointed(pointers: Pointers, rows: int, blocks: int, block_tokens: int) -> Floats:
    """(rows, blocks) float32: the largest weight of a pointer into each block; what lies beyond them is left out."""
    out = np.zeros((rows, blocks), np.float32)
    positions, weights = pointers
    at, place = np.nonzero((positions >= 0) & (positions < blocks * block_tokens))
    np.maximum.at(out, (at, positions[at, place] // block_tokens), weights[at, place])
    return out


def _padded(found: list[tuple[Index, Floats]]) -> Pointers:
    most = max((len(place) for place, _ in found), default=0)
    positions = np.full((len(found), most), NONE, np.int64)
    weights = np.zeros((len(found), most), np.float32)
    for row, (place, weight) in enumerate(found):
        positions[row, : len(place)], weights[row, : len(place)] = place, weight
    return Pointers(positions, weights)
