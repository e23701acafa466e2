"""A fast tier for idle sequences, replayed: what requests find there, kept by worth, and brought up ahead."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from speckv_pynq.bench.returns_traces import Request, RequestTrace
from speckv_pynq.prefetch.ahead import ReturnsAhead
from speckv_pynq.prefetch.returns import ReturnPredictor

CHOICES: Final = 50  # times a window that units to bring up are chosen
Ints = npt.NDArray[np.int64]
Label = Callable[[Request], Hashable]


def kind(request: Request) -> Hashable:
    """What a server knows of a request."""
    return request.kind


def nothing(request: Request) -> Hashable:
    """No label."""
    return ""


def informed(request: Request) -> Hashable:
    """More than any predictor could know: the scale, in half octaves, that the next gap was drawn with."""
    return request.kind, round(2 * float(np.log2(request.pace_s)))


class LatestFirst(ReturnPredictor):
    """For comparison: what was idle longest is worth least, as LRU has it."""

    def worth(self, units: Iterable[int], now_s: float) -> npt.NDArray[np.float64]:
        at = self._places(units)
        return np.where(self._idle[at], 1 / (1 + self._ages(at, now_s)), np.inf)


class Units:
    """Blocks read together, told apart as requests show: a request that reads part of a unit splits it."""

    def __init__(self, blocks: int, predictor: ReturnPredictor) -> None:
        self.of = np.full(blocks, -1, np.int64)
        self.blocks: list[list[int]] = []
        self.shared: list[bool] = []
        self._predictor = predictor

    def read(self, request: Request) -> list[int]:
        """The units of a request, those of its prompt's beginning first; new blocks join the last or are one."""
        owners = self.of[request.blocks]
        old = owners >= 0
        units = list(dict.fromkeys(owners[old].tolist()))
        wanted = set(request.blocks.tolist())
        for i, unit in enumerate(units):
            here = [block for block in self.blocks[unit] if block in wanted]
            if len(here) < len(self.blocks[unit]):
                units[i] = self._split(unit, here)
        new = request.blocks[~old].tolist()
        if new:
            if not units or self.shared[units[-1]]:
                units.append(self._new([], False))
            self.blocks[units[-1]] += new
            self.of[new] = units[-1]
        return units

    def _split(self, unit: int, here: list[int]) -> int:
        part = self._new(here, True)
        rest = set(here)
        self.blocks[unit] = [block for block in self.blocks[unit] if block not in rest]
        self.of[here] = part
        self._predictor.split(unit, part)
        return part

    def _new(self, blocks: list[int], shared: bool) -> int:
        self.blocks.append(blocks)
        self.shared.append(shared)
        return len(self.blocks) - 1


class Tier:
    """A fast tier of `slots` blocks for what is idle: of all units those worth least are not kept, or in part.

    Sequences in a turn have memory of their own: their blocks leave the tier, and are offered to it when they end.
    label: what the predictor is told of requests when they end.
    """

    def __init__(
        self, trace: RequestTrace, slots: int, predictor: ReturnPredictor, label: Label = kind
    ) -> None:
        self._trace, self._room, self._predictor, self._label = trace, slots, predictor, label
        self._units = Units(trace.blocks, predictor)
        self._resident = np.zeros(trace.blocks, bool)
        self._users = np.zeros(trace.blocks, np.int64)  # requests under way
        self.hits = 0

    def run(self) -> int:
        """Blocks found there, or under way for another request, of those that the requests read."""
        for i, over in self._trace.events():
            request = self._trace.requests[i]
            if over:
                self._users[request.blocks] -= 1
                self._end(request)
                continue
            self._between(request.starts_s)
            units = self._units.read(request)
            for unit in units:
                self._predictor.began(unit, request.starts_s)
            self._begin(request, units)
            self.hits += int(self._here(request.blocks).sum())
            self._users[request.blocks] += 1
            leaving = request.blocks[self._resident[request.blocks]]
            self._resident[leaving] = False
            self._room += len(leaving)
        return self.hits

    def _here(self, blocks: Ints) -> npt.NDArray[np.bool_]:
        return self._resident[blocks] | (self._users[blocks] > 0)

    @property
    def held(self) -> int:
        """Blocks in it now."""
        return int(self._resident.sum())

    def _between(self, now_s: float) -> None:
        """Between requests."""

    def _begin(self, request: Request, units: list[int]) -> None:
        """A request begins."""

    def _end(self, request: Request) -> None:
        now_s, units = request.ends_s, self._units
        for unit in np.unique(units.of[request.blocks]).tolist():
            self._predictor.ended(unit, now_s, kind=self._label(request), shared=units.shared[unit])
        entering = request.blocks[self._users[request.blocks] == 0]
        self._resident[entering] = True
        self._room -= len(entering)
        if self._room < 0:
            self._make_room(now_s)

    def _make_room(self, now_s: float) -> None:
        here = np.flatnonzero(self._resident)
        counts = np.bincount(self._units.of[here])
        held = np.flatnonzero(counts)
        worth = self._predictor.worth(held.tolist(), now_s)
        for unit in held[np.argsort(worth, kind="stable")].tolist():
            blocks = self._units.blocks[unit]
            there = (
                blocks if counts[unit] == len(blocks) else [b for b in blocks if self._resident[b]]
            )
            leaving = there[self._room :]  # the last ones, as many as room is short of
            self._resident[leaving] = False
            self._room += len(leaving)
            if self._room >= 0:
                return


class AheadTier(Tier):
    """The same with a second, small tier into which ReturnsAhead brings up units over a link before they return.

    link_blocks_s: blocks a second that the link moves, one after the other. A block is on time where its request finds
    it moved. What did not return within the window leaves.
    """

    def __init__(
        self,
        trace: RequestTrace,
        slots: int,
        ahead: ReturnsAhead,
        predictor: ReturnPredictor,
        ahead_slots: int,
        link_blocks_s: float,
    ) -> None:
        super().__init__(trace, slots, predictor)
        self._ahead, self._ahead_room, self._link_s = ahead, ahead_slots, 1 / link_blocks_s
        self._up: dict[int, tuple[list[int], float]] = {}  # blocks, and when all have come
        self._free_s = self._next_s = 0.0  # when the link is free, and when units are chosen again
        self.fetched = self.on_time = self.late = 0  # blocks

    def _begin(self, request: Request, units: list[int]) -> None:
        now_s = request.starts_s
        for unit in units:
            if unit not in self._up:
                continue
            self._ahead.began(unit)
            blocks, came_s = self._leave(unit)
            wanted = (~self._here(np.array(blocks))).sum()
            if came_s <= now_s:
                self.on_time += int(wanted)
            else:
                self.late += int(wanted)

    def _between(self, now_s: float) -> None:
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._ahead.window_s / CHOICES
        for unit in self._ahead.settle(now_s):
            self._leave(unit)
        for unit in self._ahead.choose(
            lambda unit: len(self._missing(unit)), now_s, self._ahead_room
        ):
            blocks = self._missing(unit)
            self._free_s = max(self._free_s, now_s) + self._link_s * len(blocks)
            self._up[unit] = blocks, self._free_s
            self._ahead_room -= len(blocks)
            self.fetched += len(blocks)

    def _missing(self, unit: int) -> list[int]:
        return [block for block in self._units.blocks[unit] if not self._resident[block]]

    def _leave(self, unit: int) -> tuple[list[int], float]:
        blocks, came_s = self._up.pop(unit)
        self._ahead_room += len(blocks)
        return blocks, came_s
