"""Which idle sequence or prefix comes back next: what each is worth in a fast tier, and which to bring up ahead.

A unit is whatever is read together: a sequence's own blocks, or a prefix that several sequences share. Its owner says
when a turn of it begins and ends; the ages between are what is learned (return_times), by class: what the turn ended
with, whether it is shared, how long it stayed away before, how many turns it has had.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Final

import numpy as np

from speckv_pynq.errors import ConfigError
from speckv_pynq.prefetch.return_times import F64, Ints, ReturnTimes, bin_of

MAX_KINDS: Final = 64  # told apart; what comes after them counts as one
SWEEP: Final = 256  # returns after which those still away are counted
_TURNS: Final = (1, 2, 4, 8, 16)
_OF_UNITS: Final = ("_unit", "_row", "_since", "_counted", "_busy", "_turns", "_gap", "_idle")
_ENTRY_BYTES: Final = 100  # of a unit in a dict
_NEVER: Final = 0.0  # worth of what is not known


class ReturnPredictor:
    """Learns when units return, and ranks those that are idle. Times are the caller's clock, in seconds, never back.

    Deterministic: the same calls give the same answers. Not for several threads at once.
    """

    def __init__(self) -> None:
        self.times = ReturnTimes()
        self._kinds: dict[Hashable, int] = {}
        self._slots: dict[int, int] = {}  # of units
        self._free: list[int] = []
        self._unit = np.zeros(0, np.int64)
        self._row = np.zeros(0, np.int64)
        self._since = np.zeros(0)  # when it became idle
        self._counted = np.zeros(0, np.int64)  # bins of this absence counted already
        self._busy = np.zeros(0, np.int64)  # turns under way
        self._turns = np.zeros(0, np.int64)
        self._gap = np.zeros(0)  # mean of log2 of its absences, recent ones more; NaN: none yet
        self._idle = np.zeros(0, bool)
        self._until_sweep = SWEEP

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """What it takes itself."""
        of_units = sum(getattr(self, name).nbytes for name in _OF_UNITS)
        return self.times.nbytes + of_units + _ENTRY_BYTES * len(self._slots)

    def began(self, unit: int, now_s: float) -> None:
        """A turn of a unit begins: what is known of it, its return after an absence included."""
        at = self._slots.get(unit)
        if at is None:
            at = self._take(unit)
        self._busy[at] += 1
        if not self._idle[at]:
            return
        self._idle[at] = False
        age_s = max(0.0, now_s - self._since[at])
        self.times.returned(int(self._row[at]), int(self._counted[at]), age_s)
        log_gap = math.log2(max(age_s, 1e-3))
        before = self._gap[at]
        self._gap[at] = log_gap if math.isnan(before) else (before + log_gap) / 2
        self._until_sweep -= 1
        if not self._until_sweep:
            self._sweep(now_s)

    def ended(self, unit: int, now_s: float, *, kind: Hashable = "", shared: bool = False) -> None:
        """A turn has ended; with the last one under way it is idle.

        kind: what the turn ended with, as far as known (a tool's call, an answer). ConfigError: none has begun.
        """
        at = self._slots.get(unit)
        if at is None or not self._busy[at]:
            raise ConfigError(f"unit {unit}: no turn of it has begun")
        self._busy[at] -= 1
        self._turns[at] += 1
        if self._busy[at]:
            return
        self._idle[at], self._since[at], self._counted[at] = True, now_s, 0
        self._row[at] = self._class(at, kind, shared)

    def split(self, unit: int, new_unit: int) -> None:
        """new_unit, part of a unit so far, is one of its own from now on, with the same past."""
        if new_unit in self._slots:
            raise ConfigError(f"unit {new_unit} is there already")
        if unit not in self._slots:
            return
        at, to = self._slots[unit], self._take(new_unit)
        for array in (self._row, self._since, self._busy, self._turns, self._gap, self._idle):
            array[to] = array[at]
        self._counted[to] = self._counted[at]

    def forget(self, unit: int) -> None:
        """It is gone; what was learned of it stays. Harmless where it is not known."""
        at = self._slots.pop(unit, None)
        if at is not None:
            self._idle[at], self._busy[at] = False, 0
            self._free.append(at)

    def forget_all(self) -> None:
        """All units; what was learned stays, for the next trace or a clock that starts anew."""
        for unit in list(self._slots):
            self.forget(unit)

    def worth(self, units: Iterable[int], now_s: float) -> F64:
        """What keeping each is worth, (n,): returns a second and byte held; inf: in a turn; 0: not known."""
        at = self._places(units)
        known = at >= 0
        found = np.full(len(at), _NEVER)
        at = at[known]
        worth = np.full(len(at), math.inf)
        idle = self._idle[at]
        worth[idle] = self.times.index(self._row[at[idle]], self._ages(at[idle], now_s))
        found[known] = worth
        return found

    def likely(self, now_s: float, window_s: float, least: float) -> list[tuple[int, float]]:
        """Idle units that return within window_s with at least this chance, and the chances, surest first."""
        at = np.flatnonzero(self._idle)
        chances = self.times.chance(self._row[at], self._ages(at, now_s), window_s)
        order = np.argsort(-chances, kind="stable")[: int(np.count_nonzero(chances >= least))]
        return list(zip(self._unit[at[order]].tolist(), chances[order].tolist(), strict=True))

    def _ages(self, at: Ints, now_s: float) -> F64:
        return np.maximum(0.0, now_s - self._since[at])

    def _places(self, units: Iterable[int]) -> Ints:
        get = self._slots.get
        return np.array([get(unit, -1) for unit in units], np.int64)

    def _class(self, at: int, kind: Hashable, shared: bool) -> int:
        known = (
            self._kinds.setdefault(kind, len(self._kinds))
            if len(self._kinds) < MAX_KINDS
            else (self._kinds.get(kind, MAX_KINDS))
        )
        gap = self._gap[at]
        # Factors of four: -1 none, 0 under half a second, ... 8 over two hours.
        how_long = -1 if math.isnan(gap) else min(8, max(0, int(gap + 3) // 2))
        turns = sum(self._turns[at] > limit for limit in _TURNS)
        return self.times.place(((known, shared), how_long, turns))

    def _sweep(self, now_s: float) -> None:
        """Counts absences that go on."""
        self._until_sweep = SWEEP
        at = np.flatnonzero(self._idle)
        bins = bin_of(self._ages(at, now_s))
        for i in np.flatnonzero(bins > self._counted[at]).tolist():
            slot, reached = at[i], int(bins[i])
            self.times.stayed_away(int(self._row[slot]), int(self._counted[slot]), reached)
            self._counted[slot] = reached

    def _take(self, unit: int) -> int:
        if not self._free:
            first = len(self._row)
            more = max(64, first)
            for name in _OF_UNITS:
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros(more, array.dtype)]))
            self._free += range(first + more - 1, first - 1, -1)
        at = self._free.pop()
        self._slots[unit], self._unit[at] = at, unit
        self._turns[at] = self._busy[at] = 0
        self._gap[at], self._idle[at] = math.nan, False
        return at
