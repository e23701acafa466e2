"""Codebooks: what scheme `klt` needs to know of a model's cache, as a file and as the image that kernels read.

A `Unit` serves the records of some layers; a `Codebook` is the units of a model, in the order of their slots, and
the entropy tables that they share. Everything is an integer. docs/codebook_format.md says how records are made
with it; speckv_pynq.calibration makes one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.errors import CodebookError, DependencyMissing

COLUMN_PAD: Final = 32  # rows of a transform are padded with zeros to a multiple of this
EXPONENT_RANGE: Final = (-16, 64)
SHIFT_MAX: Final = 30
COST_UNIT: Final = 64  # of a bit, in `cost`
ESCAPE_BITS: Final = 16
FULL: Final = 1 << spec.ENTROPY_BITS
MAX_RAW_BITS: Final = 12
FILE_FORMAT: Final = "speckv-codebook-1"
_ROTATION_SCALE: Final = 1 << spec.KLT_ROTATION_BITS


def padded(n: int, to: int = COLUMN_PAD) -> int:
    """n rounded up to a multiple of `to`."""
    return -(-n // to) * to


@dataclass(frozen=True, eq=False)
class Tables:
    """The entropy tables of a codebook, (classes, ...) each.

    A value v of a class is coded as v >> raw_bits: -half..half are symbols 0..2 half, anything else is the escape,
    symbol 2 half + 1; the low raw_bits bits travel as they are.
    frequency: (classes, ENTROPY_SYMBOLS) uint16, of the symbols, at least 1 each, summing to 2**ENTROPY_BITS;
    0 beyond the escape. cost: the same shape, uint16: what a value of that symbol takes in all, in 1/COST_UNIT bit,
    by which an encoder chooses among table sets. raw_bits, half: (classes,) uint8.
    """

    frequency: npt.NDArray[np.uint16]
    cost: npt.NDArray[np.uint16]
    raw_bits: npt.NDArray[np.uint8]
    half: npt.NDArray[np.uint8]

    @property
    def classes(self) -> int:
        return len(self.raw_bits)

    @cached_property
    def start(self) -> npt.NDArray[np.uint16]:
        """(classes, ENTROPY_SYMBOLS): the sum of the frequencies before each symbol."""
        sums = np.cumsum(self.frequency, axis=1, dtype=np.int64) - self.frequency
        return np.minimum(sums, FULL - 1).astype(np.uint16)

    @cached_property
    def symbol_at(self) -> npt.NDArray[np.uint8]:
        """(classes, 2**ENTROPY_BITS): the symbol of each slot."""
        symbols = np.arange(spec.ENTROPY_SYMBOLS, dtype=np.uint8)
        return np.stack([np.repeat(symbols, row) for row in self.frequency])

    @staticmethod
    def costs(
        frequency: npt.NDArray[np.uint16],
        raw_bits: npt.NDArray[np.uint8],
        half: npt.NDArray[np.uint8],
    ) -> npt.NDArray[np.uint16]:
        """`cost` of such tables: log2(2**ENTROPY_BITS / frequency), raw bits, and what an escape takes besides."""
        bits = spec.ENTROPY_BITS - np.log2(np.maximum(frequency, 1)) + raw_bits[:, None]
        bits[np.arange(len(half)), 2 * half.astype(int) + 1] += ESCAPE_BITS
        return np.round(COST_UNIT * bits).astype(np.uint16)


@dataclass(frozen=True, eq=False)
class Unit:
    """Transform and parameters of the records of layers first_layer .. first_layer + layer_count - 1.

    heads: KV heads times layers; a record's head l * KV heads + h is head h of its layer l.

    The inputs of a record are its channels, n = kinds * heads * head_dim, divided among `transforms` transforms:
    transform j holds heads j * heads / transforms and following, of K then V. apart: K and V have transforms of
    their own, those of K first. Everything that is per channel is in the order of transforms, in a transform of
    kind, head and element; everything per component in the order of transforms. `order` gives the permutation.

    turns: (pairs,) uint64: turn of pair i from one position to the next, in 2**-64 of a circle.
    exponent: (n,) int8: fixed point is x * 2**exponent; equal within a rotated pair.
    mean: (n,) int32, in fixed point, of keys not rotated. in_shift: (n,) uint8: input is (x - mean) >> in_shift,
    halves up. ranks: (transforms,) components kept of each.
    analysis: (components of all, padded(inputs of one)) int16. rounding: (components,) int32 and shift: uint8:
    q = sign(a) * ((|a| + rounding) >> shift) for a = analysis @ input. limit: (components,) int16, largest |q|.
    classes: (KLT_TABLE_SETS, components) uint8: each component's entropy table.
    synthesis: (n, padded(max(ranks))) int16; fixed point is (synthesis @ q >> out_shift, halves up) + mean.
    """

    first_layer: int
    layer_count: int
    heads: int
    head_dim: int
    kinds: spec.Kind
    transforms: int
    apart: bool
    interleaved: bool
    turns: npt.NDArray[np.uint64]
    exponent: npt.NDArray[np.int8]
    mean: npt.NDArray[np.int32]
    in_shift: npt.NDArray[np.uint8]
    out_shift: npt.NDArray[np.uint8]
    ranks: npt.NDArray[np.uint16]
    analysis: npt.NDArray[np.int16]
    rounding: npt.NDArray[np.int32]
    shift: npt.NDArray[np.uint8]
    limit: npt.NDArray[np.int16]
    classes: npt.NDArray[np.uint8]
    synthesis: npt.NDArray[np.int16]

    @property
    def kind_count(self) -> int:
        return int(self.kinds).bit_count()

    @property
    def inputs(self) -> int:
        """Channels of a record."""
        return self.kind_count * self.heads * self.head_dim

    @property
    def inputs_each(self) -> int:
        """Channels of one transform."""
        return self.inputs // self.transforms

    @property
    def rank(self) -> int:
        """Components of all transforms together."""
        return int(self.ranks.sum())

    @property
    def pairs(self) -> int:
        return len(self.turns)

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """The components of each transform: first, end."""
        ends = np.cumsum(self.ranks, dtype=np.int64).tolist()
        return list(zip([0, *ends], ends, strict=False))

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """(n,): which channel of (kind, head, element) in C order each input is."""
        return channel_order(
            self.kind_count, self.heads, self.head_dim, self.transforms, self.apart
        )

    def macs(self) -> int:
        """Multiply-accumulates that coding one token takes at full rank; decoding takes as many."""
        return self.rank * self.inputs_each


def channel_order(
    kinds: int, heads: int, head_dim: int, transforms: int, apart: bool
) -> npt.NDArray[np.int64]:
    """(kinds * heads * head_dim,): the channels, of (kind, head, element) in C order, by transform."""
    channels = np.arange(kinds * heads * head_dim, dtype=np.int64)
    if apart:
        return channels
    return channels.reshape(kinds, transforms, -1).transpose(1, 0, 2).reshape(-1)


@dataclass(frozen=True, eq=False)
class Codebook:
    """The units of a model, in the order of their slots. metadata: strings: what it was made of and for."""

    units: tuple[Unit, ...]
    tables: Tables
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits of SHA-256 over everything but the metadata; never 0."""
        digest = hashlib.sha256(FILE_FORMAT.encode())
        for name, array in self._arrays().items():
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(json.dumps([_scalars(u) for u in self.units]).encode())
        return int.from_bytes(digest.digest()[:8], "little") or 1

    @cached_property
    def slots(self) -> dict[int, int]:
        """First layer -> slot."""
        return {unit.first_layer: slot for slot, unit in enumerate(self.units)}

    @property
    def layer_count(self) -> int:
        """Layers of a record, the same in all units."""
        return self.units[0].layer_count

    def unit_of(self, first_layer: int) -> Unit:
        """The unit of the records that begin with this layer."""
        return self.units[self.slots[first_layer]]

    def save(self, path: Path | str) -> None:
        """Writes a safetensors file."""
        numpy = _safetensors()
        metadata = {
            **self.metadata,
            "format": FILE_FORMAT,
            "fingerprint": f"{self.fingerprint:016x}",
            "units": json.dumps([_scalars(u) for u in self.units]),
        }
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, array in self._arrays().items():
            if name.endswith(_ROWS_OF_COMPONENTS):
                arrays |= {f"{name}.{part}": a for part, a in pack_rows(array).items()}
            elif name.endswith(_COLUMNS_OF_COMPONENTS):
                arrays |= {f"{name}.{part}": a for part, a in pack_rows(array.T).items()}
            else:
                arrays[name] = np.ascontiguousarray(array)
        numpy.save_file(arrays, str(path), metadata=metadata)

    @staticmethod
    def load(path: Path | str) -> Codebook:
        """Reads and checks a file that `save` wrote; CodebookError names what is wrong with it."""
        try:
            metadata, arrays = _read(path)
            if metadata.get("format") != FILE_FORMAT:
                raise CodebookError(f"format {metadata.get('format')!r}, not {FILE_FORMAT!r}")
            units = tuple(
                Unit(**_typed(scalars), **_unit_of_file(arrays, i))
                for i, scalars in enumerate(json.loads(metadata["units"]))
            )
            tables = Tables(**{f.name: arrays[f"tables.{f.name}"] for f in fields(Tables)})
            found = Codebook(units, tables, metadata)
            if f"{found.fingerprint:016x}" != metadata.get("fingerprint"):
                raise CodebookError(
                    f"fingerprint {metadata.get('fingerprint')} stated, {found.fingerprint:016x} found"
                )
        except CodebookError as error:
            raise CodebookError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise CodebookError(f"{path}: damaged: {error!r}") from error
        return found

    @cached_property
    def image(self) -> bytes:
        """What kernels read: headers, one a line; the shared sections; the sections of each unit, each whole lines."""
        return _image(self)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        named = {f"tables.{f.name}": getattr(self.tables, f.name) for f in fields(Tables)}
        for i, unit in enumerate(self.units):
            named |= {f"{i}.{name}": getattr(unit, name) for name in _unit_arrays()}
        return named


