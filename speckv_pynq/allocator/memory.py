"""The C library's memory system for Python: KV entries by address, blocks in three tiers."""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.address import WORD_BITS, WORD_MASK
from speckv_pynq.allocator.config import AllocatorConfig, AllocatorStats
from speckv_pynq.allocator.view import READ, Array, Cursor, View
from speckv_pynq.block import NUMPY_DTYPES
from speckv_pynq.closing import Closing
from speckv_pynq.errors import ConfigError
from speckv_pynq.native import system as native

_FIELD_BITS = {name: bits for name, bits, _ in spec.ADDRESS_FIELDS}
# For access(), whose hits are counted in microseconds: the widths and shifts of pack_address().
_REQ_BITS, _LAYER_BITS, _HEAD_BITS, _POS_BITS, _KIND_BITS = _FIELD_BITS.values()
_REQ, _LAYER, _HEAD, _POS, _KIND = (shift for _, _, shift in spec.ADDRESS_FIELDS)


class SpeckvAllocator(Closing):
    """KV entries by (req_id, layer, head, pos, kind); kind 0 is the key. Safe from several threads.

    Elements are float16, float32, or uint16 (bf16 bits). Errors: ConfigError for arguments,
    NotWritten for positions without content, PoolFull, MemoryError, LeaseTimeout, RecordError (a
    damaged record: overwrite the block or free the request), StaleHandle for a view that ended.
    A call that raises has changed nothing.
    """

    def __init__(self, config: AllocatorConfig, *, lib_path: str | Path | None = None) -> None:
        self.config = config
        self.prefetch_depth = config.prefetch_depth
        self.lib = lib = native.load(None if lib_path is None else Path(lib_path))
        system = ctypes.c_void_p()
        self._check(lib.speckv_init(ctypes.byref(config.native()), ctypes.byref(system)), "init")
        self._system: int | None = system.value
        strides = native.Strides()
        lib.speckv_layout(system, ctypes.byref(strides))
        self._l1, self._entry_bytes = strides.l1, strides.entry_bytes
        self._block_bytes = strides.block_bytes
        memory = (ctypes.c_uint8 * (strides.l1_slots * strides.block_bytes)).from_address(
            strides.l1
        )
        # Arrays keep `memory` alive, and the library lives as long as it does.
        self._shutdown = weakref.finalize(memory, lib.speckv_shutdown, system.value)
        shape = (2, config.block_tokens, config.kv_heads, config.head_dim)
        elements = np.frombuffer(memoryview(memory), NUMPY_DTYPES[spec.DType(config.dtype)])
        constant = elements.view()
        constant.flags.writeable = False
        both = (constant, elements)
        self._entries: tuple[Array, ...] = tuple(a.reshape(-1, config.head_dim) for a in both)
        self._blocks: tuple[Array, ...] = tuple(a.reshape(-1, *shape) for a in both)
        self._access, self._release = lib.speckv_access, lib.speckv_release

    def alloc(self, req_id: int, tokens: int) -> None:
        """Lets a request use positions 0..tokens-1, rounded up to blocks; a region only grows."""
        self._check_fields(req_id=req_id, pos=tokens)
        self._check(self.lib.speckv_alloc(self._system, req_id, tokens), "alloc")

    def access(
        self, req_id: int, layer: int, head: int, pos: int, kind: int = 0, mode: int = READ
    ) -> View:
        """A view of one entry, and of its block. OVERWRITE does not fetch what the block held."""
        if (
            req_id >> _REQ_BITS
            or layer >> _LAYER_BITS
            or head >> _HEAD_BITS
            or pos >> _POS_BITS
            or kind >> _KIND_BITS
        ):
            self._check_fields(req_id=req_id, layer=layer, head=head, pos=pos, kind=kind)
        view = View()
        view._owner = self
        packed = req_id << _REQ | layer << _LAYER | head << _HEAD | pos << _POS | kind << _KIND
        self.access_packed(packed >> WORD_BITS, packed & WORD_MASK, mode, view)
        return view

    def access_packed(self, high: int, low: int, mode: int, view: View) -> None:
        """access() for a packed address, into a view of this allocator that holds nothing."""
        result = self._access(self._system, high, low, mode, ctypes.byref(view))
        if result:
            raise native.failure(self.lib, result, "access")

    def cursor(self) -> Cursor:
        """For reading many entries one by one: a hit costs a fraction of access() and release()."""
        return Cursor(self)

    def access_batch(self, addresses: npt.ArrayLike, mode: int = READ) -> list[View]:
        """Views of all addresses, (n, 2) uint64 high and low words, or none and an error."""
        table = np.ascontiguousarray(addresses, np.uint64)
        if table.ndim != 2 or table.shape[1] != 2:
            raise ConfigError(f"addresses {table.shape}, not (n, 2)")
        n = len(table)
        views, results = (View * n)(), (ctypes.c_int32 * n)()
        first = self.lib.speckv_access_batch(
            self._system, n, table.ctypes.data, mode, views, results
        )
        out = list(views)
        for view in out:
            view._owner = self
        if first:
            error = native.failure(self.lib, first, "access")
            for view in out:
                if view.id:
                    self.release(view)
            raise error
        return out

    def release(self, view: View) -> None:
        """Ends a view; StaleHandle when it had ended, and a writer's last words may be lost."""
        result = self._release(self._system, ctypes.byref(view))
        if result:
            raise native.failure(self.lib, result, "release")

    def prefetch(self, req_id: int, layer: int, cur_pos: int, depth: int = 0) -> None:
        """Asks for `depth` blocks (0: the configured depth) from cur_pos on; returns at once."""
        self._check_fields(req_id=req_id, layer=layer, pos=cur_pos)
        result = self.lib.speckv_prefetch(self._system, req_id, layer, cur_pos, depth)
        self._check(result, "prefetch")

    def free(self, req_id: int) -> None:
        """Ends a request; blocks that no other shares leave all tiers."""
        self._check_fields(req_id=req_id)
        self._check(self.lib.speckv_free(self._system, req_id), "free")

    def fork(self, from_id: int, to_id: int) -> None:
        """Makes the new request `to_id` a copy; blocks are shared until one of them writes."""
        self._check_fields(req_id=from_id)
        self._check_fields(req_id=to_id)
        self._check(self.lib.speckv_fork(self._system, from_id, to_id), "fork")

    def set_prefetch_depth(self, depth: int) -> None:
        self._check_fields(pos=depth)
        self._check(self.lib.speckv_set_prefetch_depth(self._system, depth), "set_prefetch_depth")
        self.prefetch_depth = depth

    def set_compression_scheme(self, scheme: spec.Scheme) -> None:
        """For blocks that are made from now on."""
        result = self.lib.speckv_set_compression_scheme(self._system, int(scheme))
        self._check(result, "set_compression_scheme")

    def measure_hits(self, addresses: npt.NDArray[np.uint64], rounds: int) -> float:
        """Seconds that `rounds` times a view of each address, (n, 2), and its release take in C."""
        table, seconds = np.ascontiguousarray(addresses, np.uint64), ctypes.c_double()
        result = self.lib.speckv_measure_hits(
            self._system, len(table), table.ctypes.data, rounds, ctypes.byref(seconds)
        )
        self._check(result, "measure_hits")
        return seconds.value

    def stats(self) -> AllocatorStats:
        counters = native.Counters()
        self._check(self.lib.speckv_stats(self._system, ctypes.byref(counters)), "stats")
        values: dict[str, Any] = {
            name: getattr(counters, name) if count == 1 else tuple(getattr(counters, name))
            for name, count in native.COUNTERS
        }
        return AllocatorStats(**values)

    def close(self) -> None:
        """Frees everything, as soon as no array of a view is left."""
        self._system = None  # the library answers every further call with an error
        self._entries = self._blocks = ()

    def _check(self, result: int, call: str) -> None:
        if result:
            raise native.failure(self.lib, result, call)

    def _check_fields(self, **fields: int) -> None:
        for name, value in fields.items():
            if not 0 <= value < 1 << _FIELD_BITS[name]:
                raise ConfigError(f"{name} {value} is outside 0..{(1 << _FIELD_BITS[name]) - 1}")
