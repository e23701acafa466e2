"""speckv.h for ctypes: its structures field by field, its functions typed, its results as errors."""

from __future__ import annotations

import ctypes
from pathlib import Path

from speckv_pynq.device import library
from speckv_pynq.errors import (
    ConfigError,
    DependencyMissing,
    LeaseTimeout,
    NotWritten,
    PoolFull,
    RecordError,
    SpeckvError,
    StaleHandle,
)

_U32, _U64, _POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p


class Config(ctypes.Structure):
    """struct speckv_config."""

    _fields_ = (
        *((name, _U32) for name in ("struct_size", "layers", "kv_heads", "head_dim")),
        *((name, _U32) for name in ("block_tokens", "dtype", "scheme", "policy")),
        *((name, _U64) for name in ("l1_bytes", "l2_bytes", "l3_bytes")),
        *((name, _U32) for name in ("prefetch_depth", "threads")),
        *((name, _U32) for name in ("lease_timeout_ms", "wait_timeout_ms")),
        ("layout_fingerprint", _U64),
    )


class ViewFields(ctypes.Structure):
    """struct speckv_view."""

    data: int
    block: int
    id: int
    deadline_ns: int
    first_position: int
    mode: int
    _fields_ = (
        ("data", _POINTER),
        ("block", _POINTER),
        ("id", _U64),
        ("deadline_ns", _U64),
        ("first_position", _U32),
        ("mode", _U32),
    )


class Strides(ctypes.Structure):
    """struct speckv_strides."""

    entry_bytes: int
    block_bytes: int
    l1: int
    l1_slots: int
    l3: int
    l3_bytes: int
    _fields_ = (
        *((name, _U64) for name in ("entry_bytes", "token_bytes", "kind_bytes", "block_bytes")),
        ("l1", _POINTER),
        ("l1_slots", _U64),
        ("l3", _POINTER),
        ("l3_bytes", _U64),
    )


COUNTERS = (
    ("requests", 1), ("blocks", 1), ("dirty_blocks", 1), ("leases", 1), ("budget_bytes", 3),
    ("held_bytes", 3), ("used_bytes", 3), ("metadata_bytes", 1), ("staging_bytes", 1), ("hits_l1", 1),
    ("hits_l2", 1), ("misses", 1), ("created", 1), ("copied", 1), ("evictions", 1), ("write_backs", 1),
    ("bad_records", 1), ("expired_leases", 1), ("prefetched", 1), ("prefetch_dropped", 1),
)  # fmt: skip


class Counters(ctypes.Structure):
    """struct speckv_counters."""

    _fields_ = tuple((name, _U64 if count == 1 else _U64 * count) for name, count in COUNTERS)


class Error(ctypes.Structure):
    """struct speckv_error."""

    kernel_status: int
    value: int
    limit: int
    what: bytes
    _fields_ = (
        ("result", ctypes.c_int32),
        ("kernel_status", _U32),
        ("value", _U64),
        ("limit", _U64),
        ("what", ctypes.c_char_p),
    )


def load(path: Path | None = None) -> ctypes.CDLL:
    """libspeckv.so with the functions of speckv.h typed; DependencyMissing where it lacks one."""
    found = library.load(path)
    i32, system = ctypes.c_int32, _POINTER
    tables: dict[str, tuple[list[type], type | None]] = {
        "config_init": ([_POINTER], None),
        "init": ([_POINTER, _POINTER], i32),
        "shutdown": ([system], None),
        "alloc": ([system, _U32, _U32], i32),
        "free": ([system, _U32], i32),
        "fork": ([system, _U32, _U32], i32),
        "access": ([system, _U64, _U64, _U32, _POINTER], i32),
        "seek": ([system, _U64, _U64, _POINTER], i32),
        "access_batch": ([system, _U32, _POINTER, _U32, _POINTER, _POINTER], i32),
        "release": ([system, _POINTER], i32),
        "prefetch": ([system, _U32, _U32, _U32, _U32], i32),
        "set_prefetch_depth": ([system, _U32], i32),
        "set_compression_scheme": ([system, _U32], i32),
        "stats": ([system, _POINTER], i32),
        "layout": ([system, _POINTER], i32),
        "strerror": ([i32], ctypes.c_char_p),
        "last_error": ([_POINTER], None),
        "measure_hits": ([system, _U32, _POINTER, _U32, _POINTER], i32),
    }
    try:
        for name, (arguments, result) in tables.items():
            function = getattr(found.cdll, f"speckv_{name}")
            function.argtypes, function.restype = arguments, result
    except AttributeError as error:
        raise DependencyMissing(
            f"{found.path} lacks the memory system ({error}): build it anew from this source tree"
        ) from error
    return found.cdll


_ERRORS: dict[int, type[Exception]] = {
    1: ConfigError, 2: NotWritten, 3: NotWritten, 4: PoolFull, 5: MemoryError, 6: LeaseTimeout,
    8: StaleHandle, 9: ConfigError,
}  # fmt: skip
_BAD_RECORD = 7


def failure(lib: ctypes.CDLL, result: int, call: str) -> Exception:
    """The error that a result of `call` stands for, with the value and the limit of this thread."""
    error = Error()
    lib.speckv_last_error(ctypes.byref(error))
    what = error.what.decode() or "value"
    text = (
        f"{call}: {lib.speckv_strerror(result).decode()}: {what} {error.value}, limit {error.limit}"
    )
    if result == _BAD_RECORD:
        return RecordError(text, status=error.kernel_status, value=error.value, limit=error.limit)
    return _ERRORS.get(result, SpeckvError)(text)
