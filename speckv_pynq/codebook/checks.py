"""What must hold of a codebook before anything is coded with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.codebook.parts import FULL, Tables, Unit, padded, pair_elements
from speckv_pynq.errors import CodebookError

EXPONENT_RANGE: Final = (-16, 64)
SHIFT_MAX: Final = 30
MAX_RAW_BITS: Final = 12


def check(units: Sequence[Unit], tables: Tables) -> None:
    """Raises CodebookError when shapes do not fit, or 32 bits might not hold a sum."""
    if not units:
        raise CodebookError("no units")
    _check_tables(tables)
    first = units[0]
    for slot, unit in enumerate(units):
        try:
            _check_shapes(unit)
            _check_values(unit, tables.classes)
            if unit.layer_count != first.layer_count:
                raise CodebookError(f"layer_count {unit.layer_count}, not {first.layer_count}")
        except CodebookError as error:
            raise CodebookError(f"unit {slot}: {error}") from None
    if len({unit.first_layer for unit in units}) != len(units):
        raise CodebookError("two units begin with the same layer")


def _must(holds: object, name: str, value: object, limit: object) -> None:
    if not holds:
        raise CodebookError(f"{name} {value}, should be {limit}")


def _must_be(name: str, array: npt.NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> None:
    _must(array.dtype == dtype, f"dtype of {name}", array.dtype, np.dtype(dtype))
    _must(array.shape == shape, f"shape of {name}", array.shape, shape)


def _check_tables(tables: Tables) -> None:
    classes = tables.classes
    most = spec.CODEBOOK_CLASSES
    _must(1 <= classes <= most, "classes", classes, f"1..{most}")
    for name in ("frequency", "cost"):
        _must_be(name, getattr(tables, name), np.uint16, (classes, spec.ENTROPY_SYMBOLS))
    for name in ("raw_bits", "half"):
        _must_be(name, getattr(tables, name), np.uint8, (classes,))
    _must(tables.raw_bits.max() <= MAX_RAW_BITS, "raw_bits", tables.raw_bits.max(), MAX_RAW_BITS)
    most = spec.ENTROPY_SYMBOLS // 2 - 1
    _must(tables.half.max() <= most, "half", tables.half.max(), most)
    for i, row in enumerate(tables.frequency.astype(np.int64)):
        used = 2 * int(tables.half[i]) + 2
        _must(row.sum() == FULL, f"sum of frequencies of class {i}", row.sum(), FULL)
        _must((row[:used] > 0).all(), f"frequency of a symbol of class {i}", 0, "1 or more")
        _must(
            not row[used:].any(),
            f"frequency beyond the escape of class {i}",
            row[used:].max(initial=0),
            0,
        )


def _check_shapes(unit: Unit) -> None:
    _must(1 <= unit.kinds <= spec.Kind.BOTH, "kinds", int(unit.kinds), f"1..{spec.Kind.BOTH}")
    _must(unit.head_dim in spec.HEAD_DIM_ALLOWED, "head_dim", unit.head_dim, spec.HEAD_DIM_ALLOWED)
    for name, most in (("heads", 0xFFFF), ("transforms", 0xFFFF), ("layer_count", 0xFF)):
        _must(1 <= getattr(unit, name) <= most, name, getattr(unit, name), f"1..{most}")
    _must(0 <= unit.first_layer <= 0xFFFF, "first_layer", unit.first_layer, "0..65535")
    _must(unit.heads % unit.layer_count == 0, "heads", unit.heads, "a multiple of layer_count")
    each = unit.kind_count if unit.apart else 1
    groups, rest = divmod(unit.transforms, each)
    _must(rest == 0 and unit.heads % groups == 0, "transforms", unit.transforms, "to divide heads")
    block = 2 * min(spec.BLOCK_TOKENS_ALLOWED) * unit.inputs
    _must(block <= spec.MAX_BLOCK_BYTES, "block bytes", block, spec.MAX_BLOCK_BYTES)
    n, rank = unit.inputs, unit.rank
    _must_be("turns", unit.turns, np.uint64, (unit.pairs,))
    _must(2 * unit.pairs <= unit.head_dim, "rotated elements", 2 * unit.pairs, unit.head_dim)
    for name, dtype in (
        ("exponent", np.int8),
        ("mean", np.int32),
        ("in_shift", np.uint8),
        ("out_shift", np.uint8),
    ):
        _must_be(name, getattr(unit, name), dtype, (n,))
    _must_be("ranks", unit.ranks, np.uint16, (unit.transforms,))
    _must((unit.ranks >= 1).all(), "rank", unit.ranks.min(), "1 or more")
    _must((unit.ranks <= unit.inputs_each).all(), "rank", unit.ranks.max(), unit.inputs_each)
    _must_be("rounding", unit.rounding, np.int32, (rank,))
    _must_be("shift", unit.shift, np.uint8, (rank,))
    _must_be("limit", unit.limit, np.int16, (rank,))
    _must_be("classes", unit.classes, np.uint8, (spec.KLT_TABLE_SETS, rank))
    _must_be("analysis", unit.analysis, np.int16, (rank, padded(unit.inputs_each)))
    _must_be("synthesis", unit.synthesis, np.int16, (n, padded(int(unit.ranks.max()))))


def _check_values(unit: Unit, classes: int) -> None:
    low, high = EXPONENT_RANGE
    inside = (unit.exponent >= low) & (unit.exponent <= high)
    _must(inside.all(), "exponent", unit.exponent[~inside][:1], f"{low}..{high}")
    _must(
        np.abs(unit.mean).max() <= spec.KLT_FIXED_MAX,
        "mean",
        np.abs(unit.mean).max(),
        "fixed point",
    )
    for name in ("in_shift", "out_shift", "shift"):
        most = getattr(unit, name).max()
        _must(most <= SHIFT_MAX, name, most, SHIFT_MAX)
    _must(unit.rounding.min() >= 0, "rounding", unit.rounding.min(), "0 or more")
    _must(unit.limit.min() >= 0, "limit", unit.limit.min(), "0 or more")
    _must(unit.classes.max() < classes, "class", unit.classes.max(), classes - 1)
    _must(not unit.analysis[:, unit.inputs_each :].any(), "padding of analysis", "set", 0)
    _check_pairs(unit)
    _check_sums(unit)


def _check_pairs(unit: Unit) -> None:
    if not unit.pairs or not unit.kinds & spec.Kind.KEY:
        return
    natural = np.empty(unit.inputs, np.int8)
    natural[unit.order] = unit.exponent
    keys = natural[: unit.heads * unit.head_dim].reshape(unit.heads, unit.head_dim)
    a, b = pair_elements(unit.pairs, unit.interleaved)
    _must((keys[:, a] == keys[:, b]).all(), "exponents of a rotated pair", "differ", "equal")


def _check_sums(unit: Unit) -> None:
    """No sum of either transform, rounding included, may reach 2**31."""
    full = 1 << 31
    sums = np.abs(unit.analysis.astype(np.int64)).sum(axis=1) * spec.KLT_INPUT_MAX + unit.rounding
    _must(sums.max(initial=0) < full, "largest sum of the analysis", sums.max(initial=0), full - 1)
    each = unit.inputs_each
    for j, (first, end) in enumerate(unit.bounds):
        rows = np.abs(unit.synthesis[j * each : (j + 1) * each].astype(np.int64))
        _must(not rows[:, end - first :].any(), "padding of synthesis", "set", 0)
        sums = rows[:, : end - first] @ unit.limit[first:end].astype(np.int64) + (
            1 << SHIFT_MAX - 1
        )
        _must(sums.max() < full, "largest sum of the synthesis", sums.max(), full - 1)
