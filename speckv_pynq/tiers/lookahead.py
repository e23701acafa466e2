"""Prefetch for dense attention: what a get has read comes again next step, in the same order."""

from __future__ import annotations

import numpy as np

from speckv_pynq.config import TierConfig
from speckv_pynq.errors import SpeckvError, StaleHandle
from speckv_pynq.native import U64, Core, Tier
from speckv_pynq.prefetch.dense import ByteBudget, DensePlanner
from speckv_pynq.tiers.prefetching import Prefetcher


class Lookahead:
    """Keeps L2 fed in the planner's order; for one caller at a time, and never in the way of what it reads.

    It goes by what gets tell it: a block that is in L1 is not planned for, one that may still enter L1 is left to
    demand, which is the way into L1. Blocks that are not needed after all leave L2 when others need the room.
    """

    def __init__(self, core: Core, prefetcher: Prefetcher, config: TierConfig) -> None:
        self._core, self._prefetcher = core, prefetcher
        self.planner = DensePlanner(core.total_slots(Tier.L2), config.prefetch_depth)
        self._budget = ByteBudget(config.prefetch_bytes_per_s)

    def expect(self, sequence: int, layer: int, handles: U64) -> None:
        """A layer will read these next time: what was put since its last get is known before it is asked for."""
        known = self.planner.expected(sequence, layer)
        if not len(handles) and not len(known):
            return
        if self._core.free_slots(Tier.L1):  # new blocks belong there
            handles = handles[np.isin(handles, known)]
        self._plan(sequence, layer, handles)

    def has_read(self, sequence: int, layer: int, handles: U64) -> None:
        """A layer has read these: begins to bring up what comes next, as far as L2 and the budgets go."""
        self._plan(sequence, layer, handles)
        planner = self.planner
        planner.asked(sequence, layer)
        ahead = planner.ahead(sequence)
        if len(ahead):
            try:
                self._prefetcher.start(ahead, self._budget, keep=True)
            except StaleHandle:  # released, and nobody said so
                stale = [h for h in ahead.tolist() if not self._core.block(h)[0]]
                planner.drop(stale)
            except (SpeckvError, MemoryError):  # what does not come up is a miss
                self._prefetcher.failed += len(ahead)

    def _plan(self, sequence: int, layer: int, handles: U64) -> None:
        core = self._core
        plan = core.plan_get(handles, counted=False)
        streamed = handles[plan.tiers != Tier.L1]
        entering = min(core.free_slots(Tier.L1), -(-len(streamed) // 8))
        self.planner.expect(sequence, layer, streamed[entering:])
