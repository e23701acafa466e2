"""The structures of speckv_core.h for ctypes, field by field."""

from __future__ import annotations

import ctypes

_U32, _U64, _POINTER = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p


class Error(ctypes.Structure):
    """Which element of a call failed, what it was, and its bound."""

    index: int
    value: int
    limit: int
    _fields_ = (("index", _U32), ("pad", _U32), ("value", _U64), ("limit", _U64))


class CoreConfig(ctypes.Structure):
    """Memory, budgets and shape; arrays are in the order L1, L2, L3."""

    parts: int
    layers: int
    _fields_ = (
        ("base", _POINTER * 3),
        ("bytes", _U64 * 3),
        ("give_back", _U32 * 3),
        ("frame_bytes", _U32),
        ("block_bytes", _U32),
        ("parts", _U32),
        ("layers", _U32),
        ("pad", _U32),
    )


class CoreStats(ctypes.Structure):
    """What the core holds and has counted; arrays are in the order L1, L2, L3."""

    blocks: int
    references: int
    record_bytes: int
    held_bytes: ctypes.Array[ctypes.c_uint64]
    used_bytes: ctypes.Array[ctypes.c_uint64]
    slots: ctypes.Array[ctypes.c_uint64]
    metadata_bytes: int
    hits: ctypes.Array[ctypes.c_uint64]
    misses: int
    free_runs: int
    _fields_ = (
        ("blocks", _U64),
        ("references", _U64),
        ("record_bytes", _U64),
        ("held_bytes", _U64 * 3),
        ("used_bytes", _U64 * 3),
        ("slots", _U64 * 3),
        ("metadata_bytes", _U64),
        ("hits", _U64 * 2),
        ("misses", _U64),
        ("free_runs", _U64),
    )


class Plan(ctypes.Structure):
    """Arrays that a look-up fills, then how many misses and hits there are."""

    misses: int
    hits: ctypes.Array[ctypes.c_uint32]
    _fields_ = (
        ("tiers", _POINTER),
        ("offsets", _POINTER),
        ("sources", _POINTER),
        ("miss_handles", _POINTER),
        ("miss_positions", _POINTER),
        ("miss_layers", _POINTER),
        ("record_offsets", _POINTER),
        ("record_bytes", _POINTER),
        ("misses", _U32),
        ("hits", _U32 * 2),
        ("uncounted", _U32),
    )


class Tensor(ctypes.Structure):
    """A strided (batch, heads, tokens, head_dim) tensor; strides in elements, the last one is 1."""

    data: int | None
    dtype: int
    _fields_ = (
        ("data", _POINTER),
        ("strides", ctypes.c_int64 * 3),
        ("sizes", _U32 * 3),
        ("dtype", _U32),
    )


class Pack(ctypes.Structure):
    """A call of pack or unpack."""

    _fields_ = (
        ("key", Tensor),
        ("value", Tensor),
        ("slots", _POINTER),
        ("slots_bytes", _U64),
        ("slot_offsets", _POINTER),
        ("rows", _POINTER),
        ("first_tokens", _POINTER),
        ("count", _U32),
        ("tokens", _U32),
        ("heads", _U32),
        ("head_dim", _U32),
        ("first_head", _U32),
        ("dtype", _U32),
        ("level", _U32),
        ("pad", _U32),
    )


class Keys(ctypes.Structure):
    """What is kept of a layer's keys."""

    _fields_ = (
        ("bounds", _POINTER),
        ("halves", _POINTER),
        ("open", _POINTER),
        ("room", _U64),
        ("tokens", _U64),
        ("rows", _U32),
        ("kv_heads", _U32),
        ("head_dim", _U32),
        ("block_tokens", _U32),
    )
