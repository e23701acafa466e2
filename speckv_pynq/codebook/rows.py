"""Rows of coefficients in a file: most are 8-bit integers times a power of two, and stored so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import CodebookError

NARROW_MAX: Final = 127


def narrow_shift(largest: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Least shift that brings integers of this magnitude within NARROW_MAX, halves up."""
    shift = np.zeros(np.shape(largest), np.int64)
    for s in range(1, 9):
        shift += (np.asarray(largest, np.int64) + (1 << s - 1 >> 1) >> s - 1) > NARROW_MAX
    return shift


def pack_rows(rows: npt.NDArray[np.int16]) -> dict[str, npt.NDArray[Any]]:
    """Rows whose values are 8-bit integers times a power of two take half the room: `narrow` (int8) with `shift`; the
    others are `wide`. is_wide: (n,) uint8.
    """
    largest = np.abs(rows.astype(np.int64)).max(axis=1, initial=0)
    shift = narrow_shift(largest)
    narrow = (rows.astype(np.int64) + (np.int64(1) << shift >> 1)[:, None]) >> shift[:, None]
    wide = (narrow << shift[:, None] != rows).any(axis=1) | (
        np.abs(narrow).max(axis=1, initial=0) > NARROW_MAX
    )
    return {
        "is_wide": wide.astype(np.uint8),
        "shift": shift[~wide].astype(np.uint8),
        "narrow": np.ascontiguousarray(narrow[~wide].astype(np.int8)),
        "wide": np.ascontiguousarray(rows[wide]),
    }


def unpack_rows(parts: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int16]:
    """What pack_rows was given."""
    wide = parts["is_wide"].astype(bool)
    shift = parts["shift"].astype(np.int64)
    if len(shift) != len(parts["narrow"]) or (shift > 8).any():
        raise CodebookError(
            f"shift of {len(shift)} rows for {len(parts['narrow'])}, largest {shift.max(initial=0)}"
        )
    rows = np.empty((len(wide), parts["wide"].shape[1]), np.int16)
    rows[wide] = parts["wide"]
    rows[~wide] = parts["narrow"].astype(np.int64) << shift[:, None]
    return rows
