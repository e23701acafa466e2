"""L1 by owner: what belongs to those worth least leaves first; what each is worth is told from above."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from speckv_pynq.native import F64, U64, Core, Tier
from speckv_pynq.tiers.policies import NOBODY, Admission

_ENTRY_BYTES = 200  # of a block in two dicts, its key included


class RankedPolicy:
    """Fills L1 as DensePolicy does; once it is full, a miss takes the place of a block whose owner is worth less.

    worth: of owners, (n,); called with `lock` held. Blocks of nobody are worth nothing. Owners may be given from any
    thread.
    """

    wants_hits = False

    def __init__(
        self, worth: Callable[[list[int]], F64], lock: AbstractContextManager[Any]
    ) -> None:
        self._worth, self._lock = worth, lock
        self._owner: dict[int, int] = {}
        self._blocks: dict[
            int, dict[int, bool]
        ] = {}  # by owner: handle, whether it was given a slot of L1

    def assign(self, handles: U64, owner: int) -> None:
        """These blocks are the owner's from now on."""
        with self._lock:
            blocks = self._blocks.setdefault(owner, {})
            for handle in handles.tolist():
                blocks[handle] = self._leave(handle)
                self._owner[handle] = owner

    def drop(self, handles: U64) -> None:
        """These are nobody's any more."""
        with self._lock:
            for handle in handles.tolist():
                self._leave(handle)

    def blocks(self, owner: int) -> U64:
        """Its handles, (n,), in the order given."""
        with self._lock:
            held = self._blocks.get(owner, {})
            return np.fromiter(held, np.uint64, len(held))

    def admit(self, core: Core, hits: U64 | None, misses: U64) -> Admission:
        if not len(misses) or not core.total_slots(Tier.L1):
            return NOBODY
        with self._lock:
            short = len(misses) - core.free_slots(Tier.L1)
            if short > 0:
                self._make_room(core, misses, short)
            entering = misses[: core.free_slots(Tier.L1)]
            if not len(entering):
                return NOBODY
            offsets = core.admit(Tier.L1, entering)
            for handle in entering.tolist():
                owner = self._owner.get(handle)
                if owner is not None:
                    self._blocks[owner][handle] = True
            return Admission(0, offsets)

    def hot_blocks(self, core: Core) -> int:
        return 0

    @property
    def nbytes(self) -> int:
        return _ENTRY_BYTES * len(self._owner)

    def _make_room(self, core: Core, misses: U64, short: int) -> None:
        """Up to `short` blocks leave, those whose owners are worth less than those of the misses."""
        asking = {self._owner.get(handle) for handle in misses.tolist()}
        owners = [owner for owner, blocks in self._blocks.items() if blocks and owner not in asking]
        known = [owner for owner in asking if owner is not None]
        worth = self._worth(owners + known)
        least = worth[len(owners) :].min(initial=np.inf) if known else 0.0
        self._evict_strays(core, short, least)
        for at in np.argsort(worth[: len(owners)], kind="stable").tolist():
            missing = len(misses) - core.free_slots(Tier.L1)
            if missing <= 0 or worth[at] >= least:
                return
            self._evict(core, owners[at], missing)

    def _evict_strays(self, core: Core, short: int, least: float) -> None:
        """Residents of nobody."""
        if least <= 0:
            return
        there = core.resident(Tier.L1)
        strays = [handle for handle in there.tolist() if handle not in self._owner]
        if strays:
            core.evict(Tier.L1, np.array(strays[:short], np.uint64))

    def _evict(self, core: Core, owner: int, most: int) -> None:
        """Its last blocks: what stays is the beginning of a sequence."""
        blocks = self._blocks[owner]
        handles = np.array([handle for handle, was in blocks.items() if was], np.uint64)
        there = handles[~np.isnan(core.heats(Tier.L1, handles))]
        core.evict(Tier.L1, there[-most:])
        blocks.update(dict.fromkeys(handles.tolist(), False))
        blocks.update(dict.fromkeys(there[:-most].tolist(), True))

    def _leave(self, handle: int) -> bool:
        owner = self._owner.pop(handle, None)
        return owner is not None and self._blocks[owner].pop(handle)
