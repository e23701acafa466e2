"""What blocks of keys promise queries, in native code."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from speckv_pynq.native.binding import U8, address, load, raise_error
from speckv_pynq.native.layout import Error, Keys

F32 = npt.NDArray[np.float32]


def key_promise(bounds: F32, halves: U8, unfinished: F32, tokens: int, queries: F32) -> F32:
    """(rows, blocks) float32: shares of attention, mean over query heads.

    bounds: (rows, kv_heads, room, 2, head_dim) float32, upper and lower. halves: (rows, kv_heads, room, block_tokens,
    ceil(head_dim / 8)) uint8. unfinished: (rows, kv_heads, block_tokens, head_dim) float32, the last block's keys.
    queries: (rows, q_heads, head_dim) float32, scaled. All in C order; speckv_core.h says what they mean.
    """
    rows, kv_heads, block_tokens, head_dim = unfinished.shape
    keys = Keys(
        address(bounds), address(halves), address(unfinished), bounds.shape[2], tokens,
        rows, kv_heads, head_dim, block_tokens,
    )  # fmt: skip
    queries = np.ascontiguousarray(queries, np.float32)
    shares = np.empty((rows, -(-tokens // block_tokens)), np.float32)
    error = Error()
    status = load().speckv_key_promise(
        ctypes.byref(keys), address(queries), queries.shape[1], address(shares), ctypes.byref(error)
    )
    if status:
        raise_error(status, error, "key_promise")
    return shares
