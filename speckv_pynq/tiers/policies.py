"""Which decoded blocks stay in L1: a policy says how many, which, what leaves; the core does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speckv_pynq.native import U64, Core, Tier


@dataclass(frozen=True)
class Admission:
    """Misses first, first + 1, ... get the L1 slots at offsets, (n,)."""

    first: int
    offsets: U64


NOBODY = Admission(0, np.empty(0, np.uint64))


class DensePolicy:
    """Fills L1 once and keeps it: the fixed share of a cache that every step reads whole, in order.

    There LRU would evict each block just before its next use, and never hit.
    """

    def admit(self, core: Core, hits: U64 | None, misses: U64) -> Admission:
        """hits: handles found in L1 (None: not asked for).

        misses: (m,) handles about to be decoded, each once.
        """
        count = min(core.free_slots(Tier.L1), len(misses))
        if not count:
            return NOBODY
        return Admission(0, core.admit(Tier.L1, misses[:count]))

    wants_hits = False


class LruPolicy:
    """Keeps the blocks used last.

    Within one call hits count as used first, then misses, each in the call's order.
    """

    wants_hits = True

    def admit(self, core: Core, hits: U64 | None, misses: U64) -> Admission:
        """hits: handles found in L1. misses: (m,) handles about to be decoded, each once."""
        if hits is not None:
            core.touch(hits)
        # Of more misses than L1 has slots the first would be evicted by the last: they never enter.
        count = min(core.total_slots(Tier.L1), len(misses))
        if not count:
            return NOBODY
        evictions = max(0, count - core.free_slots(Tier.L1))
        first = len(misses) - count
        return Admission(first, core.admit(Tier.L1, misses[first:], evictions))


Policy = DensePolicy | LruPolicy
