"""How long what is idle stays away, learned: counts by class and age, an index and chances made of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Ages where bins begin: 0, then half octaves from 1/8 s to three hours. The last bin has no end.
AGES_S: Final[F64] = np.concatenate([[0.0], 0.125 * 2.0 ** (np.arange(34) / 2)])
BINS: Final = len(AGES_S)
_WIDTHS_S: Final[F64] = np.append(np.diff(AGES_S), AGES_S[-1])
# Spans that the index looks at, from bin i to the end of bin j: no shorter than a second, nor than what has passed.
# The best of many short ones would be the luckiest.
LEAST_SPAN_S: Final = 1.0
_ENDS_S: Final[F64] = AGES_S + _WIDTHS_S
_SPANS: Final = (
    _ENDS_S[None, :]
    >= np.minimum(AGES_S + np.maximum(LEAST_SPAN_S, AGES_S), _ENDS_S[-1])[:, None] - 1e-9
)
# A class counts as if it had seen the broader one's hazard so many times: enough that a handful of returns does not
# make a class, few enough that a hundred do. Flat between 4 and 16 where it was measured.
LEAN: Final = 8.0
FIRST_HAZARD: Final = 0.05  # of a bin about which nothing is known
# Returns after which what was made of the counts is made anew: these, and a share of all that were seen.
REFRESH: Final = 32
REFRESH_SHARE: Final = 0.05


class ReturnTimes:
    """Returns and absences by class and age bin. A class is a path, each step narrower, and leans on the path above.

    A hazard is the chance to return in a bin for what stayed away until it begins. What still stays away counts in
    the bins that it has passed: without that, only those that do come back would be heard.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[Hashable, ...], int] = {}
        self._chains: list[Ints] = []  # of each class: its rows, the broadest first
        self._returns = np.zeros((0, BINS))
        self._at_risk = np.zeros((0, BINS))
        self._index, self._survival = np.zeros((0, BINS)), np.zeros((0, BINS + 1))
        self._fresh = np.zeros(0, np.int64)  # the version that a class's tables are of; 0: none
        self._version, self._seen, self._due = 1, 0, REFRESH

    @property
    def nbytes(self) -> int:
        arrays = (self._returns, self._at_risk, self._index, self._survival, self._fresh)
        return sum(array.nbytes for array in arrays)

    def place(self, path: tuple[Hashable, ...]) -> int:
        """The class of a path, made where it is new."""
        row = self._rows.get(path)
        if row is not None:
            return row
        above = self._chains[self.place(path[:-1])] if path else np.empty(0, np.int64)
        row = len(self._chains)
        self._rows[path] = row
        self._chains.append(np.append(above, row))
        if row == len(self._fresh):
            self._grow()
        return row

    def stayed_away(self, row: int, first: int, end: int) -> None:
        """Something of a class has passed bins first..end - 1."""
        if first < end:
            self._at_risk[self._chains[row], first:end] += 1

    def returned(self, row: int, first: int, age_s: float) -> None:
        """It came back; bins before `first` are counted already."""
        at, rows = bin_of(age_s), self._chains[row]
        self._at_risk[rows, first : at + 1] += 1
        self._returns[rows, at] += 1
        self._seen += 1
        if self._seen >= self._due:
            self._version += 1
            self._due = self._seen + REFRESH + int(REFRESH_SHARE * self._seen)

    def index(self, rows: Ints, ages_s: F64) -> F64:
        """Returns a second that keeping it yields at best, (n,): the most, over spans to keep it for, of the chance to
        return within the span over the time that it will be held.

        Gittins's index of a job that may end (Bandit processes and dynamic allocation indices, 1979): kept where it
        is above the price of the room. Bytes cancel: they are gained by a return and taken up meanwhile alike.
        """
        self._refresh(rows)
        return self._index[rows, bin_of(ages_s)]

    def chance(self, rows: Ints, ages_s: F64, window_s: float) -> F64:
        """Chance to return within window_s from now, (n,)."""
        self._refresh(rows)
        now = self._stays(rows, ages_s)
        return 1 - self._stays(rows, ages_s + window_s) / now

    def _stays(self, rows: Ints, ages_s: F64) -> F64:
        """Chance to stay away so long at least, straight between the ends of a bin."""
        bins = bin_of(ages_s)
        part = np.minimum(1.0, (ages_s - AGES_S[bins]) / _WIDTHS_S[bins])
        table = self._survival
        return table[rows, bins] * (1 - part) + table[rows, bins + 1] * part

    def _refresh(self, rows: Ints) -> None:
        stale = np.unique(rows[self._fresh[rows] != self._version])
        for row in stale.tolist():
            hazard = np.full(BINS, FIRST_HAZARD)
            for at in self._chains[row]:
                hazard = (self._returns[at] + LEAN * hazard) / (self._at_risk[at] + LEAN)
            self._survival[row] = np.append(1.0, np.cumprod(1 - np.minimum(hazard, 0.999)))
            self._index[row] = best_rates(self._survival[row])
            self._fresh[row] = self._version

    def _grow(self) -> None:
        more = max(16, len(self._fresh))
        for name in ("_returns", "_at_risk", "_index", "_survival", "_fresh"):
            array = getattr(self, name)
            setattr(
                self, name, np.concatenate([array, np.zeros((more, *array.shape[1:]), array.dtype)])
            )


def bin_of(ages_s: npt.ArrayLike) -> Ints:
    """Bins of ages, of their shape."""
    return np.searchsorted(AGES_S, ages_s, side="right") - 1


def best_rates(survival: F64) -> F64:
    """From the start of each bin, (BINS,): the best ratio of chance to return over expected time held, over all ends.

    survival: (BINS + 1,) chance to stay away until each bin begins; who returns in a bin does so in its middle.
    """
    # Summed from the end: what is left late is little, and must not drown in what was early.
    each = _WIDTHS_S * (survival[:-1] + survival[1:]) / 2
    left = np.append(np.cumsum(each[::-1])[::-1], 0.0)
    gained = survival[:-1, None] - survival[None, 1:]
    taken = left[:-1, None] - left[None, 1:]
    return np.where(_SPANS, gained / np.where(_SPANS, taken, 1.0), 0.0).max(axis=1)
