"""Scheme `klt`: keys un-rotated, a calibrated transform of K and V, one step, range coded; needs a codebook.

`Unit` and `Tables` (speckv_pynq.codebook) name what a codebook holds. n inputs a token in the order of the unit's
transforms; T tokens; components of all transforms in a row. Everything is an integer; >> rounds down.

Encoding, each token by itself:
1. Fixed point: x * 2**exponent to the nearest integer, halves away from zero.
2. Keys, each pair (a, b) of a head at the token's position p = first_position + t: RoPE undone,
   (a c + b s, b c - a s), each + 2**13 >> 14. c, s of the phase (turns * p mod 2**64) >> 48: with (C, S) of its high
   and (C', S') of its low byte from the rotation table: c = C C' - S S', s = S C' + C S', each + 2**13 >> 14.
3. Input: (value - mean + half) >> in_shift, half = 1 << in_shift >> 1.
4. a = analysis @ input, in each transform. q = sign(a) * ((|a| + rounding) >> shift).
   A value of step 1 beyond KLT_FIXED_MAX, an input beyond KLT_INPUT_MAX or a q beyond its limit: the block is coded
   as `int4` instead, as it is where that is not larger.
5. The table set: the one for which the sum of `cost` over all symbols is least; the first of equals.
   A value v of class k: h = v >> raw_bits; its symbol is h + half where |h| <= half, else the escape.
6. Symbols in the order (component, token) are range coded (see `rans`).
   Side information: the low raw_bits bits of all values, then the escaped values in the same order, i16 each.
   The bits of a component: for each, from bit 0 up, T bits, that of token t at bit t, little-endian.

Payload: the states, u32 each; the words; the side information from its byte 64 on: its first 64 bytes, zeros where
it is shorter, are the 16 bits that the lanes begin with. scheme_params: words u32, escapes u16, table set u8, zero.

Decoding: y = (synthesis @ q + half) >> out_shift, + mean, clamped to +-KLT_FIXED_MAX; keys: RoPE redone,
(a c - b s, a s + b c), each + 2**13 >> 14; then y * 2**-exponent to the nearest value of the dtype, ties to even,
above the largest finite value that value; zero is +0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from speckv_pynq.codebook import Tables, Unit, pair_elements, rotation_tables
from speckv_pynq.reference import rans
from speckv_pynq.reference.floats import (
    SIGN_BIT,
    FloatFormat,
    magnitude_from_ratio,
    take_apart,
)
from speckv_pynq.spec import (
    KLT_FIXED_MAX,
    KLT_INPUT_MAX,
    KLT_ROTATION_BITS,
    KLT_TABLE_SETS,
    Kind,
)

PARAMS = struct.Struct("<IHBB")
MAX_ESCAPES = 0xFFFF
_ROTATION_HALF = 1 << KLT_ROTATION_BITS - 1
_COARSE, _FINE = rotation_tables().astype(np.int64)


@dataclass(frozen=True)
class Book:
    """The part of a codebook that one record needs, and the position that its keys begin at."""

    unit: Unit
    tables: Tables
    first_position: int = 0


# ---- fixed point and rotation


def fixed(bits: np.ndarray, exponent: np.ndarray, fmt: FloatFormat) -> np.ndarray:
    """Step 1: uint16 bits, finite -> int64; beyond 2**24 it is only known to be too large."""
    sign, field, mantissa = take_apart(bits, fmt)
    up = field - fmt.bias - fmt.mantissa_bits + exponent
    down = np.clip(-up, 0, 24)
    magnitude = (mantissa << np.clip(up, 0, 32)) + (np.int64(1) << down >> 1) >> down
    return np.where(sign == 1, -magnitude, magnitude)


def _rounded(x: np.ndarray) -> np.ndarray:
    return (x + _ROTATION_HALF) >> KLT_ROTATION_BITS


def angles(turns: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """turns: (pairs,), positions: (tokens,) -> cosine, sine, int64 (tokens, 1, pairs)."""
    with np.errstate(over="ignore"):
        phase = (turns[None] * positions.astype(np.uint64)[:, None]) >> np.uint64(48)
    phase = phase.astype(np.int64)[:, None]
    c1, s1 = np.moveaxis(_COARSE[phase >> 8], -1, 0)
    c0, s0 = np.moveaxis(_FINE[phase & 255], -1, 0)
    return _rounded(c1 * c0 - s1 * s0), _rounded(s1 * c0 + c1 * s0)


def rotate(keys: np.ndarray, book: Book, *, undo: bool) -> np.ndarray:
    """keys: int64 (tokens, heads, head_dim) fixed point, rotated by their positions, or back."""
    unit = book.unit
    positions = book.first_position + np.arange(len(keys))
    c, s = angles(unit.turns, positions)
    s = s if undo else -s
    i, j = pair_elements(unit.pairs, unit.interleaved)
    a, b, out = keys[..., i], keys[..., j], keys.copy()
    out[..., i] = _rounded(a * c + b * s)
    out[..., j] = _rounded(b * c - a * s)
    return out


def _has_key(unit: Unit) -> bool:
    return bool(unit.kinds & Kind.KEY)


def _by_transform(stacked: np.ndarray, unit: Unit) -> np.ndarray:
    """(kinds, tokens, heads, head_dim) -> (tokens, n) in the unit's order."""
    return np.moveaxis(stacked, 1, 0).reshape(stacked.shape[1], -1)[:, unit.order]


