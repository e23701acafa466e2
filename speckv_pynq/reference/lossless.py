"""Scheme `lossless`: every bit pattern comes back, NaN and infinity included; no codebook.

A value is taken apart into its top (sign, exponent, first bit of the mantissa) and the rest. Tops are range coded (see
`rans`) given what the earlier tokens of their channel were; the rest is close to random and stored as it is. fp32 is
taken as bf16 (its high half) with 16 bits more.

Values stand in C order (tokens, heads, head_dim), K before V. The history of a channel, all integers:
    average    of the exponents E so far, in eighths
    last       exponent and sign of the token before
    turns      how often the sign turned, of 16; 8 in the beginning
    spread     of the exponent from token to token, in eighths; 8 in the beginning
A channel's first value takes the average from `base`, the mean exponent of its kind's first token, and a sign of 0.
After token t with exponent E and sign s: average += (8 E - average + half) >> n, n = 1 for t = 1, 2 for t < 6, else 3;
turns += (16 (s != last) - turns + 2) >> 2; spread += (8 min(|E - last|, 3) - spread + 4) >> 3; half = 1 << n - 1. After
the first value the average is 8 E.

With f = (average + 4) >> 3 the symbol is ((E - f + 9) * 2 + (s != last)) * 2 + first mantissa bit for E - f in -9..5,
else ESCAPE. Its table is the context's: 160 for a first value, otherwise
    ((clip(last - f, -2, 2) + 2) * 4 + level(turns; 2, 5, 9)) * 4 + level(spread; 5, 8, 12)) * 2 + bit 2 of average + 4,
level(x; a, b, c) being how many of a, b and c are <= x. Tables are part of the format (lossless_tables.py).

Side information: the rest of the values, then the tops of the escaped ones, u16 each. The rest goes by 32 values, each
split into fields from bit 0 up: fp16 8 + 1 bits, bf16 4 + 2, fp32 16 + 4 + 2. A field of w bits takes 4 w bytes: byte j
holds lanes j, j + 4 w, ... from bit 0 up; 16 bits are u16 a lane.

Payload: the states, u32 each; the words; the side information from its byte 64 on: its first 64 bytes are the 16 bits
that the lanes begin with. scheme_params: words u32, escapes u16, base of K u8, base of V u8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from speckv_pynq.reference import rans
from speckv_pynq.reference.lossless_tables import FREQUENCIES
from speckv_pynq.spec import ENTROPY_LANES, DType, Kind

PARAMS = struct.Struct("<IHBB")
MAX_ESCAPES = 0xFFFF
LEAST, MOST = -9, 5  # of E - f
ESCAPE = 4 * (MOST - LEAST + 1)
SYMBOLS = ESCAPE + 1
FIRST = 160  # context of a channel's first value
CONTEXTS = FIRST + 1
FREQUENCY = np.array(
    [[int(row[3 * s : 3 * s + 3], 16) for s in range(SYMBOLS)] for row in FREQUENCIES], np.int64
)
START = np.cumsum(FREQUENCY, axis=1) - FREQUENCY


@dataclass(frozen=True)
class Layout:
    """How a value of a dtype is taken apart."""

    exponent_bits: int
    fields: tuple[int, ...]  # of the rest, bits each, from bit 0 up

    @property
    def rest_bits(self) -> int:
        return sum(self.fields)

    @property
    def top_max(self) -> int:
        """Largest top: sign, exponent, first bit of the mantissa."""
        return (4 << self.exponent_bits) - 1


LAYOUTS = {
    DType.FP16: Layout(5, (8, 1)),
    DType.BF16: Layout(8, (4, 2)),
    DType.FP32: Layout(8, (16, 4, 2)),
}


class History:
    """What is known of every channel of one kind: int64 arrays (channels,)."""

    def __init__(self, channels: int, base: int) -> None:
        self.average = np.full(channels, 8 * base, np.int64)
        self.exponent = np.full(channels, base, np.int64)
        self.sign = np.zeros(channels, np.int64)
        self.turns = np.full(channels, 8, np.int64)
        self.spread = np.full(channels, 8, np.int64)

    def contexts(self, at: np.ndarray, token: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """at: channels, token: of the value that comes next -> context and f of each."""
        rounded = self.average[at] + 4
        f = rounded >> 3
        context = np.clip(self.exponent[at] - f, -2, 2) + 2
        context = context * 4 + _level(self.turns[at], 2, 5, 9)
        context = context * 4 + _level(self.spread[at], 5, 8, 12)
        context = context * 2 + (rounded >> 2 & 1)
        return np.where(token == 0, FIRST, context), f

    def update(self, at: np.ndarray, token: np.ndarray, top: np.ndarray, layout: Layout) -> None:
        """top: of the value of each of these channels at this token."""
        exponent, sign = _parts(top, layout)
        n = np.where(token == 1, 1, np.where(token < 6, 2, 3))
        average = self.average[at]
        average = average + ((8 * exponent - average + (1 << n - 1)) >> n)
        turned, moved = sign != self.sign[at], np.abs(exponent - self.exponent[at])
        turns, spread = self.turns[at], self.spread[at]
        turns = turns + ((16 * turned - turns + 2) >> 2)
        spread = spread + ((8 * np.minimum(moved, 3) - spread + 4) >> 3)
        self.average[at] = np.where(token == 0, 8 * exponent, average)
        self.turns[at] = np.where(token == 0, 8, turns)
        self.spread[at] = np.where(token == 0, 8, spread)
        self.exponent[at], self.sign[at] = exponent, sign


def _level(x: np.ndarray, *bounds: int) -> np.ndarray:
    return sum((x >= bound).astype(np.int64) for bound in bounds)  # type: ignore[return-value]


def _parts(top: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Exponent and sign of tops."""
    return top >> 1 & (1 << layout.exponent_bits) - 1, top >> layout.exponent_bits + 1


