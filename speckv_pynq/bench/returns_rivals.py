"""Rivals of predicted returns on a trace of requests, and the optimum.

As for the predictor: a request looks its blocks up when it begins, and they are offered when it ends; in between they
take no room (but S3-FIFO and ARC, which have no way to let them go, keep them). A block that another request has under
way counts as found, whoever holds it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from speckv_pynq.bench.policy_rivals import Rival
from speckv_pynq.bench.returns_traces import RequestTrace


class Lru:
    """Keeps the blocks used last."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._held: dict[int, None] = {}  # least recent first

    def call(self, blocks: Sequence[int]) -> int:
        """How many of them were there."""
        misses, held = [], self._held
        for block in blocks:
            if block in held:
                held[block] = held.pop(block)
            else:
                misses.append(block)
        for block in misses:
            if len(held) >= self._slots:
                del held[next(iter(held))]
            held[block] = None
        return len(blocks) - len(misses)

    def holds(self, block: int) -> bool:
        """Whether it is there."""
        return block in self._held

    def release(self, blocks: Sequence[int]) -> None:
        """They take no room until they are called again."""
        for block in blocks:
            self._held.pop(block, None)


class LfuAged:
    """Arlitt et al., Evaluating content management techniques for web proxy caches, 2000: LFU-DA.

    What GreedyDual-Size-Frequency is where all blocks are of one size and cost.
    """

    def __init__(self, slots: int) -> None:
        self._slots, self._age = slots, 0
        self._held: dict[int, int] = {}  # block: its key, uses and the age at the last one
        self._uses: dict[int, int] = {}
        self._queue: list[tuple[int, int, int]] = []  # key, when queued, block
        self._clock = 0

    def call(self, blocks: Sequence[int]) -> int:
        """How many of them were there."""
        there = [block for block in blocks if block in self._held]
        for block in there:
            self._use(block)
        for block in blocks:
            if block not in self._held:
                self._evict()
                self._use(block)
        return len(there)

    def holds(self, block: int) -> bool:
        """Whether it is there."""
        return block in self._held

    def release(self, blocks: Sequence[int]) -> None:
        """They take no room until they are called again; their uses stay counted."""
        for block in blocks:
            self._held.pop(block, None)

    def _use(self, block: int) -> None:
        self._clock += 1
        uses = self._uses[block] = self._uses.get(block, 0) + 1
        self._held[block] = self._age + uses
        heapq.heappush(self._queue, (self._held[block], self._clock, block))

    def _evict(self) -> None:
        while len(self._held) >= self._slots:
            key, _, block = heapq.heappop(self._queue)
            if self._held.get(block) == key:
                self._age = key
                del self._held[block], self._uses[block]


def found(rival: Rival, trace: RequestTrace) -> int:
    """Blocks of a trace that this policy finds."""
    hits, users = 0, np.zeros(trace.blocks, np.int64)
    for i, over in trace.events():
        blocks = trace.requests[i].blocks
        if over:
            users[blocks] -= 1
            rival.call(blocks[users[blocks] == 0].tolist())
            continue
        free = users[blocks] == 0
        hits += len(blocks) - int(free.sum()) + sum(map(rival.holds, blocks[free].tolist()))
        users[blocks] += 1
        if isinstance(rival, (Lru, LfuAged)):
            rival.release(blocks.tolist())
    return hits


def most(trace: RequestTrace, slots: int) -> int:
    """The most that any policy can find: what stays is what is read again soonest.

    Belady, A study of replacement algorithms, 1966; free to keep none of what is offered. Blocks are of one size. A
    block takes room only while no request has it under way.
    """
    events = trace.events()
    never = len(events)
    following = np.full(trace.blocks, never)  # when a block is looked up next
    nexts: list[list[int]] = []
    for at in range(never - 1, -1, -1):
        i, over = events[at]
        blocks = trace.requests[i].blocks
        nexts.append(following[blocks].tolist() if over else [])
        if not over:
            following[blocks] = at
    hits, users = 0, np.zeros(trace.blocks, np.int64)
    held: dict[int, int] = {}  # idle block: when it is looked up next
    furthest: list[tuple[int, int]] = []  # (-when, block); of a block looked up since, out of date
    for (i, over), when in zip(events, reversed(nexts), strict=True):
        blocks = trace.requests[i].blocks
        if not over:
            for block in blocks.tolist():
                hits += block in held or users[block] > 0
                held.pop(block, None)
            users[blocks] += 1
            continue
        users[blocks] -= 1
        for block, at in zip(blocks.tolist(), when, strict=True):
            if not users[block] and at < never:
                held[block] = at
                heapq.heappush(furthest, (-at, block))
        while len(held) > slots:
            at, block = heapq.heappop(furthest)
            if held.get(block) == -at:
                del held[block]
    return hits