def rotation_tables() -> npt.NDArray[np.int16]:
    """(2, 256, 2) int16: cosine and sine of h / 256 and of l / 65536 of a circle, in 2**-KLT_ROTATION_BITS."""
    steps = [[i / (256, 65536)[part] for i in range(256)] for part in (0, 1)]
    rows = [
        [[round(_ROTATION_SCALE * f(2 * math.pi * s)) for f in (math.cos, math.sin)] for s in part]
        for part in steps
    ]
    return np.array(rows, np.int16)


def shared_sections(tables: Tables) -> Iterable[npt.NDArray[Any]]:
    """The sections that all units share, in the image's order."""
    yield rotation_tables()
    yield tables.raw_bits
    yield tables.half
    yield np.stack([tables.frequency, tables.start], axis=-1)
    yield tables.cost
    yield tables.symbol_at


def unit_sections(unit: Unit) -> Iterable[npt.NDArray[Any]]:
    """The sections of one unit, in the image's order; what is per component is padded with zeros."""
    rank = padded(unit.rank)
    yield unit.turns
    yield unit.ranks
    yield unit.exponent
    yield unit.in_shift
    yield unit.out_shift
    yield unit.mean
    for array in (unit.rounding, unit.shift, unit.limit):
        yield np.pad(array, (0, rank - len(array)))
    yield np.pad(unit.classes, ((0, 0), (0, rank - unit.rank)))
    yield unit.analysis
    yield unit.synthesis


