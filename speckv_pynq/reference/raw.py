"""Scheme `raw`: the payload is the bytes of K, then the bytes of V, in C order (tokens, heads, head_dim)."""

from __future__ import annotations

import numpy as np


def encode(arrays: list[np.ndarray]) -> bytes:
    """arrays: K and V, or the one that the record holds; uint16 or uint32 bit patterns -> payload."""
    return b"".join(a.astype(a.dtype.newbyteorder("<"), order="C").tobytes() for a in arrays)


def decode(payload: bytes, count: int, shape: tuple[int, ...], bits: np.dtype) -> list[np.ndarray]:
    """payload -> `count` arrays of `shape`; its length was checked against the shape before."""
    array = np.frombuffer(payload, bits.newbyteorder("<")).astype(bits)
    return list(array.reshape(count, *shape))
