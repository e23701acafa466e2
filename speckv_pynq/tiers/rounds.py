"""Fetching blocks: hits where they are, misses decoded in rounds, one ahead of the unpacking."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from speckv_pynq.codec import Codec
from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, DeviceBuffer, Run
from speckv_pynq.errors import DeviceError, DeviceTimeout
from speckv_pynq.native import U64, Core, GetPlan, Tier, Workers
from speckv_pynq.tiers.places import Places
from speckv_pynq.tiers.policies import Admission, Policy
from speckv_pynq.tiers.staging import Staging


@dataclass(frozen=True)
class Round:
    """Misses first..end - 1 of a plan, decoded into slots of memory; tier: whose slots, L3 for staging."""

    first: int
    end: int
    memory: DeviceBuffer
    slots: U64
    tier: Tier


class Fetcher:
    """The way up, for one caller at a time."""

    def __init__(
        self,
        codec: Codec,
        core: Core,
        staging: Staging,
        memories: list[DeviceBuffer | None],
        policy: Policy,
        workers: Workers,
    ) -> None:
        self._codec, self._core, self._staging = codec, core, staging
        self._memories, self._policy, self._workers = memories, policy, workers
        self._late: list[Run] = []  # runs that missed a deadline and may still write
        self.decoded = 0  # blocks

    def settle(self) -> None:
        """Waits for late runs, so that nothing they write to changes hands; DeviceTimeout when one is still out."""
        while self._late:
            try:
                self._late[-1].wait(DEFAULT_TIMEOUT_S)
            except DeviceTimeout:
                raise
            except DeviceError:
                pass  # reported when it happened
            self._late.pop()

    def get(self, handles: U64, places: Places) -> None:
        """Writes block j, (n,) handles, to place j."""
        self.settle()
        plan = self._core.plan_get(handles)
        if plan.hits_l1:
            self._unpack_hits(plan, places, Tier.L1)
        if plan.hits_l2:
            self._unpack_hits(plan, places, Tier.L2)
            self._core.evict(Tier.L2, handles[plan.tiers == Tier.L2])
        hits = handles[plan.tiers == Tier.L1] if self._policy.wants_hits else None
        admission = self._policy.admit(self._core, hits, plan.handles)
        if len(plan.handles):
            self._fetch(plan, list(self._rounds(plan, admission)), places)

    def prefetch(self, handles: U64) -> int:
        """Decodes blocks that are in L3 alone into L2 slots; how many."""
        self.settle()
        plan = self._core.plan_get(handles)
        count = min(len(plan.handles), self._core.total_slots(Tier.L2))
        evictions = max(0, count - self._core.free_slots(Tier.L2))
        slots = self._core.admit(Tier.L2, plan.handles[:count], evictions)
        memory = self._memories[Tier.L2]
        if memory is not None and count:
            self._fetch(plan, list(self._cut(0, count, memory, slots, Tier.L2)), None)
        return count

    def _unpack_hits(self, plan: GetPlan, places: Places, tier: Tier) -> None:
        memory = self._memories[tier]
        assert memory is not None
        if (plan.hits_l1, plan.hits_l2)[tier] == len(places):
            places.unpack(memory, plan.offsets, self._workers)
        else:
            which = np.flatnonzero(plan.tiers == tier)
            places.pick(which).unpack(memory, plan.offsets[which], self._workers)

    def _rounds(self, plan: GetPlan, admission: Admission) -> Iterator[Round]:
        first, end = admission.first, admission.first + len(admission.offsets)
        yield from self._through_staging(0, first)
        memory = self._memories[Tier.L1]
        if memory is not None and end > first:
            yield from self._cut(first, end, memory, admission.offsets, Tier.L1)
        yield from self._through_staging(end, len(plan.handles))

    def _through_staging(self, first: int, end: int) -> Iterator[Round]:
        for i, (at, last) in enumerate(self._equal(first, end)):
            yield Round(
                at, last, self._staging.buffer, self._staging.slots(last - at, i % 2), Tier.L3
            )

    def _cut(
        self, first: int, end: int, memory: DeviceBuffer, slots: U64, tier: Tier
    ) -> Iterator[Round]:
        for at, last in self._equal(first, end):
            yield Round(at, last, memory, slots[at - first : last - first], tier)

    def _equal(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """first..end - 1 in as few rounds as staging allows, of equal size: a short one would cost a whole call."""
        rounds = -(-(end - first) // self._staging.blocks)
        bounds = [first + (end - first) * i // rounds for i in range(rounds + 1)] if rounds else []
        return itertools.pairwise(bounds)

    def _fetch(self, plan: GetPlan, rounds: list[Round], places: Places | None) -> None:
        """Decodes round i + 1 while round i is unpacked (places None: not at all)."""
        running: list[tuple[Round, Run]] = []
        good = 0  # rounds whose blocks are sound and written
        try:
            for following in (*rounds, None):
                if following is not None:
                    running.append((following, self._start(plan, following)))
                if running and (len(running) > 1 or following is None):
                    self._finish(plan, *running[0], places)
                    running.pop(0)
                    good += 1
        except BaseException:
            self._abandon(plan, rounds[good:], [run for _, run in running])
            raise

    def _start(self, plan: GetPlan, this: Round) -> Run:
        pool = self._memories[Tier.L3]
        assert pool is not None
        part = slice(this.first, this.end)
        return self._codec.start_decode(
            pool,
            self._staging.ids(plan.layers[part], plan.positions[part]),
            plan.record_offsets[part].reshape(-1),
            plan.record_bytes[part].reshape(-1),
            this.memory,
            self._staging.part_slots(this.slots),
        )

    def _finish(self, plan: GetPlan, this: Round, run: Run, places: Places | None) -> None:
        completions = run.wait()
        if completions["status"].any():
            part = slice(this.first, this.end)
            self._codec.check(
                completions, self._staging.ids(plan.layers[part], plan.positions[part])
            )
        self.decoded += this.end - this.first
        low, high = int(this.slots.min()), int(this.slots.max()) + self._staging.slot_bytes
        this.memory.sync_from_device(low, min(high, this.memory.nbytes) - low)
        if places is None:
            return
        missed = plan.sources.size - plan.hits_l1 - plan.hits_l2
        if missed == len(plan.handles):  # each once: their places are in the same order
            which = np.flatnonzero(plan.tiers == Tier.L3)[this.first : this.end]
            slots = this.slots
        else:
            sources = np.where(plan.tiers == Tier.L3, plan.sources, np.uint32(0xFFFF_FFFF))
            which = np.flatnonzero((sources >= this.first) & (sources < this.end))
            slots = this.slots[sources[which] - np.uint32(this.first)]
        places.pick(which).unpack(this.memory, slots, self._workers)

    def _abandon(self, plan: GetPlan, rounds: list[Round], runs: list[Run]) -> None:
        """After a failure: nothing writes any more, or is remembered as late; slots without a sound block go back."""
        for run in runs:
            try:
                run.wait()
            except DeviceTimeout:
                self._late.append(run)
            except DeviceError:
                pass  # the first failure is the one to report
        for this in rounds:
            if this.tier is not Tier.L3:
                with contextlib.suppress(LookupError):
                    self._core.evict(this.tier, plan.handles[this.first : this.end])