def _image(codebook: Codebook) -> bytes:
    line = spec.LINE_BYTES

    def whole(arrays: Iterable[npt.NDArray[Any]]) -> bytes:
        parts = [np.ascontiguousarray(a).tobytes() for a in arrays]
        return b"".join(part + bytes(-len(part) % line) for part in parts)

    headers = np.zeros(len(codebook.units), spec.CODEBOOK_HEADER)
    bodies = [whole(shared_sections(codebook.tables))]
    at = len(headers)
    headers["magic"], headers["version"] = spec.CODEBOOK_MAGIC, spec.CODEBOOK_VERSION
    headers["slots"], headers["fingerprint"] = len(headers), codebook.fingerprint
    headers["shared_line"] = at
    headers["classes"] = codebook.tables.classes
    for header, unit in zip(headers, codebook.units, strict=True):
        at += len(bodies[-1]) // line
        header["body_line"] = at
        for name in ("rank", "pairs", *_unit_scalars()):
            header[name] = getattr(unit, name)
        bodies.append(whole(unit_sections(unit)))
    return headers.tobytes() + b"".join(bodies)


# ---- the file

_ROWS_OF_COMPONENTS, _COLUMNS_OF_COMPONENTS = ".analysis", ".synthesis"
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


def _unit_of_file(arrays: Mapping[str, npt.NDArray[Any]], slot: int) -> dict[str, Any]:
    return {name: _stored(arrays, f"{slot}.{name}") for name in _unit_arrays()}


