"""Which decoded blocks stay in L1: a policy says how many, which, what leaves; the core does it."""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from speckv_pynq.native import F64, U64, Core, Tier

# Measured with `speckv bench policies`. A use counts half after uses of so many blocks, as a share of those held.
HALF_LIFE_SHARE: Final = 0.5
# How much hotter than a resident a miss must be to take its slot. A block just used is hotter than one as popular whose
# turn is next: without this, reading more than L1 holds, round after round, would find nothing, as with LRU.
ENTRY_FACTOR: Final = 2.0
HOT_USES: Final = 1.0  # a block is hot while its uses, decayed, are more: one alone never is
_CHUNK: Final = 32  # residents looked at again at once
_LEAST: Final = 1024  # entries before the queue looks for those of blocks that are gone

Entry = tuple[float, int, int]  # heat when last looked at, handle, the call that looked


@dataclass(frozen=True)
class Admission:
    """Misses first, first + 1, ... get the L1 slots at offsets, (n,).

    order: (m,) the order of the misses that `first` counts in, as places in the call's; None: the call's own.
    """

    first: int
    offsets: U64
    order: npt.NDArray[np.intp] | None = None


NOBODY = Admission(0, np.empty(0, np.uint64))


class Policy(Protocol):
    """What stays in L1. Calls come one at a time."""

    wants_hits: bool

    def admit(self, core: Core, hits: U64 | None, misses: U64) -> Admission:
        """Slots for blocks of one get, after others left theirs.

        hits: handles found in L1 or L2 (None: not asked for), as often as they were asked for.
        misses: (m,) handles about to be decoded, each once.
        """
        ...

    def hot_blocks(self, core: Core) -> int:
        """How many residents of L1 are hot; 0 where that is not known."""
        ...

    @property
    def nbytes(self) -> int:
        """What it takes itself, beside the core's tables."""
        ...


class _NoHeat:
    """What is known of heat where nobody counts uses."""

    nbytes = 0

    def hot_blocks(self, core: Core) -> int:
        return 0


class DensePolicy(_NoHeat):
    """Fills L1 once and keeps it: the fixed share of a cache that every step reads whole, in order.

    There LRU would evict each block just before its next use, and never hit.
    even: where not all fit, of each get as many as the share of all blocks that L1 can hold. Every layer then streams
    the same part, and what moves ahead of need moves at an even rate.
    """

    wants_hits = False

    def __init__(self, *, even: bool = False) -> None:
        self._even = even
        self._due = 0.0  # blocks that may enter, where shares are even

    def admit(self, core: Core, hits: U64 | None, misses: U64) -> Admission:
        count = min(core.free_slots(Tier.L1), len(misses))
        if not count:
            return NOBODY
        blocks = core.stats().blocks if self._even else 0
        if blocks > core.total_slots(Tier.L1):
            self._due += len(misses) * core.total_slots(Tier.L1) / blocks
            count = min(count, int(self._due))
            self._due -= count
            if not count:
                return NOBODY
        return Admission(0, core.admit(Tier.L1, misses[:count]))


class LruPolicy(_NoHeat):
    """Keeps the blocks used last.

    Within one call hits count as used first, then misses, each in the call's order.
    """

    wants_hits = True

    def admit(self, core: Core, hits: U64 | None, misses: U64) -> Admission:
        if hits is not None:
            core.touch(hits)
        # Of more misses than L1 has slots the first would be evicted by the last: they never enter.
        count = min(core.total_slots(Tier.L1), len(misses))
        if not count:
            return NOBODY
        evictions = max(0, count - core.free_slots(Tier.L1))
        first = len(misses) - count
        return Admission(first, core.admit(Tier.L1, misses[first:], evictions))


