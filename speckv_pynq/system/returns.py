"""Requests as units that return: which are in a turn, which idle, what they are worth, what to bring up for them."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable

from speckv_pynq.errors import StaleHandle
from speckv_pynq.native import F64, U64
from speckv_pynq.prefetch.ahead import ReturnsAhead
from speckv_pynq.prefetch.returns import ReturnPredictor
from speckv_pynq.tiers import TierManager
from speckv_pynq.tiers.ranked import RankedPolicy


class Returns:
    """What a system with policy "returns" knows of its requests. Any thread may call.

    A request's blocks are one unit; with a fork they become a unit that both read, and each has another for what it
    stores from then on. clock: seconds, never back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.predictor = ReturnPredictor()
        self.ahead = ReturnsAhead(self.predictor)
        # Under the lock of the tiers, never the other way round.
        self._clock, self._lock = clock, threading.RLock()
        self.policy = RankedPolicy(self._worth, self._lock)
        self._numbers = itertools.count(1)
        self._units: dict[int, list[int]] = {}  # by request; the last is its own
        self._users: dict[int, set[int]] = {}  # by unit
        self._active: set[int] = set()

    def began(self, req_id: int) -> None:
        """A request is read or stored to: a turn of it begins, unless one is under way."""
        if req_id in self._active:
            return
        with self._lock:
            self._begin(req_id)

    def ended(self, req_id: int, kind: str = "") -> None:
        """Its turn is over. kind: what with, as ReturnPredictor.ended has it."""
        with self._lock:
            if req_id in self._active:
                self._end(req_id, kind)

    def stored(self, req_id: int, handles: U64, replaced: U64) -> None:
        """It has these blocks now, and those not any more."""
        with self._lock:
            self._begin(req_id)
            self.policy.drop(replaced)
            self.policy.assign(handles, self._units[req_id][-1])

    def forked(self, req_id: int, new_req_id: int) -> None:
        """A new request reads all that another has."""
        with self._lock:
            shared = [unit for unit in self._units.get(req_id, []) if len(self.policy.blocks(unit))]
            self._units[new_req_id] = shared.copy()
            for unit in shared:
                self._users[unit].add(new_req_id)
                self.predictor.began(unit, self._clock())
            self._active.add(new_req_id)
            self._own(new_req_id)
            if shared and shared[-1] == self._units[req_id][-1]:
                self._own(req_id)

    def freed(self, req_id: int) -> None:
        """It is gone."""
        with self._lock:
            if req_id in self._active:
                self._end(req_id, "")
            for unit in self._units.pop(req_id, []):
                users = self._users[unit]
                users.discard(req_id)
                if not users:
                    del self._users[unit]
                    self.policy.drop(self.policy.blocks(unit))
                    self.predictor.forget(unit)
                    self.ahead.forget(unit)

    def prefetch(self, tiers: TierManager) -> int:
        """Brings up what returns soon, as far as L2 has room and ReturnsAhead trusts; how many blocks."""
        block_bytes, room = tiers.shape.block_bytes, tiers.l2_slots * tiers.shape.block_bytes
        with self._lock:
            now_s = self._clock()
            likely = [unit for unit, _ in self.ahead.candidates(now_s)]
            blocks = {unit: self.policy.blocks(unit) for unit in likely}
        away = {}
        for unit, handles in blocks.items():
            with contextlib.suppress(StaleHandle):  # freed meanwhile
                away[unit] = handles[~tiers.resident(handles)]
        with self._lock:
            chosen = self.ahead.choose(
                lambda unit: block_bytes * len(away.get(unit, ())),
                now_s,
                room - self.ahead.up_bytes,
            )
        begun = 0
        for unit in chosen:
            with contextlib.suppress(StaleHandle):
                begun += tiers.prefetch(away[unit])
        return begun

    def _worth(self, units: list[int]) -> F64:
        return self.predictor.worth(units, self._clock())

    def _begin(self, req_id: int) -> None:
        if req_id in self._active:
            return
        self._active.add(req_id)
        if req_id not in self._units:
            self._own(req_id)
            return
        for unit in self._units[req_id]:
            self.predictor.began(unit, self._clock())
            self.ahead.began(unit)

    def _end(self, req_id: int, kind: str) -> None:
        self._active.discard(req_id)
        for unit in self._units[req_id]:
            shared = len(self._users[unit]) > 1
            self.predictor.ended(unit, self._clock(), kind=kind, shared=shared)

    def _own(self, req_id: int) -> None:
        """A unit of its own, the last of its units."""
        unit = next(self._numbers)
        self._units.setdefault(req_id, []).append(unit)
        self._users[unit] = {req_id}
        if req_id in self._active:
            self.predictor.began(unit, self._clock())
