"""Leased entries: one view each, or a cursor that walks."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from speckv_pynq.closing import Closing
from speckv_pynq.native import system as native

if TYPE_CHECKING:
    from speckv_pynq.allocator.memory import SpeckvAllocator

READ, WRITE, OVERWRITE = 0, 1, 2
Array = npt.NDArray[np.generic]


class View(native.ViewFields):
    """A leased entry. `with` ends the lease, so does SpeckvAllocator.release.

    `data` is the entry's address; arrays of a view must not be used after its lease.
    """

    _owner: SpeckvAllocator

    @property
    def entry(self) -> Array:
        """The entry, (head_dim,); a view for reading gives a read-only array."""
        return self._owner._entries[self.mode != READ][
            (self.data - self._owner._l1) // self._owner._entry_bytes
        ]

    @property
    def array(self) -> Array:
        """The whole block, (2, block_tokens, kv_heads, head_dim): K, then V."""
        return self._owner._blocks[self.mode != READ][
            (self.block - self._owner._l1) // self._owner._block_bytes
        ]

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exception: object) -> None:
        self._owner.release(self)


class Cursor(Closing):
    """Reads one entry after another and holds the block of the last: the cheapest way from Python.

    Not for several threads at once. Its array is valid until the next read, or close().
    """

    def __init__(self, owner: SpeckvAllocator) -> None:
        self._owner = owner
        self._view = View()
        self._view._owner = owner
        # Without a release of the GIL and with its arguments made once: half the time of a call. It never waits.
        self._seek = ctypes.PyDLL(owner.lib._name)["speckv_seek"]
        self._high, self._low = ctypes.c_uint64(), ctypes.c_uint64()
        self._system, self._at = ctypes.c_void_p(owner._system), ctypes.byref(self._view)
        self._entries, self._first = owner._entries[READ], owner._l1
        self._entry_bytes = owner._entry_bytes

    def read(self, high: int, low: int) -> Array:
        """The entry of a packed address (speckv_pynq.address.pack_address), (head_dim,), read-only."""
        self._high.value, self._low.value = high, low
        if self._seek(self._system, self._high, self._low, self._at):
            self._fetch(high, low)
        return self._entries[(self._view.data - self._first) // self._entry_bytes]

    def close(self) -> None:
        """Gives the last block free."""
        if self._view.id:
            self._owner.release(self._view)

    def _fetch(self, high: int, low: int) -> None:
        self.close()
        self._owner.access_packed(high, low, READ, self._view)
