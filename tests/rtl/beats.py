"""Bytes and structures as the engine's streams carry them."""

from __future__ import annotations

import numpy as np

from speckv_pynq import spec

LINE = spec.LINE_BYTES
LOW_WORD = (1 << 32) - 1  # what a completion holds of a value or limit


def to_beats(data: bytes) -> list[int]:
    """512-bit beats, the last padded with zeros."""
    return [int.from_bytes(data[i : i + LINE], "little") for i in range(0, len(data), LINE)]


def completion_of(
    status: int = 0, flags: int = 0, record_bytes: int = 0, value: int = 0, limit: int = 0
) -> int:
    """A completion as a number."""
    row = (status, flags, record_bytes, value & LOW_WORD, limit & LOW_WORD)
    return int.from_bytes(np.array([row], spec.COMPLETION).tobytes(), "little")
