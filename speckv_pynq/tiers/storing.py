"""Storing blocks: packed and coded in staging, then lines of L3 for the bytes that came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.config import TierConfig
from speckv_pynq.device.protocol import Completions, DeviceBuffer
from speckv_pynq.errors import PoolFull
from speckv_pynq.native import U32, U64, Core, Workers
from speckv_pynq.tiers.places import Places
from speckv_pynq.tiers.sharing import Key, SharedBlocks, content_key, first_of_equals
from speckv_pynq.tiers.staging import Staging

Keys = Sequence[Key | None]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Stored:
    """What has been stored since the manager was made, blocks but for `overflows`.

    coded: went through a kernel; shared: were held already; raw, int4: records in a plainer scheme than the one asked
    for; overflows: finite values that became infinite when packed.
    """

    coded: int = 0
    shared: int = 0
    raw: int = 0
    int4: int = 0
    overflows: int = 0


class Storer:
    """The way down, for one caller at a time."""

    def __init__(
        self,
        core: Core,
        staging: Staging,
        pool: DeviceBuffer,
        workers: Workers,
        scheme: spec.Scheme,
        config: TierConfig,
    ) -> None:
        self._core, self._staging, self._pool, self._workers = core, staging, pool, workers
        self._scheme, self._config = scheme, config
        self.shared = SharedBlocks(core)
        self.done = Stored()

    def put(self, layer: int, positions: U32, places: Places, keys: Keys | None) -> U64:
        """Handles of n blocks, (n,), each with a reference; all or nothing. keys: see TierManager.put."""
        asked = [0]

        def one_part(part: slice) -> U64:
            some = None if keys is None else keys[part]
            return self._put(layer, positions[part], places.pick(part), some, asked)

        return self._all_or_none(layer, len(positions), one_part, lambda: asked[0])

    def put_records(self, layer: int, positions: U32, records: Sequence[bytes]) -> U64:
        """Handles of blocks, (n,), whose records are there already, of all parts in a row each; all or nothing."""

        def one_part(part: slice) -> U64:
            sizes = self._staging.load(records[part])
            return self._store(layer, positions[part], np.arange(len(sizes)), sizes)

        asked = sum(map(len, records))
        return self._all_or_none(layer, len(positions), one_part, lambda: asked)

    def _all_or_none(
        self, layer: int, blocks: int, one_part: Callable[[slice], U64], asked: Callable[[], int]
    ) -> U64:
        """Handles, (blocks,), of as many blocks at a time as staging has room for. asked: bytes, for the message."""
        before, handles = self.done, np.zeros(blocks, np.uint64)
        try:
            for first in range(0, blocks, self._staging.blocks):
                part = slice(first, first + self._staging.blocks)
                handles[part] = one_part(part)
        except BaseException as error:
            self.done = before
            self._core.release(handles[handles != 0])
            if isinstance(error, PoolFull):
                raise self._full(layer, blocks, asked()) from error
            raise
        return handles

    def _put(
        self, layer: int, positions: U32, places: Places, keys: Keys | None, asked: list[int]
    ) -> U64:
        if keys is None or not any(keys):
            return self._code(layer, positions, places, asked)
        return self._once(
            keys, lambda new: self._code(layer, positions[new], places.pick(new), asked)
        )

    def _once(self, keys: Keys, make: Callable[[Indices], U64]) -> U64:
        """Handles, (n,): those held already by their keys, and what `make` gives for the first of each other key."""
        firsts, handles = first_of_equals(keys), self.shared.take(keys)
        try:
            new = np.flatnonzero((handles == 0) & (firsts == np.arange(len(firsts))))
            if len(new):
                handles[new] = make(new)
                self.shared.add([keys[i] for i in new.tolist()], handles[new])
            again = np.flatnonzero(handles == 0)
            self._core.retain(handles[firsts[again]])
        except BaseException:
            self._core.release(handles[handles != 0])
            raise
        handles[again] = handles[firsts[again]]
        self.done = replace(self.done, shared=self.done.shared + len(firsts) - len(new))
        return handles

    def _code(self, layer: int, positions: U32, places: Places, asked: list[int]) -> U64:
        """Codes what fits staging and stores the records that are not held already."""
        completions, overflows = self._encode(layer, positions, places)
        n = len(positions)
        sizes = completions["record_bytes"].reshape(n, -1)
        asked[0] += int(sizes.sum())
        if self._config.share_equal:
            keys = self._content_keys(sizes)
            handles = self._once(
                keys, lambda new: self._store(layer, positions[new], new, sizes[new])
            )
        else:
            handles = self._store(layer, positions, np.arange(n), sizes)
        done = self.done
        raw = np.count_nonzero(completions["flags"] & spec.Flag.RAW)
        int4 = self._staging.count(n, spec.Scheme.INT4) if self._scheme == spec.Scheme.KLT else 0
        self.done = replace(
            done,
            coded=done.coded + n,
            raw=done.raw + (0 if self._scheme == spec.Scheme.RAW else int(raw)),
            int4=done.int4 + int4,
            overflows=done.overflows + overflows,
        )
        return handles

    def _content_keys(self, sizes: npt.NDArray[np.uint32]) -> list[Key | None]:
        memory = self._staging.buffer.array
        slots = self._staging.record_slots(len(sizes))
        return [
            content_key(memory[at : at + size] for at, size in zip(places, parts, strict=True))
            for places, parts in zip(slots.tolist(), sizes.tolist(), strict=True)
        ]

    def _encode(self, layer: int, positions: U32, places: Places) -> tuple[Completions, int]:
        """Codes what fits staging; completions, (n * parts,), and how many values overflowed."""
        staging, n = self._staging, len(positions)
        overflows = places.pack(staging.buffer, staging.slots(n), self._workers)
        staging.buffer.sync_to_device(0, n * staging.slot_bytes)
        completions = staging.encode(layer, positions)
        staging.buffer.sync_from_device(staging.half_bytes, n * staging.slot_bytes)
        return completions, overflows

    def _store(
        self, layer: int, positions: U32, which: Indices, sizes: npt.NDArray[np.uint32]
    ) -> U64:
        """Copies the records of these staging slots to lines of L3."""
        slots = self._staging.record_slots(int(which.max(initial=-1)) + 1)[which]
        handles, first, end = self._core.put(
            layer, positions, self._staging.buffer.array, slots, sizes
        )
        self._pool.sync_to_device(first, end - first)
        return handles

    def _full(self, layer: int, blocks: int, asked: int) -> PoolFull:
        used = self._core.stats().used_bytes[2]
        return PoolFull(
            f"L3 holds {used} of {self._config.l3_bytes} bytes; {blocks} blocks of layer {layer} "
            f"need {asked} or more: raise l3_bytes or release blocks"
        )