def symbols(tops: np.ndarray, base: int, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """tops: int64 (tokens, channels) -> contexts and symbols of the same shape."""
    channels = np.arange(tops.shape[1])
    history = History(len(channels), base)
    context, symbol = np.empty_like(tops), np.empty_like(tops)
    for t, top in enumerate(tops):
        token = np.full(len(channels), t)
        context[t], f = history.contexts(channels, token)
        exponent, sign = _parts(top, layout)
        symbol[t] = ((exponent - f - LEAST) * 2 + (sign != history.sign)) * 2 + (top & 1)
        symbol[t][(exponent - f < LEAST) | (exponent - f > MOST)] = ESCAPE
        history.update(channels, token, top, layout)
    return context, symbol


def base_of(tops: np.ndarray, layout: Layout) -> int:
    """Mean exponent of the first token, halves up."""
    exponent, _ = _parts(tops[0], layout)
    return int((exponent.sum() + len(exponent) // 2) // len(exponent))


# ---- the rest of the values


def pack_rest(values: np.ndarray, layout: Layout) -> bytes:
    """values: int64 (n,), whole rounds -> the side information's first part."""
    lanes, shift, parts = values.reshape(-1, ENTROPY_LANES), 0, []
    for bits in layout.fields:
        field = lanes >> shift & (1 << bits) - 1
        shift += bits
        if bits == 16:
            parts.append(field.astype("<u2").view(np.uint8))
            continue
        folded = field.reshape(len(lanes), 8 // bits, 4 * bits)
        places = bits * np.arange(8 // bits)[:, None]
        parts.append((folded << places).sum(axis=1).astype(np.uint8))
    return np.concatenate(parts, axis=1).tobytes()


def unpack_rest(data: bytes, layout: Layout) -> np.ndarray:
    """-> int64 (n,)."""
    rows = np.frombuffer(data, np.uint8).reshape(-1, 4 * layout.rest_bits)
    out, shift, at = np.zeros((len(rows), ENTROPY_LANES), np.int64), 0, 0
    for bits in layout.fields:
        part = np.ascontiguousarray(rows[:, at : at + 4 * bits])
        if bits == 16:
            field = part.view("<u2").astype(np.int64)
        else:
            places = bits * np.arange(8 // bits)[:, None]
            field = (part[:, None].astype(np.int64) >> places & (1 << bits) - 1).reshape(out.shape)
        out |= field << shift
        shift, at = shift + bits, at + 4 * bits
    return out.reshape(-1)


def rest_bytes(values: int, layout: Layout) -> int:
    """Bytes of the rest of so many values."""
    return values * layout.rest_bits // 8


def least_bytes(values: int, dtype: DType) -> int:
    """The shortest payload of so many values: no words, no escapes."""
    return rans.STATE_BYTES + rest_bytes(values, LAYOUTS[dtype]) - rans.SEED_BYTES


# ---- payload


def encode(arrays: dict[Kind, np.ndarray], dtype: DType) -> tuple[bytes, bytes] | None:
    """arrays: bit patterns (tokens, heads, head_dim) per kind -> (payload, scheme_params); None: too many escapes."""
    layout, base, coded = LAYOUTS[dtype], {}, []
    values = [bits.reshape(len(bits), -1).astype(np.int64) for bits in arrays.values()]
    tops = [v >> layout.rest_bits for v in values]
    for kind, top in zip(arrays, tops, strict=True):
        base[kind] = base_of(top, layout)
        coded.append(symbols(top, base[kind], layout))
    context, symbol = (np.concatenate([part[i].reshape(-1) for part in coded]) for i in (0, 1))
    escaped = np.concatenate([top.reshape(-1) for top in tops])[symbol == ESCAPE]
    if len(escaped) > MAX_ESCAPES:
        return None
    side = b"".join(pack_rest(v, layout) for v in values) + escaped.astype("<u2").tobytes()
    seeds = np.frombuffer(side[: rans.SEED_BYTES], "<u2")
    stream, words = rans.encode(FREQUENCY[context, symbol], START[context, symbol], seeds)
    bases = base.get(Kind.KEY, 0), base.get(Kind.VALUE, 0)
    return stream + side[rans.SEED_BYTES :], PARAMS.pack(words, len(escaped), *bases)


class _Escapes:
    """The tops of escaped values, taken in order."""

    def __init__(self, tops: np.ndarray, layout: Layout) -> None:
        self._tops, self._layout, self._at = tops.astype(np.int64), layout, 0

    def take(self, count: int) -> np.ndarray:
        end = self._at + count
        if end > len(self._tops):
            raise rans.damaged("escapes", len(self._tops), end)
        out = self._tops[self._at : end]
        if (out > self._layout.top_max).any():
            first = int(out[out > self._layout.top_max][0])
            raise rans.damaged("top of an escaped value", first, self._layout.top_max)
        self._at = end
        return out

    def finish(self) -> None:
        if self._at != len(self._tops):
            raise rans.damaged("escapes", len(self._tops), self._at)


def decode(
    payload: bytes, params: bytes, kinds: Kind, shape: tuple[int, ...], dtype: DType
) -> dict[Kind, np.ndarray]:
    """payload and scheme_params -> bit patterns of `shape` per kind; RecordError where they contradict."""
    layout = LAYOUTS[dtype]
    words, escapes, *bases = PARAMS.unpack(params)
    for kind, base in zip((Kind.KEY, Kind.VALUE), bases, strict=True):
        if base and kind not in kinds:
            raise rans.damaged(f"base of {kind.name}, which the record lacks,", base, 0)
    present = [(k, b) for k, b in zip((Kind.KEY, Kind.VALUE), bases, strict=True) if k in kinds]
    each = int(np.prod(shape))
    rest = rest_bytes(each * len(present), layout)
    stream_end = rans.STATE_BYTES + 2 * words
    expected = stream_end + rest - rans.SEED_BYTES + 2 * escapes
    if expected != len(payload):
        raise rans.damaged("payload_bytes", len(payload), expected)
    decoder = rans.Decoder(payload[:stream_end], words)
    side = _Escapes(np.frombuffer(payload[expected - 2 * escapes :], "<u2"), layout)
    tops = [_tops_of(decoder, side, shape, base, layout) for _, base in present]
    low = decoder.finish() + payload[stream_end : expected - 2 * escapes]
    side.finish()
    wide = np.uint32 if dtype == DType.FP32 else np.uint16
    bits = np.concatenate(tops) << layout.rest_bits | unpack_rest(low, layout)
    return {
        kind: bits[i * each : (i + 1) * each].astype(wide).reshape(shape)
        for i, (kind, _) in enumerate(present)
    }


def _tops_of(
    decoder: rans.Decoder, escapes: _Escapes, shape: tuple[int, ...], base: int, layout: Layout
) -> np.ndarray:
    """The tops of one kind, int64 (values,)."""
    channels = int(np.prod(shape[1:]))
    history = History(channels, base)
    lanes = slice(0, ENTROPY_LANES)
    out = np.empty(shape[0] * channels, np.int64)
    for part in rans.rounds(len(out)):
        token, at = np.divmod(np.arange(part.start, part.stop), channels)
        context, f = history.contexts(at, token)
        symbol = (START[context, 1:] <= decoder.slots(lanes)[:, None]).sum(axis=1)
        exponent = np.clip(f + (symbol >> 2) + LEAST, 0, (1 << layout.exponent_bits) - 1)
        sign = history.sign[at] ^ (symbol >> 1 & 1)
        top = (sign << layout.exponent_bits | exponent) << 1 | symbol & 1
        escaped = symbol == ESCAPE
        if escaped.any():
            top[escaped] = escapes.take(int(escaped.sum()))
        out[part] = top
        history.update(at, token, top, layout)
        decoder.take(lanes, FREQUENCY[context, symbol], START[context, symbol])
    return out
