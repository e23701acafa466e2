"""Fetching blocks: hits where they are, misses decoded in rounds, one ahead of the unpacking."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from speckv_pynq.codec import Codec
from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, DeviceBuffer, Run
from speckv_pynq.errors import DeviceError, DeviceTimeout
from speckv_pynq.native import U32, U64, Core, GetPlan, Tier, Workers
from speckv_pynq.tiers.places import Places
from speckv_pynq.tiers.policies import Admission, Policy
from speckv_pynq.tiers.staging import Staging


@dataclass(frozen=True)
class Round:
    """Misses first..end - 1 of a plan, decoded into slots, (end - first,), of memory."""

    first: int
    end: int
    memory: DeviceBuffer
    slots: U64


@dataclass(frozen=True)
class Target:
    """Where misses go, in the order of the plan's misses.

    sources: (n,) which miss each place is of; None: place i is of miss i.
    """

    places: Places
    sources: U32 | None

    @classmethod
    def of_misses(cls, plan: GetPlan, places: Places) -> Target:
        """Of all places of a plan, those whose block is in L3."""
        which = np.flatnonzero(plan.tiers == Tier.L3)
        sources = plan.sources[which]
        rising = bool(np.all(sources[1:] >= sources[:-1]))
        if not rising:
            order = np.argsort(sources, kind="stable")
            which, sources = which[order], sources[order]
        if len(which) > len(plan.handles):  # a block stands in several places
            return cls(places.pick(which), sources)
        return cls(places if rising and len(which) == len(places) else places.pick(which), None)

    def of(self, this: Round) -> tuple[Places, U64]:
        """Places of a round's blocks, and the slot that each is unpacked from."""
        if self.sources is None:
            return self.places.pick(slice(this.first, this.end)), this.slots
        first, end = np.searchsorted(self.sources, (this.first, this.end)).tolist()
        part = slice(first, end)
        return self.places.pick(part), this.slots[self.sources[part] - np.uint32(this.first)]


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
        """Waits for late runs, so that nothing they write to changes hands.

        DeviceTimeout when one is still out.
        """
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
        hits = handles[plan.tiers != Tier.L3] if self._policy.wants_hits else None
        admission = self._policy.admit(self._core, hits, plan.handles)
        if admission.order is not None:
            plan = plan.with_misses(admission.order)
        if len(plan.handles):
            self._fetch(plan, admission, places)

    def _unpack_hits(self, plan: GetPlan, places: Places, tier: Tier) -> None:
        memory = self._memories[tier]
        assert memory is not None
        if (plan.hits_l1, plan.hits_l2)[tier] == len(places):
            places.unpack(memory, plan.offsets, self._workers)
        else:
            which = np.flatnonzero(plan.tiers == tier)
            places.pick(which).unpack(memory, plan.offsets[which], self._workers)

    def _rounds(self, count: int, admission: Admission) -> Iterator[Round]:
        """Misses 0..count - 1 in order: those with a slot in L1 there, the rest in staging."""
        first, end = admission.first, admission.first + len(admission.offsets)
        staging, halves = self._staging, itertools.cycle((0, 1))
        for at, last in self._equal(0, first):
            yield Round(at, last, staging.buffer, staging.slots(last - at, next(halves)))
        memory = self._memories[Tier.L1]
        if memory is not None:
            for at, last in self._equal(first, end):
                yield Round(at, last, memory, admission.offsets[at - first : last - first])
        for at, last in self._equal(end, count):
            yield Round(at, last, staging.buffer, staging.slots(last - at, next(halves)))

    def _equal(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """first..end - 1 in as few rounds as staging allows, of equal size."""
        rounds = -(-(end - first) // self._staging.blocks)
        bounds = [first + (end - first) * i // rounds for i in range(rounds + 1)] if rounds else []
        return itertools.pairwise(bounds)

    def _fetch(self, plan: GetPlan, admission: Admission, places: Places) -> None:
        """Decodes round i + 1 while round i is unpacked to places of the plan.

        On a failure the admitted slots whose blocks are not known to be sound go back.
        """
        running: list[tuple[Round, Run]] = []
        sound = 0  # misses decoded and checked
        try:
            target, count = Target.of_misses(plan, places), len(plan.handles)
            rounds = list(self._rounds(count, admission))
            slots = np.concatenate([this.slots for this in rounds])
            ids = self._staging.miss_ids(plan, slice(count))
            table = self._staging.describe_decode(plan, slice(count), slots)
            parts = len(ids) // count
            pool = self._memories[Tier.L3]
            assert pool is not None
            for following in (*rounds, None):
                if following is not None:
                    rows = table[following.first * parts : following.end * parts]
                    run = self._codec.device.start_decompress(
                        pool, following.memory, rows, self._codec.codebook_memory
                    )
                    running.append((following, run))
                if running and (len(running) > 1 or following is None):
                    this, run = running[0]
                    self._codec.check(run.wait(), ids[this.first * parts : this.end * parts])
                    running.pop(0)
                    sound = this.end
                    self._arrived(this, target)
        except BaseException:
            self._drain([run for _, run in running])
            first, end = admission.first, admission.first + len(admission.offsets)
            self._core.evict(Tier.L1, plan.handles[max(first, sound) : end])
            raise

    def _arrived(self, this: Round, target: Target) -> None:
        self.decoded += this.end - this.first
        low, high = int(this.slots.min()), int(this.slots.max()) + self._staging.slot_bytes
        this.memory.sync_from_device(low, min(high, this.memory.nbytes) - low)
        places, slots = target.of(this)
        places.unpack(this.memory, slots, self._workers)

    def _drain(self, runs: list[Run]) -> None:
        """After a failure: waits until nothing writes any more, or remembers what still may."""
        for run in runs:
            try:
                run.wait()
            except DeviceTimeout:
                self._late.append(run)
            except DeviceError:
                pass  # the first failure is the one to report
