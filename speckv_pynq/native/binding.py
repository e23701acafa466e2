"""Loads libspeckv.so, types the functions of speckv_core.h, turns their statuses into errors."""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import numpy.typing as npt

from speckv_pynq.device import library
from speckv_pynq.errors import DependencyMissing, PoolFull, SpeckvError, StaleHandle
from speckv_pynq.native.layout import Error

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

_BAD_ARGUMENT, _STALE_HANDLE, _POOL_FULL, _NO_MEMORY = 1, 2, 3, 4


@functools.cache
def load() -> ctypes.CDLL:
    """libspeckv.so with the core's functions typed."""
    found = library.load()
    try:
        bind(found.cdll)
    except AttributeError as error:
        raise DependencyMissing(
            f"{found.path} lacks the tier core ({error}): build it anew from this source tree"
        ) from error
    return found.cdll


def bind(cdll: ctypes.CDLL) -> None:
    """Types the functions of speckv_core.h."""
    pointer, u32, u64, i32 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32
    tables: dict[str, tuple[list[type], type | None]] = {
        "core_create": ([pointer, pointer], i32),
        "core_destroy": ([pointer], None),
        "core_put": ([pointer, u32, u32, *[pointer] * 7], i32),
        "core_plan_get": ([pointer, u32, pointer, pointer, pointer], i32),
        "core_retain": ([pointer, u32, pointer, pointer], i32),
        "core_release": ([pointer, u32, pointer, pointer], i32),
        "core_admit": ([pointer, u32, u32, u32, pointer, pointer, pointer], i32),
        "core_evict": ([pointer, u32, u32, pointer, pointer], i32),
        "core_reserve": ([pointer, u32, u32, u32, pointer, pointer], i32),
        "core_install": ([pointer, u32, u32, *[pointer] * 4], i32),
        "core_touch": ([pointer, u32, pointer, pointer], i32),
        "core_warm": ([pointer, u32, pointer, ctypes.c_double, pointer, pointer], i32),
        "core_heats": ([pointer, u32, u32, pointer, pointer, pointer], i32),
        "core_resident": ([pointer, u32, u64, pointer], u64),
        "core_free_slots": ([pointer, u32], u64),
        "core_total_slots": ([pointer, u32], u64),
        "core_get_stats": ([pointer, pointer], None),
        "core_layer_bytes": ([pointer, pointer], None),
        "core_block": ([pointer, u64, pointer, pointer], u32),
        "page_table_create": ([pointer], i32),
        "page_table_destroy": ([pointer], None),
        "page_table_map": ([pointer, u32, *[pointer] * 4], i32),
        "page_table_unmap": ([pointer, u32, *[pointer] * 3], i32),
        "page_table_lookup": ([pointer, u32, *[pointer] * 3], i32),
        "page_table_blocks": ([pointer, u32, u64, pointer, pointer], u64),
        "page_table_free": ([pointer, u32, u64, pointer], u64),
        "page_table_get_stats": ([pointer, pointer], None),
        "workers_create": ([u32, pointer], i32),
        "workers_destroy": ([pointer], None),
        "pack_blocks": ([pointer, pointer, pointer, pointer], i32),
        "unpack_blocks": ([pointer, pointer, pointer, pointer], i32),
        "pack_level": ([], ctypes.c_char_p),
        "key_promise": ([pointer, pointer, u32, pointer, pointer], i32),
    }
    for name, (arguments, result) in tables.items():
        function = getattr(cdll, f"speckv_{name}")
        function.argtypes, function.restype = arguments, result


def address(array: npt.NDArray[np.generic]) -> int:
    """Where an array begins; cheaper than array.ctypes."""
    return int(array.__array_interface__["data"][0])


def as_u64(values: npt.ArrayLike) -> U64:
    return np.ascontiguousarray(values, np.uint64)


def as_u32(values: npt.ArrayLike) -> U32:
    return np.ascontiguousarray(values, np.uint32)


def raise_error(status: int, error: Error, what: str) -> None:
    place = f"{what}: element {error.index}"
    if status == _BAD_ARGUMENT:
        raise ValueError(f"{place}: {error.value} against the limit {error.limit}")
    if status == _STALE_HANDLE:
        raise StaleHandle(f"{place}: handle {error.value:#x} is not of a block: released before?")
    if status == _POOL_FULL:
        raise PoolFull(f"{place}: {error.value} bytes asked of a budget of {error.limit}: full")
    if status == _NO_MEMORY:
        raise MemoryError(f"{what}: the host has no memory for the core's tables or threads")
    raise SpeckvError(f"{what}: the native core failed ({status})")
