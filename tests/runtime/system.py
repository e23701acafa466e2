"""What tests of the C library's memory system share: small systems, what a record decodes to, damage."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.allocator import AllocatorConfig, SpeckvAllocator
from speckv_pynq.native import system as native
from speckv_pynq.reference import BlockInfo, decode_record, encode_record

LAYERS, HEADS, HEAD_DIM, TOKENS = 2, 1, 64, 16
SHAPE = (2, TOKENS, HEADS, HEAD_DIM)
BLOCK = 2 * TOKENS * HEADS * HEAD_DIM * 2
RECORD = BLOCK + 64  # of a raw block
FRAME = spec.FRAME_BYTES


def small(**settings: Any) -> SpeckvAllocator:
    """A system of 4 KiB blocks that never waits and whose views never end by themselves."""
    defaults: dict[str, Any] = {
        "layers": LAYERS, "kv_heads": HEADS, "head_dim": HEAD_DIM, "block_tokens": TOKENS,
        "scheme": spec.Scheme.RAW, "l1_bytes": 3 * BLOCK, "l2_bytes": 2 * BLOCK, "l3_bytes": 32 * FRAME,
        "threads": 0, "lease_timeout_ms": 0, "wait_timeout_ms": 0,
    }  # fmt: skip
    return SpeckvAllocator(AllocatorConfig(**{**defaults, **settings}))


def block_of(seed: int) -> np.ndarray:
    """SHAPE uint16: fp16 bits of numbers as caches have them."""
    values = np.random.default_rng(seed).normal(0, 2, SHAPE)
    return values.astype(np.float16).view(np.uint16)


@functools.lru_cache(maxsize=512)
def _coded(data: bytes, scheme: spec.Scheme, layer: int, position: int) -> bytes:
    k, v = np.frombuffer(data, np.uint16).reshape(SHAPE)
    identity = {"first_layer": layer, "first_position": position}
    record = encode_record(k, v, scheme, dtype=spec.DType.FP16, **identity)
    info = BlockInfo(TOKENS, HEADS, HEAD_DIM, **identity)
    return np.stack(decode_record(record, info)).tobytes()  # type: ignore[arg-type]


def coded(bits: np.ndarray, scheme: spec.Scheme, layer: int, block: int) -> np.ndarray:
    """What a block is once it was coded and decoded, by the reference."""
    data = _coded(bits.tobytes(), spec.Scheme(scheme), layer, block * TOKENS)
    return np.frombuffer(data, np.uint16).reshape(SHAPE)


def pool_of(allocator: SpeckvAllocator) -> np.ndarray:
    """L3's memory, uint8."""
    strides = native.Strides()
    allocator.lib.speckv_layout(allocator._system, ctypes.byref(strides))
    return np.frombuffer((ctypes.c_uint8 * strides.l3_bytes).from_address(strides.l3), np.uint8)


def records_in(pool: np.ndarray, layer: int, block: int) -> list[tuple[int, int]]:
    """(first byte, bytes without padding) of what looks like a record of this block, stale ones included."""
    out = []
    for line in np.flatnonzero(pool.view(np.uint32)[::16] == spec.MAGIC):
        start = int(line) * 64
        header = pool[start : start + 64].view(spec.RECORD_HEADER)[0]
        if (header["first_layer"], header["first_position"]) == (layer, block * TOKENS):
            out.append((start, 64 + min(int(header["payload_bytes"]), len(pool) - start - 64)))
    return out
