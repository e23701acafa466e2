"""LRU and LFU with dynamic ageing over block numbers, as policy_rivals has S3-FIFO and ARC."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


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
