"""The block table: handles, references, residency, lines of the pool."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from speckv_pynq.native.binding import F64, U8, U32, U64, address, as_u32, as_u64, load, raise_error
from speckv_pynq.native.layout import CoreConfig, CoreStats, Error, Plan

NO_OFFSET = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class Tier(IntEnum):
    """Where a block lies; decoded in L1 and L2, as a record in L3."""

    L1 = 0
    L2 = 1
    L3 = 2


@dataclass(frozen=True)
class GetPlan:
    """Where n handles lie. tiers, offsets, sources: (n,).

    The rest: the m misses, once each, in order of first use.
    """

    tiers: U8
    offsets: U64  # bytes from the tier's base; NO_OFFSET for L3
    sources: U32  # of a block in L3: its place among the misses
    handles: U64  # (m,)
    positions: U32  # (m,)
    layers: U32  # (m,)
    record_offsets: U64  # (m, parts)
    record_bytes: U32  # (m, parts)
    hits_l1: int
    hits_l2: int

    def with_misses(self, order: npt.NDArray[np.intp]) -> GetPlan:
        """The same with its misses in another order, (m,) places in this one."""
        place = np.empty(len(order), np.uint32)
        place[order] = np.arange(len(order), dtype=np.uint32)
        missed, sources = self.tiers == Tier.L3, self.sources.copy()
        sources[missed] = place[sources[missed]]
        return replace(
            self, sources=sources, handles=self.handles[order], positions=self.positions[order],
            layers=self.layers[order], record_offsets=self.record_offsets[order],
            record_bytes=self.record_bytes[order],
        )  # fmt: skip


class Core:
    """Block table, residency and line allocators; may be called from any thread."""

    def __init__(self, config: CoreConfig) -> None:
        self._lib = load()
        self.parts, self.layers = int(config.parts), int(config.layers)
        core = ctypes.c_void_p()
        status = self._lib.speckv_core_create(ctypes.byref(config), ctypes.byref(core))
        self._core: ctypes.c_void_p | None = None
        self._check(status, Error(), "core configuration")
        self._core = core

    def put(
        self, layer: int, positions: U32, staging: U8, record_offsets: U64, record_bytes: U32
    ) -> tuple[U64, int, int]:
        """Copies records, (n, parts) each, from staging into lines of L3.

        Their handles, (n,), with one reference each; first byte of L3 written, one past the last.
        """
        count = len(positions)
        if record_offsets.size != count * self.parts or record_bytes.size != count * self.parts:
            raise ValueError(f"{record_offsets.size} records for {count} blocks of {self.parts}")
        ends = record_offsets.reshape(-1) + record_bytes.reshape(-1)
        if count and int(ends.max()) > staging.nbytes:
            raise ValueError(f"record ends at {ends.max()} of {staging.nbytes} staged bytes")
        positions, record_offsets = as_u32(positions), as_u64(record_offsets)
        record_bytes, handles = as_u32(record_bytes), np.empty(count, np.uint64)
        written, error = np.empty(2, np.uint64), Error()
        status = self._lib.speckv_core_put(
            self._core, count, layer, address(positions), address(staging), address(record_offsets),
            address(record_bytes), address(handles), address(written), ctypes.byref(error),
        )  # fmt: skip
        self._check(status, error, "put")
        return handles, int(written[0]), int(written[1])

    def plan_get(self, handles: U64, *, counted: bool = True) -> GetPlan:
        """Looks handles up; counted: as hits and misses of the statistics."""
        handles = as_u64(handles)
        n = len(handles)
        tiers, offsets, sources = (
            np.empty(n, np.uint8),
            np.empty(n, np.uint64),
            np.empty(n, np.uint32),
        )
        missed, positions, layers = (
            np.empty(n, np.uint64),
            np.empty(n, np.uint32),
            np.empty(n, np.uint32),
        )
        record_offsets = np.empty((n, self.parts), np.uint64)
        record_bytes = np.empty((n, self.parts), np.uint32)
        plan = Plan(
            address(tiers), address(offsets), address(sources), address(missed), address(positions),
            address(layers), address(record_offsets), address(record_bytes),
        )  # fmt: skip
        plan.uncounted = not counted
        error = Error()
        status = self._lib.speckv_core_plan_get(
            self._core, n, address(handles), ctypes.byref(plan), ctypes.byref(error)
        )
        self._check(status, error, "get")
        m = plan.misses
        return GetPlan(
            tiers, offsets, sources, missed[:m], positions[:m], layers[:m], record_offsets[:m],
            record_bytes[:m], plan.hits[0], plan.hits[1],
        )  # fmt: skip

    def retain(self, handles: U64) -> None:
        """One reference more for each; a handle may stand several times."""
        self._over("retain", as_u64(handles))

    def release(self, handles: U64) -> None:
        """One reference less for each; a block without references leaves all tiers."""
        self._over("release", as_u64(handles))

    def touch(self, handles: U64) -> None:
        """Makes these the newest of L1, in this order."""
        self._over("touch", as_u64(handles))

    def warm(self, handles: U64, when: float) -> F64:
        """One use more for each of these blocks, however often it stands there; their heats, (n,).

        Heat is log2 of the sum of 2^when over a block's uses. It stays until the block's last release.
        """
        handles = as_u64(handles)
        heats, error = np.empty(len(handles)), Error()
        status = self._lib.speckv_core_warm(
            self._core, len(handles), address(handles), when, address(heats), ctypes.byref(error)
        )
        self._check(status, error, "warm")
        return heats

    def heats(self, tier: Tier, handles: U64) -> F64:
        """Heats of those that are in slots of L1 or L2, (n,): -inf never warmed; NaN not there, or stale."""
        handles = as_u64(handles)
        heats, error = np.empty(len(handles)), Error()
        status = self._lib.speckv_core_heats(
            self._core,
            int(tier),
            len(handles),
            address(handles),
            address(heats),
            ctypes.byref(error),
        )
        self._check(status, error, "heats")
        return heats

    def evict(self, tier: Tier, handles: U64) -> None:
        """Gives the slots of these blocks back."""
        self._over("evict", as_u64(handles), int(tier))

    def admit(self, tier: Tier, handles: U64, evictions: int = 0) -> U64:
        """Slots for these blocks, after the `evictions` oldest left; their offsets, (n,).

        The caller fills them.
        """
        handles = as_u64(handles)
        offsets, error = np.empty(len(handles), np.uint64), Error()
        status = self._lib.speckv_core_admit(
            self._core, int(tier), evictions, len(handles), address(handles), address(offsets),
            ctypes.byref(error),
        )  # fmt: skip
        self._check(status, error, f"admit to {tier.name}")
        return offsets

    def reserve(self, tier: Tier, count: int, evictions: int = 0) -> U64:
        """Slots that are no block's yet, after the `evictions` oldest left; their offsets, (count,).

        They stay so, whatever becomes of blocks, until install().
        """
        offsets, error = np.empty(count, np.uint64), Error()
        status = self._lib.speckv_core_reserve(
            self._core, int(tier), evictions, count, address(offsets), ctypes.byref(error)
        )
        self._check(status, error, f"reserve in {tier.name}")
        return offsets

    def install(self, tier: Tier, handles: U64, offsets: U64) -> int:
        """Makes reserved slots these blocks', (n,) each; how many.

        A slot goes back where the handle is stale (0 always is) or has one there already.
        """
        handles, offsets = as_u64(handles), as_u64(offsets)
        if len(handles) != len(offsets):
            raise ValueError(f"{len(handles)} handles for {len(offsets)} slots")
        installed, error = ctypes.c_uint32(), Error()
        status = self._lib.speckv_core_install(
            self._core, int(tier), len(handles), address(handles), address(offsets),
            ctypes.byref(installed), ctypes.byref(error),
        )  # fmt: skip
        self._check(status, error, f"install in {tier.name}")
        return installed.value

    def resident(self, tier: Tier, most: int | None = None) -> U64:
        """Blocks in a tier's slots, oldest first."""
        room = self.total_slots(tier) if most is None else most
        room = min(room, int(self._lib.speckv_core_resident(self._core, int(tier), 0, None)))
        handles = np.empty(room, np.uint64)
        there = int(self._lib.speckv_core_resident(self._core, int(tier), room, address(handles)))
        return handles[: min(room, there)]

    def free_slots(self, tier: Tier) -> int:
        """Slots that the tier can still take."""
        return int(self._lib.speckv_core_free_slots(self._core, int(tier)))

    def total_slots(self, tier: Tier) -> int:
        """Slots that the tier's budget holds."""
        return int(self._lib.speckv_core_total_slots(self._core, int(tier)))

    def stats(self) -> CoreStats:
        stats = CoreStats()
        self._lib.speckv_core_get_stats(self._core, ctypes.byref(stats))
        return stats

    def layer_bytes(self) -> U64:
        """Record bytes of each layer, (layers,)."""
        sums = np.empty(self.layers, np.uint64)
        self._lib.speckv_core_layer_bytes(self._core, address(sums))
        return sums

    def block(self, handle: int) -> tuple[int, U64, U32]:
        """A block's references (0: stale), and the offsets and bytes of its records, (parts,)."""
        offsets, sizes = np.zeros(self.parts, np.uint64), np.zeros(self.parts, np.uint32)
        references = self._lib.speckv_core_block(
            self._core, int(handle), address(offsets), address(sizes)
        )
        return int(references), offsets, sizes

    def close(self) -> None:
        core, self._core = self._core, None
        if core is not None:
            self._lib.speckv_core_destroy(core)

    def __del__(self) -> None:
        if getattr(self, "_core", None) is not None:
            self.close()

    def _over(self, what: str, handles: U64, *tier: int) -> None:
        error = Error()
        function = getattr(self._lib, f"speckv_core_{what}")
        status = function(self._core, *tier, len(handles), address(handles), ctypes.byref(error))
        self._check(status, error, what)

    def _check(self, status: int, error: Error, what: str) -> None:
        if status:
            raise_error(status, error, what)
