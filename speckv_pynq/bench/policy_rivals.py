"""Replacement policies to compare with, and the optimum: over block numbers, nothing held, nothing decoded.

A call is one get: distinct blocks, looked up at once. Hits count as used first, then misses, as in the tiers.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt


class Calls(Protocol):
    """A trace: the distinct blocks, 0..blocks - 1, that each get reads."""

    @property
    def blocks(self) -> int: ...

    @property
    def calls(self) -> Sequence[npt.NDArray[np.int64]]: ...


class Rival(Protocol):
    """A replacement policy."""

    def call(self, blocks: Sequence[int]) -> int:
        """How many of them were there."""
        ...

    def holds(self, block: int) -> bool:
        """Whether it is there."""
        ...


class S3Fifo:
    """Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023, algorithm 1."""

    SMALL_SHARE: Final = 0.1
    MOST: Final = 3  # accesses that are told apart

    def __init__(self, slots: int) -> None:
        self._slots, self._small_slots = slots, max(1, round(slots * self.SMALL_SHARE))
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._accesses: dict[int, int] = {}  # of residents, since they came or moved
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def call(self, blocks: Sequence[int]) -> int:
        """How many of them were there."""
        misses = [block for block in blocks if block not in self._accesses]
        for block in blocks:
            if block in self._accesses:
                self._accesses[block] = min(self.MOST, self._accesses[block] + 1)
        for block in misses:
            self._insert(block)
        return len(blocks) - len(misses)

    def holds(self, block: int) -> bool:
        """Whether it is there."""
        return block in self._accesses

    def _insert(self, block: int) -> None:
        while len(self._accesses) >= self._slots:
            self._evict()
        (self._main if block in self._ghosts else self._small).append(block)
        self._ghosts.pop(block, None)
        self._accesses[block] = 0

    def _evict(self) -> None:
        if len(self._small) >= self._small_slots or not self._main:
            self._leave_small()
        else:
            self._leave_main()

    def _leave_small(self) -> None:
        while self._small:
            block = self._small.popleft()
            if self._accesses[block] > 1:
                self._accesses[block] = 0
                self._main.append(block)
                continue
            del self._accesses[block]
            self._ghosts[block] = None
            if len(self._ghosts) > self._slots - self._small_slots:
                self._ghosts.popitem(last=False)
            return
        self._leave_main()

    def _leave_main(self) -> None:
        while True:
            block = self._main.popleft()
            if not self._accesses[block]:
                del self._accesses[block]
                return
            self._accesses[block] -= 1
            self._main.append(block)


class Arc:
    """Megiddo and Modha, ARC: a self-tuning, low overhead replacement cache, FAST 2003, figure 4."""

    def __init__(self, slots: int) -> None:
        self._slots, self._target = slots, 0.0  # of the blocks used once
        self._once: OrderedDict[int, None] = OrderedDict()
        self._often: OrderedDict[int, None] = OrderedDict()
        self._once_ghosts: OrderedDict[int, None] = OrderedDict()
        self._often_ghosts: OrderedDict[int, None] = OrderedDict()

    def call(self, blocks: Sequence[int]) -> int:
        """How many of them were there."""
        misses = []
        for block in blocks:
            if block not in self._once and block not in self._often:
                misses.append(block)
                continue
            self._once.pop(block, None)
            self._often[block] = None
            self._often.move_to_end(block)
        for block in misses:
            self._miss(block)
        return len(blocks) - len(misses)

    def holds(self, block: int) -> bool:
        """Whether it is there."""
        return block in self._once or block in self._often

    def _miss(self, block: int) -> None:
        once, often = len(self._once_ghosts), len(self._often_ghosts)
        if block in self._once_ghosts:
            self._target = min(self._slots, self._target + max(1, often / once))
            self._replace(False)
            del self._once_ghosts[block]
            self._often[block] = None
            return
        if block in self._often_ghosts:
            self._target = max(0, self._target - max(1, once / often))
            self._replace(True)
            del self._often_ghosts[block]
            self._often[block] = None
            return
        if len(self._once) + once == self._slots:
            if once:
                self._once_ghosts.popitem(last=False)
                self._replace(False)
            else:
                self._once.popitem(last=False)
        else:
            held = len(self._once) + len(self._often)
            if held + once + often >= 2 * self._slots:
                self._often_ghosts.popitem(last=False)
            if held >= self._slots:
                self._replace(False)
        self._once[block] = None

    def _replace(self, was_often: bool) -> None:
        """One resident becomes a ghost; was_often: the block that comes is a ghost of those used often."""
        if len(self._once) + len(self._often) < self._slots:
            return
        size = len(self._once)
        if size and (size > self._target or (was_often and size == self._target)):
            self._once_ghosts[self._once.popitem(last=False)[0]] = None
        else:
            self._often_ghosts[self._often.popitem(last=False)[0]] = None


RIVALS: Final[dict[str, type[S3Fifo] | type[Arc]]] = {"s3-fifo": S3Fifo, "arc": Arc}


def hits_of(rival: Rival, trace: Calls) -> int:
    """Blocks of a trace that this policy finds."""
    return sum(rival.call(call.tolist()) for call in trace.calls)


def optimum(trace: Calls, slots: int) -> int:
    """The most blocks that any policy can find: it keeps those that are used again soonest, new ones included.

    Belady, A study of replacement algorithms, IBM Systems Journal 1966; here with calls for times, and free to keep
    none of a call's misses.
    """
    never = len(trace.calls)
    following = np.full(trace.blocks, never)
    uses: list[list[int]] = []  # for each call, when each of its blocks is used next
    for i in range(never - 1, -1, -1):
        uses.append(following[trace.calls[i]].tolist())
        following[trace.calls[i]] = i
    hits, held = 0, {}  # block -> its next use
    furthest: list[
        tuple[int, int]
    ] = []  # (-next use, block); of a block that was used since, out of date
    for call, nexts in zip(trace.calls, reversed(uses), strict=True):
        for block, next_use in zip(call.tolist(), nexts, strict=True):
            hits += block in held
            held[block] = next_use
            heapq.heappush(furthest, (-next_use, block))
        while len(held) > slots:
            next_use, block = heapq.heappop(furthest)
            if held.get(block) == -next_use:
                del held[block]
    return hits
