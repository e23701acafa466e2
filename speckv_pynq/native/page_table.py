"""The page table: where the block of an address is, many at a time."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speckv_pynq.native.binding import U32, U64, address, as_u32, as_u64, load, raise_error
from speckv_pynq.native.layout import Error


@dataclass(frozen=True)
class PageTableStats:
    """What a table holds."""

    entries: int  # keys mapped
    requests: int  # that have at least one
    capacity: int  # places of the hash table
    metadata_bytes: int  # everything the table has allocated


def block_keys(request: npt.ArrayLike, layer: npt.ArrayLike, block: npt.ArrayLike) -> U32:
    """Keys, (n, 3) uint32, from columns that broadcast; ValueError where one does not fit its width."""
    columns = np.broadcast_arrays(*(np.atleast_1d(column) for column in (request, layer, block)))
    keys = np.empty((columns[0].size, 3), np.uint32)
    for i, (name, column) in enumerate(zip(("request", "layer", "block"), columns, strict=True)):
        limit = 0xFFFF if name == "layer" else 0xFFFF_FFFF
        if column.size and not 0 <= int(column.min()) <= int(column.max()) <= limit:
            raise ValueError(f"{name} {column.min()}..{column.max()} is not within 0..{limit}")
        keys[:, i] = column.reshape(-1)
    return keys


class PageTable:
    """Keys of blocks to 64-bit handles; may be called from any thread.

    keys: (n, 3) uint32: request, layer, position // block_tokens (see block_keys). Handles are those
    of Core, or any number but 0, which says that a key is not mapped.
    """

    def __init__(self) -> None:
        self._lib = load()
        self._table: ctypes.c_void_p | None = None
        table = ctypes.c_void_p()
        status = self._lib.speckv_page_table_create(ctypes.byref(table))
        if status:
            raise_error(status, Error(), "page table")
        self._table = table

    def map(self, keys: U32, handles: U64) -> U64:
        """Maps all keys or none; the handles they had before, (n,), 0 for none."""
        handles = as_u64(handles)
        if handles.shape != keys.shape[:1]:
            raise ValueError(f"handles {handles.shape} for keys {keys.shape}")
        return self._over("map", keys, address(handles))

    def unmap(self, keys: U32) -> U64:
        """Takes keys out; the handles they had, (n,), 0 for none."""
        return self._over("unmap", keys)

    def lookup(self, keys: U32) -> U64:
        """Handles, (n,), 0 for a key that is not mapped."""
        return self._over("lookup", keys)

    def blocks(self, request: int) -> tuple[U32, U64]:
        """Keys, (n, 3), and handles, (n,), of a request, oldest mapping first."""
        room = int(self._lib.speckv_page_table_blocks(self._table, request, 0, None, None))
        keys, handles = np.empty((room, 3), np.uint32), np.empty(room, np.uint64)
        there = int(
            self._lib.speckv_page_table_blocks(
                self._table, request, room, address(keys), address(handles)
            )
        )
        return keys[:there], handles[:there]

    def free_request(self, request: int) -> U64:
        """Takes all keys of a request out, in time proportional to their number; their handles, (n,)."""
        room = 0
        while True:  # another thread may map more between the two calls
            handles = np.empty(room, np.uint64)
            count = int(
                self._lib.speckv_page_table_free(self._table, request, room, address(handles))
            )
            if count <= room:
                return handles[:count]
            room = count

    def stats(self) -> PageTableStats:
        sums = (ctypes.c_uint64 * 4)()
        self._lib.speckv_page_table_get_stats(self._table, sums)
        return PageTableStats(*sums)

    def close(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            self._lib.speckv_page_table_destroy(table)

    def __del__(self) -> None:
        if getattr(self, "_table", None) is not None:
            self.close()

    def _over(self, what: str, keys: U32, *handles: int) -> U64:
        keys = as_u32(keys)
        if keys.ndim != 2 or keys.shape[1] != 3:
            raise ValueError(f"keys {keys.shape}, not (n, 3)")
        out, error = np.empty(len(keys), np.uint64), Error()
        status = getattr(self._lib, f"speckv_page_table_{what}")(
            self._table, len(keys), address(keys), *handles, address(out), ctypes.byref(error)
        )
        if status:
            raise_error(status, error, f"page table {what}")
        return out