class HeatPolicy:
    """Keeps the hottest: of residents and misses those whose uses, decayed exponentially, are most.

    A get uses each of its blocks once. Heat belongs to a block as long as it has references, in whatever tier, so
    that one that left comes back with its past; a miss that is not ENTRY_FACTOR times as hot as some resident is not
    admitted to a full L1. Where what was used last matters most, as in conversations, LruPolicy finds more.
    half_life_uses: uses of any blocks after which a use counts half; None: HALF_LIFE_SHARE of the blocks held.
    """

    wants_hits = True

    def __init__(self, half_life_uses: float | None = None) -> None:
        self._half_life_uses = half_life_uses
        self._now = 0.0  # in half-lives
        self._calls = 0
        # A heap of residents. Heats only rise, so an entry's is a lower bound until it is looked at again: a hit costs
        # nothing here. Entries of blocks that left by another way go when they come up.
        self._queue: list[Entry] = []
        self._purge_at = _LEAST

    def admit(self, core: Core, hits: U64 | None, misses: U64) -> Admission:
        uses = len(misses) + (0 if hits is None else len(hits))
        if not uses or not core.total_slots(Tier.L1):
            return NOBODY
        self._calls += 1
        self._now += uses / (self._half_life_uses or HALF_LIFE_SHARE * core.stats().blocks)
        if hits is not None and len(hits):
            core.warm(hits, self._now)
        if not len(misses):
            return NOBODY
        heats = core.warm(misses, self._now)
        order = np.argsort(-heats, kind="stable")
        room = self._make_room(core, heats[order])
        if not room:
            return NOBODY
        entering = order[:room]
        offsets = core.admit(Tier.L1, misses[entering])
        self._add(core, heats[entering], misses[entering])
        return Admission(0, offsets, order)

    def hot_blocks(self, core: Core) -> int:
        heats = core.heats(Tier.L1, core.resident(Tier.L1))
        return int(np.count_nonzero(heats > self._now + math.log2(HOT_USES)))

    @property
    def nbytes(self) -> int:
        if not self._queue:
            return 0
        entry = self._queue[0]
        each = sys.getsizeof(entry) + sum(map(sys.getsizeof, entry))
        return sys.getsizeof(self._queue) + each * len(self._queue)

    def _make_room(self, core: Core, heats: F64) -> int:
        """How many of the misses can enter, after residents much colder have left; heats: falling, (m,)."""
        wanted, queue = (heats - math.log2(ENTRY_FACTOR)).tolist(), self._queue
        room = min(core.free_slots(Tier.L1), len(wanted))
        leaving: dict[int, None] = {}
        while room < len(wanted) and queue and queue[0][0] < wanted[room]:
            if queue[0][2] != self._calls:
                self._look_again(core)
                continue
            _, handle, _ = heapq.heappop(queue)
            if handle not in leaving:  # a block whose decoding failed may stand in the queue twice
                leaving[handle] = None
                room += 1
        if leaving:
            core.evict(Tier.L1, np.fromiter(leaving, np.uint64, len(leaving)))
        return room

    def _look_again(self, core: Core) -> None:
        """Brings the coldest entries up to date."""
        queue = self._queue
        coldest = [heapq.heappop(queue) for _ in range(min(_CHUNK, len(queue)))]
        handles = [handle for _, handle, _ in coldest]
        for heat, handle in zip(
            core.heats(Tier.L1, np.array(handles, np.uint64)).tolist(), handles, strict=True
        ):
            if heat == heat:  # not NaN: it is there
                heapq.heappush(queue, (heat, handle, self._calls))

    def _add(self, core: Core, heats: F64, handles: U64) -> None:
        for heat, handle in zip(heats.tolist(), handles.tolist(), strict=True):
            heapq.heappush(self._queue, (heat, handle, self._calls))
        if len(self._queue) < self._purge_at:
            return
        there = core.resident(Tier.L1)
        found = zip(core.heats(Tier.L1, there).tolist(), there.tolist(), strict=True)
        self._queue = [(heat, handle, self._calls) for heat, handle in found]
        heapq.heapify(self._queue)
        self._purge_at = max(_LEAST, 2 * len(self._queue))


_POLICIES: Final[dict[str, Callable[[], Policy]]] = {
    "dense": DensePolicy, "lru": LruPolicy, "heat": HeatPolicy,
}  # fmt: skip


def make_policy(name: str, *, even: bool = False) -> Policy:
    """By one of config.POLICIES; even: see DensePolicy."""
    return DensePolicy(even=True) if even and name == "dense" else _POLICIES[name]()
