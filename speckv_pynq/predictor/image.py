"""The image of a predictor's parameters that kernel kv_prefetch reads, and the size of a sequence's state.

docs/predictor_format.md says what lies where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.errors import PredictorError
from speckv_pynq.predictor.model import HIDDEN, RANK, Predictor

NO_TOKEN = 0xFFFFFFFF  # of a row that only fills its block up
GROUP = 4  # inputs of a row that lie together
LEAST_CAPACITY = spec.LINE_BYTES // 4  # a line of tokens
_STATE_LINES = 1 + 2 * (2 * HIDDEN + RANK) // spec.LINE_BYTES  # header; c, 16 bits; p, 8 bits

U32 = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the tokens' rows lie: those always scored, then class by class, each class a block of its own at least.

    row_of_token: (V,) uint32. token_of_row: (R,) uint32, NO_TOKEN where a row fills a block up.
    starts: (C, 2) uint32, a class's first row and how many it has. R is a multiple of spec.PREDICTOR_BLOCK.
    """

    row_of_token: U32
    token_of_row: U32
    starts: U32


def rows_of(predictor: Predictor) -> Rows:
    """Places every token of a predictor."""
    block, always = spec.PREDICTOR_BLOCK, len(predictor.class_rows)
    sizes = np.roll(predictor.class_sizes, 1)  # the always scored first
    padded = -(-sizes // block) * block
    first = np.cumsum(padded) - padded
    rank = (predictor.classes.astype(np.int64) + 1) % (always + 1)
    order = np.argsort(rank, kind="stable")
    within = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[rank[order]]
    row_of_token = np.empty(len(order), np.uint32)
    row_of_token[order] = first[rank[order]] + within
    token_of_row = np.full(int(padded.sum()), NO_TOKEN, np.uint32)
    token_of_row[row_of_token] = np.arange(len(order))
    starts = np.stack([first[1:], sizes[1:]], axis=1).astype(np.uint32)
    return Rows(row_of_token, token_of_row, starts)


def interleave(matrix: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """(rows, inputs) -> what the image has: blocks of rows, in each all rows' first 4 inputs, then the next 4, ..."""
    rows, inputs = matrix.shape
    block = spec.PREDICTOR_BLOCK
    full = np.zeros((-(-rows // block) * block, inputs), np.int8)
    full[:rows] = matrix
    blocks = full.reshape(-1, block, inputs // GROUP, GROUP)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3))


def pack_codes(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """(rows, inputs) of -7..7 -> interleaved with two in a byte, 8 added: inputs 8g..8g+3 low, 8g+4..8g+7 high."""
    rows, inputs = codes.shape
    nibbles = (codes + 8).astype(np.uint8).reshape(rows, inputs // (2 * GROUP), 2, GROUP)
    packed = nibbles[:, :, 0] | nibbles[:, :, 1] << 4
    return interleave(packed.reshape(rows, -1).view(np.int8)).view(np.uint8)


def image_of(predictor: Predictor) -> bytes:
    """The image: whole lines, to lie on a line in a device's memory."""
    rows = rows_of(predictor)
    real = rows.token_of_row != NO_TOKEN
    tokens = np.where(real, rows.token_of_row, 0)
    codes = np.where(real[:, None], predictor.codes[tokens], 0).astype(np.int8)
    scales, biases = (
        np.where(real, of[tokens], 0) for of in (predictor.scales, predictor.token_bias)
    )
    gates = np.concatenate([predictor.input, predictor.recurrent], axis=2)
    sections: list[npt.NDArray[Any]] = [
        interleave(gates.reshape(-1, 2 * RANK)),
        predictor.bias,
        interleave(predictor.projection.reshape(-1, HIDDEN)),
        predictor.sigmoid,
        predictor.bonus,
        interleave(predictor.class_rows),
        predictor.class_bias,
        rows.starts,
        pack_codes(codes),
        scales.astype(np.uint8),
        biases.astype(np.int8),
        rows.token_of_row,
        rows.row_of_token,
    ]
    body = b"".join(_lines(section) for section in sections)
    header = np.zeros(1, spec.PREDICTOR_HEADER)
    for name, value in {
        "magic": spec.PREDICTOR_MAGIC,
        "version": spec.PREDICTOR_VERSION,
        "opened": predictor.opened,
        "fingerprint": predictor.fingerprint,
        "vocabulary": predictor.vocabulary,
        "classes": len(predictor.class_rows),
        "always_scored": int(predictor.class_sizes[-1]),
        "rows": len(rows.token_of_row),
        "lines": 1 + len(body) // spec.LINE_BYTES,
    }.items():
        header[name] = value
    return header.tobytes() + body


def state_bytes(capacity: int, vocabulary: int) -> int:
    """Bytes of a sequence's state; PredictorError for a capacity that kernels refuse."""
    if not LEAST_CAPACITY <= capacity <= spec.PREDICTOR_MAX_CAPACITY or capacity & (capacity - 1):
        raise PredictorError(
            f"capacity {capacity} is not a power of two within {LEAST_CAPACITY}..{spec.PREDICTOR_MAX_CAPACITY}"
        )
    each = spec.LINE_BYTES // 4
    return spec.LINE_BYTES * (_STATE_LINES + 2 * (capacity // each) + -(-vocabulary // each))


def _lines(array: npt.NDArray[Any]) -> bytes:
    data = np.ascontiguousarray(array).tobytes()
    return data + bytes(-len(data) % spec.LINE_BYTES)