def _by_channel(values: np.ndarray, unit: Unit) -> np.ndarray:
    """(tokens, n) -> (kinds, tokens, heads, head_dim)."""
    natural = np.empty_like(values)
    natural[:, unit.order] = values
    shape = (len(values), unit.kind_count, unit.heads, unit.head_dim)
    return np.moveaxis(natural.reshape(shape), 1, 0)


def _natural(per_channel: np.ndarray, unit: Unit) -> np.ndarray:
    """(n,) in the unit's order -> (kinds, 1, heads, head_dim)."""
    return _by_channel(per_channel[None], unit)


# ---- the transform


def _product(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x (tokens, n) int64 @ rows (m, n) int16, transposed: int64 (tokens, m).

    In float64, which is exact: a codebook is checked to keep every sum below 2**31. NumPy takes ten times as long
    for a product of integers. A thousand rows at a time: those of a codebook may be 50 MB.
    """
    left, parts = x.astype(np.float64), range(0, len(rows), 1024)
    out = [left @ rows[at : at + 1024].astype(np.float64).T for at in parts]
    return np.concatenate(out, axis=1).astype(np.int64)


def inputs(arrays: dict[Kind, np.ndarray], book: Book, fmt: FloatFormat) -> np.ndarray | None:
    """Steps 1 to 3: uint16 bits (tokens, heads, head_dim) per kind -> int64 (tokens, n); None: too large."""
    unit = book.unit
    stacked = np.stack([arrays[kind] for kind in sorted(arrays)])
    values = fixed(stacked, _natural(unit.exponent.astype(np.int64), unit), fmt)
    if np.abs(values).max() > KLT_FIXED_MAX:
        return None
    if unit.pairs and _has_key(unit):
        values[0] = rotate(values[0], book, undo=True)
    shift = unit.in_shift.astype(np.int64)
    x = (_by_transform(values, unit) - unit.mean + (np.int64(1) << shift >> 1)) >> shift
    return None if np.abs(x).max() > KLT_INPUT_MAX else x


def quantise(x: np.ndarray, unit: Unit) -> np.ndarray | None:
    """Step 4: (tokens, n) -> int64 q (tokens, rank); None where one is beyond its limit."""
    each, out = unit.inputs_each, []
    for j, (first, end) in enumerate(unit.bounds):
        rows = unit.analysis[first:end, :each]
        out.append(_product(x[:, j * each : (j + 1) * each], rows))
    a = np.concatenate(out, axis=1)
    q = np.sign(a) * ((np.abs(a) + unit.rounding) >> unit.shift)
    return None if (np.abs(q) > unit.limit).any() else q


def reconstruct(q: np.ndarray, book: Book, fmt: FloatFormat) -> dict[Kind, np.ndarray]:
    """Decoding from q, int64 (tokens, rank): uint16 bits (tokens, heads, head_dim) per kind."""
    unit, out = book.unit, []
    for j, (first, end) in enumerate(unit.bounds):
        rows = unit.synthesis[j * unit.inputs_each : (j + 1) * unit.inputs_each, : end - first]
        out.append(_product(q[:, first:end], rows))
    shift = unit.out_shift.astype(np.int64)
    y = ((np.concatenate(out, axis=1) + (np.int64(1) << shift >> 1)) >> shift) + unit.mean
    values = _by_channel(np.clip(y, -KLT_FIXED_MAX, KLT_FIXED_MAX), unit)
    if unit.pairs and _has_key(unit):
        values = values.copy()
        values[0] = rotate(values[0], book, undo=False)
    exponent = -_natural(unit.exponent.astype(np.int64), unit)
    magnitude = magnitude_from_ratio(np.abs(values), 1, exponent, fmt)
    bits = magnitude | np.where(values < 0, np.uint16(SIGN_BIT), np.uint16(0))
    kinds = [kind for kind in (Kind.KEY, Kind.VALUE) if kind in unit.kinds]
    return dict(zip(kinds, bits, strict=True))


# ---- symbols


def symbols(q: np.ndarray, classes: np.ndarray, tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """q: (tokens, rank), classes: (rank,) -> symbols, int64 (rank, tokens), and which are escapes."""
    half = tables.half[classes].astype(np.int64)[:, None]
    high = q.T >> tables.raw_bits[classes].astype(np.int64)[:, None]
    escaped = np.abs(high) > half
    return np.where(escaped, 2 * half + 1, high + half), escaped


def choose_set(q: np.ndarray, unit: Unit, tables: Tables) -> int:
    """Step 5: the cheapest table set."""
    totals = []
    for classes in unit.classes:
        symbol, _ = symbols(q, classes, tables)
        totals.append(int(tables.cost[classes[:, None], symbol].sum(dtype=np.int64)))
    return int(np.argmin(totals))


def raw_bytes(classes: np.ndarray, tables: Tables, tokens: int) -> int:
    """Bytes of the low bits of all values."""
    return int(tables.raw_bits[classes].sum(dtype=np.int64)) * tokens // 8


def _pack_raw(q: np.ndarray, raw_bits: np.ndarray) -> bytes:
    planes = [
        np.packbits((column >> bit) & 1, bitorder="little").tobytes()
        for column, bits in zip(q.T, raw_bits.tolist(), strict=True)
        for bit in range(bits)
    ]
    return b"".join(planes)


def _unpack_raw(data: bytes, raw_bits: np.ndarray, tokens: int) -> np.ndarray:
    """-> int64 (rank, tokens)."""
    out = np.zeros((len(raw_bits), tokens), np.int64)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    planes = iter(bits.reshape(-1, tokens).astype(np.int64))
    for row, count in zip(out, raw_bits.tolist(), strict=True):
        for bit in range(count):
            row += next(planes) << bit
    return out


def encode(
    arrays: dict[Kind, np.ndarray], fmt: FloatFormat, book: Book
) -> tuple[bytes, bytes] | None:
    """arrays: finite uint16 bits per kind -> (payload, scheme_params), None where the block does not fit."""
    unit, tables = book.unit, book.tables
    x = inputs(arrays, book, fmt)
    q = None if x is None else quantise(x, unit)
    if q is None:
        return None
    table_set = choose_set(q, unit, tables)
    classes = unit.classes[table_set]
    symbol, escaped = symbols(q, classes, tables)
    if escaped.sum() > MAX_ESCAPES:
        return None
    side = _pack_raw(q, tables.raw_bits[classes]) + q.T[escaped].astype("<i2").tobytes()
    seeds = np.frombuffer(side[: rans.SEED_BYTES].ljust(rans.SEED_BYTES, b"\0"), "<u2")
    frequency = tables.frequency[classes[:, None], symbol].reshape(-1)
    start = tables.start[classes[:, None], symbol].reshape(-1)
    stream, words = rans.encode(frequency, start, seeds)
    params = PARAMS.pack(words, int(escaped.sum()), table_set, 0)
    return stream + side[rans.SEED_BYTES :], params


def decode(
    payload: bytes, params: bytes, tokens: int, fmt: FloatFormat, book: Book
) -> dict[Kind, np.ndarray]:
    """payload and scheme_params -> uint16 bits (tokens, heads, head_dim) per kind."""
    unit, tables = book.unit, book.tables
    words, escapes, table_set, zero = PARAMS.unpack(params)
    if zero or table_set >= KLT_TABLE_SETS:
        raise rans.damaged("scheme_params table set", table_set | zero << 8, KLT_TABLE_SETS - 1)
    classes = unit.classes[table_set]
    low_bytes = raw_bytes(classes, tables, tokens)
    left = max(low_bytes + 2 * escapes - rans.SEED_BYTES, 0)
    expected = rans.STATE_BYTES + 2 * words + left
    if expected != len(payload):
        raise rans.damaged("payload_bytes", len(payload), expected)
    stream_end = rans.STATE_BYTES + 2 * words
    symbol, seeds = _symbols_of(payload[:stream_end], words, classes, tables, tokens)
    side = seeds + payload[stream_end:]
    used = low_bytes + 2 * escapes
    if any(side[used:]):
        raise rans.damaged("side information beyond its end", 1, 0)
    raw_bits = tables.raw_bits[classes]
    half = tables.half[classes].astype(np.int64)[:, None]
    escaped = symbol > 2 * half
    if escaped.sum() != escapes:
        raise rans.damaged("escapes", escapes, int(escaped.sum()))
    v = ((symbol - half) << raw_bits.astype(np.int64)[:, None]) + _unpack_raw(
        side[:low_bytes], raw_bits, tokens
    )
    v[escaped] = np.frombuffer(side[low_bytes:used], "<i2")
    beyond = np.abs(v) > unit.limit[:, None]
    if beyond.any():
        limits = np.broadcast_to(unit.limit[:, None], v.shape)
        raise rans.damaged("value", int(v[beyond][0]), int(limits[beyond][0]))
    return reconstruct(v.T, book, fmt)


def _symbols_of(
    stream: bytes, words: int, classes: np.ndarray, tables: Tables, tokens: int
) -> tuple[np.ndarray, bytes]:
    """-> symbols, int64 (rank, tokens), and the 64 bytes that travelled in the states."""
    decoder = rans.Decoder(stream, words)
    each = np.repeat(classes, tokens)
    out = np.empty(len(each), np.int64)
    for part in rans.rounds(len(each)):
        lanes = slice(0, part.stop - part.start)
        out[part] = symbol = tables.symbol_at[each[part], decoder.slots(lanes)]
        decoder.take(lanes, tables.frequency[each[part], symbol], tables.start[each[part], symbol])
    return out.reshape(len(classes), tokens), decoder.finish()
