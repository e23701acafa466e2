"""Codebooks: what scheme `klt` needs to know of a model's cache, as a file and as the image that kernels read.

A `Unit` serves the records of some layers; a `Codebook` is the units of a model, in the order of their slots, and
the entropy tables that they share. Everything is an integer. docs/codebook_format.md says how records are made
with it; speckv_pynq.calibration makes one.
"""

from __future__ import annotations

from speckv_pynq.codebook.book import FILE_FORMAT, Codebook
from speckv_pynq.codebook.checks import EXPONENT_RANGE, MAX_RAW_BITS, SHIFT_MAX, check
from speckv_pynq.codebook.image import rotation_tables
from speckv_pynq.codebook.parts import (
    COST_UNIT,
    ESCAPE_BITS,
    FULL,
    Tables,
    Unit,
    channel_order,
    padded,
    pair_elements,
)
from speckv_pynq.codebook.rows import NARROW_MAX, narrow_shift, pack_rows, unpack_rows

__all__ = [
    "FILE_FORMAT",
    "Codebook",
    "EXPONENT_RANGE",
    "MAX_RAW_BITS",
    "SHIFT_MAX",
    "check",
    "rotation_tables",
    "COST_UNIT",
    "ESCAPE_BITS",
    "FULL",
    "Tables",
    "Unit",
    "channel_order",
    "padded",
    "pair_elements",
    "NARROW_MAX",
    "narrow_shift",
    "pack_rows",
    "unpack_rows",
]
