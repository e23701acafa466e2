"""Interpolated Kneser-Ney n-grams over token ids, what predictors are compared with.

Kneser and Ney 1995, interpolated, one discount for all counts (Chen and Goodman 1999, section 2.7): lower orders count
in how many contexts an n-gram stands, not how often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DISCOUNT = 0.75
_MIX = np.uint64(0x9E3779B97F4A7C15)

U64 = npt.NDArray[np.uint64]


def _hashes(tokens: npt.NDArray[np.integer], order: int) -> U64:
    """(n - order + 1,) of the runs of `order` tokens, by their first place."""
    count = len(tokens) - order + 1
    found = np.zeros(count, np.uint64)
    for i in range(order):
        found = (found ^ (tokens[i : i + count].astype(np.uint64) + np.uint64(1))) * _MIX
        found ^= found >> np.uint64(29)
    return found


@dataclass(frozen=True)
class _Order:
    """Followers of contexts in rows: those of contexts[i] are followers[starts[i] : starts[i + 1]], with counts."""

    contexts: U64
    starts: npt.NDArray[np.int64]
    followers: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]

    def find(self, context: int) -> slice | None:
        at = int(np.searchsorted(self.contexts, np.uint64(context)))
        if at == len(self.contexts) or int(self.contexts[at]) != context:
            return None
        return slice(int(self.starts[at]), int(self.starts[at + 1]))


class NGrams:
    """An n-gram model of (tokens,) ids of a vocabulary."""

    def __init__(self, tokens: npt.NDArray[np.integer], vocabulary: int, order: int) -> None:
        self.order = order
        counts = {n: _counted(tokens, n, highest=n == order) for n in range(2, order + 1)}
        self._orders = {n: _rows(tokens, n, *found) for n, found in counts.items()}
        pairs = _counted(tokens, 2, highest=True)[
            0
        ]  # a token counts in how many contexts it stands
        before = np.bincount(tokens[pairs + 1], minlength=vocabulary) + 0.1
        self._alone = before / before.sum()

    def shares(self, context: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """(vocabulary,) probability of each next token after these; the last order - 1 of them count."""
        found: list[tuple[_Order, slice]] = []
        for n in range(2, min(self.order, len(context) + 1) + 1):
            rows = self._orders[n].find(int(_hashes(context[-(n - 1) :], n - 1)[0]))
            if rows is None:
                break
            found.append((self._orders[n], rows))
        weight, parts = 1.0, []
        for order, rows in reversed(found):
            counts = order.counts[rows].astype(np.float64)
            total = counts.sum()
            parts.append((order.followers[rows], weight * (counts - DISCOUNT) / total))
            weight *= DISCOUNT * len(counts) / total
        shares = weight * self._alone
        for followers, added in parts:
            shares[followers] += added
        return shares


def _counted(
    tokens: npt.NDArray[np.integer], order: int, *, highest: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First places of the distinct n-grams, and their counts: how often, or in how many contexts."""
    if highest:
        _, places, counts = np.unique(_hashes(tokens, order), return_index=True, return_counts=True)
        return places, counts
    longer = np.unique(_hashes(tokens, order + 1), return_index=True)[1] + 1
    _, index, counts = np.unique(
        _hashes(tokens, order)[longer], return_index=True, return_counts=True
    )
    return longer[index], counts


def _rows(
    tokens: npt.NDArray[np.integer],
    order: int,
    places: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> _Order:
    contexts = _hashes(tokens, order - 1)[places]
    by_context = np.argsort(contexts, kind="stable")
    distinct, starts = np.unique(contexts[by_context], return_index=True)
    return _Order(
        distinct,
        np.append(starts, len(by_context)),
        tokens[places[by_context] + order - 1].astype(np.int32),
        counts[by_context].astype(np.int32),
    )