def _stored(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    def parts() -> npt.NDArray[np.int16]:
        return unpack_rows(
            {p: arrays[f"{name}.{p}"] for p in ("is_wide", "shift", "narrow", "wide")}
        )

    if name.endswith(_ROWS_OF_COMPONENTS):
        return parts()
    if name.endswith(_COLUMNS_OF_COMPONENTS):
        return np.ascontiguousarray(parts().T)
    return arrays[name]


def _unit_arrays() -> list[str]:
    return [f.name for f in fields(Unit) if f.name not in _unit_scalars()]


def _unit_scalars() -> tuple[str, ...]:
    return (
        "first_layer",
        "layer_count",
        "heads",
        "head_dim",
        "kinds",
        "transforms",
        "apart",
        "interleaved",
    )


def _scalars(unit: Unit) -> dict[str, int]:
    return {name: int(getattr(unit, name)) for name in _unit_scalars()}


def _typed(scalars: dict[str, int]) -> dict[str, Any]:
    flags = {name: bool(scalars[name]) for name in ("apart", "interleaved")}
    return {**scalars, "kinds": spec.Kind(scalars["kinds"]), **flags}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise DependencyMissing("codebooks need safetensors: pip install safetensors") from error
    return safetensors.numpy


def _read(path: Path | str) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "numpy") as file:
            names = list(file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CodebookError(f"not a readable safetensors file: {error}") from error


# ---- what must hold


def check(codebook: Codebook) -> None:
    """Raises CodebookError when shapes do not fit, or 32 bits might not hold a sum."""
    if not codebook.units:
        raise CodebookError("no units")
    _check_tables(codebook.tables)
    first = codebook.units[0]
    for slot, unit in enumerate(codebook.units):
        try:
            _check_shapes(unit)
            _check_values(unit, codebook.tables.classes)
            if unit.layer_count != first.layer_count:
                raise CodebookError(f"layer_count {unit.layer_count}, not {first.layer_count}")
        except CodebookError as error:
            raise CodebookError(f"unit {slot}: {error}") from None
    if len(codebook.slots) != len(codebook.units):
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


def pair_elements(
    pairs: int, interleaved: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The two elements of each rotated pair of a head, (pairs,) each."""
    i = np.arange(pairs)
    return (2 * i, 2 * i + 1) if interleaved else (i, i + pairs)


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
