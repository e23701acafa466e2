"""Scheme `int4`: 4-bit values in groups of up to 32 that share a step and a zero point; 4.6 bits a value.

Keys are grouped along tokens (one channel of one head), values along channels (one token of one head),
as KIVI does (arXiv 2402.02750, sec. 3.1). 16 tokens make groups of 16, 64 tokens two groups a channel,
head_dim 80 groups of 32, 32 and 16. Order of groups: keys (token group, head, channel), values (token,
head, channel group).

A value is s * (8 q + z) / 8: q in 0..15, z in -2048..2047 in eighths of a step, s = (S << sh) * 2**U.
One byte holds the step: code = (e << 5) + S - 32 (e > 0, S in 32..63, sh = e - 1), or code = S (S in
0..31, sh = 0; the encoder never makes S = 0). U is one i16 a kind.

Payload, K's part then V's, each:
    codes         u8 a group
    z, low byte   u8 a group
    z, high bits  4 bits a group; byte j holds group 2j (low nibble) and 2j + 1
    q             4 bits a value in C order (tokens, heads, head_dim), in runs of w = 32 channels (16 for
                  the last of head_dim 80); byte j of a run holds lane j (low nibble) and j + w/2
scheme_params: U of K (i16), U of V (i16), zero (u32); zero for a kind that the record lacks.

Encoding a kind; every step in integers, 32 bits wide in hardware. lo, hi: least and greatest value of
a group (-0 < +0). fixed(x, u): x / 2**u to the nearest integer, halves away from zero.
1. unit: the exponent at which the largest of the kind has 24 bits (fewer if subnormal).
   R = max(fixed(hi) - fixed(lo), ceil(max(|fixed(lo)|, |fixed(hi)|) / 16)): z must reach every value.
2. T = R / 15 by shifts: (R + (R >> 4) + (R >> 8) + (R >> 12) + (R >> 16) + 8) >> 4.
3. U from the largest T, so that its code fits; never below the exponent of the smallest subnormal.
4. v = T * 2**(unit - U), halves up, at least 1; to six significant bits, halves up: S and sh.
5. Y(x) = fixed(x, U + sh - 3) * RECIPROCAL[S], RECIPROCAL[S] = floor((2**18 + S // 2) / S): eighths of
   a step, with 18 more bits. z = (Y(lo) + 2**17) >> 18; q = (Y(x) - (z << 18) + 2**20) >> 21; clamped.
Decoding: (S << sh) * (8 q + z) * 2**(U - 3) to the nearest value of the dtype, ties to even, above the
largest finite value that value; zero is +0, what underflows keeps its sign. Every payload decodes.
"""

from __future__ import annotations

import struct

import numpy as np

from speckv_pynq.errors import RecordError
from speckv_pynq.reference.floats import (
    MAGNITUDE_MASK,
    SIGN_BIT,
    FloatFormat,
    bit_length,
    magnitude_from_ratio,
    take_apart,
)
from speckv_pynq.spec import GROUP, Kind, Status

GROUPED_AXIS = {Kind.KEY: 0, Kind.VALUE: 2}  # of (tokens, heads, head_dim)
STEP_BITS = 6  # significant bits of a step; five of them stored
LARGEST_STEP_BITS = 12  # of the largest v: 63 << 6, code 255
UNIT_BITS = 24
Z_MIN, Z_MAX, Q_MAX = -2048, 2047, 15
RECIPROCAL_BITS = 18
RECIPROCAL = np.array([0] + [((1 << RECIPROCAL_BITS) + s // 2) // s for s in range(1, 64)])
PARAMS = struct.Struct("<hhI")


def widths(size: int) -> list[int]:
    """Lengths of the groups that `size` tokens or channels fall into."""
    return [min(GROUP, size - start) for start in range(0, size, GROUP)]


def spread(per_group: np.ndarray, kind: Kind, shape: tuple[int, ...]) -> np.ndarray:
    """What stands once a group, repeated for each of its values: -> (tokens, heads, head_dim)."""
    axis = GROUPED_AXIS[kind]
    return np.repeat(per_group, widths(shape[axis]), axis)


def group_shape(kind: Kind, shape: tuple[int, ...]) -> tuple[int, ...]:
    """(tokens, heads, head_dim) -> the shape of one number a group, in the payload's order."""
    axis = GROUPED_AXIS[kind]
    return (*shape[:axis], len(widths(shape[axis])), *shape[axis + 1 :])


def payload_bytes(shape: tuple[int, ...], kinds: list[Kind]) -> int:
    groups = sum(int(np.prod(group_shape(kind, shape))) for kind in kinds)
    return groups * 5 // 2 + len(kinds) * int(np.prod(shape)) // 2


def extremes(bits: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Bit patterns of each group's least and greatest value: two of group_shape."""

    def flip(key: np.ndarray) -> np.ndarray:  # int16 order of the result is the order of the values
        return key ^ (key >> 15 & MAGNITUDE_MASK)

    axis = GROUPED_AXIS[kind]
    starts = range(0, bits.shape[axis], GROUP)
    key = flip(bits.view(np.int16))
    low, high = (f.reduceat(key, starts, axis) for f in (np.minimum, np.maximum))
    return flip(low).view(np.uint16), flip(high).view(np.uint16)


def fixed(bits: np.ndarray, unit: np.ndarray | int, fmt: FloatFormat) -> np.ndarray:
    """value / 2**unit to the nearest integer, halves away from zero: int64."""
    sign, exponent, mantissa = take_apart(bits, fmt)
    up = exponent - fmt.bias - fmt.mantissa_bits - unit
    down = np.clip(-up, 0, UNIT_BITS)  # more bits than a mantissa has: 0
    magnitude = (mantissa << np.maximum(up, 0)) + (np.int64(1) << down >> 1) >> down
    return np.where(sign == 1, -magnitude, magnitude)


def steps_of(low: np.ndarray, high: np.ndarray, fmt: FloatFormat) -> tuple[int, np.ndarray]:
    """Steps 1 to 4: extremes of each group of a kind -> (U, codes int64)."""
    smallest = 1 - fmt.bias - fmt.mantissa_bits
    exponents = [take_apart(bits, fmt)[1].max() for bits in (low, high)]
    unit = int(max(exponents)) - fmt.bias - UNIT_BITS + 1
    lo, hi = fixed(low, unit, fmt), fixed(high, unit, fmt)
    r = np.maximum(hi - lo, (np.maximum(np.abs(lo), np.abs(hi)) + 15) >> 4)
    t = (r + (r >> 4) + (r >> 8) + (r >> 12) + (r >> 16) + 8) >> 4
    largest = int(t.max())
    bits = largest.bit_length()
    fits = largest < 63 << max(bits - STEP_BITS, 0)  # else it would round up past 63
    u = max(unit + bits - LARGEST_STEP_BITS + (not fits), smallest)
    v = np.maximum((t + (1 << (u - unit - 1))) >> (u - unit), 1)
    e = np.maximum(bit_length(v) - STEP_BITS, 0)
    return u, (e << 5) + ((v + (np.int64(1) << e >> 1)) >> e)


def expand(code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """codes -> (S, sh): a step is S << sh in units of 2**U."""
    e = code >> 5
    return np.where(e > 0, 32 + (code & 31), code), np.maximum(e - 1, 0)


def quantise(
    bits: np.ndarray, kind: Kind, fmt: FloatFormat
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """bits: uint16 (tokens, heads, head_dim), finite -> (U, codes, z, q); q of bits' shape."""
    low, high = extremes(bits, kind)
    u, code = steps_of(low, high, fmt)
    s, sh = expand(code)
    y = fixed(low, u + sh - 3, fmt) * RECIPROCAL[s]
    z = np.clip((y + (1 << RECIPROCAL_BITS - 1)) >> RECIPROCAL_BITS, Z_MIN, Z_MAX)
    s, sh, zero = (spread(a, kind, bits.shape) for a in (s, sh, z))
    y = fixed(bits, u + sh - 3, fmt) * RECIPROCAL[s]
    q = (y - (zero << RECIPROCAL_BITS) + (1 << RECIPROCAL_BITS + 2)) >> RECIPROCAL_BITS + 3
    return u, code, z, np.clip(q, 0, Q_MAX)


def dequantise(
    u: int, code: np.ndarray, z: np.ndarray, q: np.ndarray, kind: Kind, fmt: FloatFormat
) -> np.ndarray:
    """-> uint16 bits of q's shape."""
    s, sh, zero = (spread(a, kind, q.shape) for a in (*expand(code), z))
    p = (s << sh) * (8 * q + zero)
    sign = np.where(p < 0, np.uint16(SIGN_BIT), np.uint16(0))
    return magnitude_from_ratio(np.abs(p), 1, u - 3, fmt) | sign


def pack_values(q: np.ndarray) -> np.ndarray:
    """q: (tokens, heads, head_dim) -> uint8 (tokens, heads, head_dim / 2)."""
    runs = np.split(q.astype(np.uint8), range(GROUP, q.shape[-1], GROUP), axis=-1)
    halves = [np.split(run, 2, axis=-1) for run in runs]
    return np.concatenate([low | high << 4 for low, high in halves], axis=-1)


def unpack_values(packed: np.ndarray) -> np.ndarray:
    """uint8 (tokens, heads, head_dim / 2) -> int64 (tokens, heads, head_dim)."""
    runs = np.split(packed, range(GROUP // 2, packed.shape[-1], GROUP // 2), axis=-1)
    lanes = [np.concatenate([run & 15, run >> 4], axis=-1) for run in runs]
    return np.concatenate(lanes, axis=-1).astype(np.int64)


def encode(arrays: dict[Kind, np.ndarray], fmt: FloatFormat) -> tuple[bytes, bytes]:
    """arrays: uint16 bits (tokens, heads, head_dim) per kind, finite -> (payload, scheme_params)."""
    exponents, planes = {Kind.KEY: 0, Kind.VALUE: 0}, []
    for kind, bits in arrays.items():
        exponents[kind], code, z, q = quantise(bits, kind, fmt)
        high = (z.reshape(-1, 2) >> 8 & 15) << (0, 4)
        planes += [code, z & 255, high.sum(axis=1), pack_values(q)]
    payload = b"".join(plane.astype(np.uint8).tobytes() for plane in planes)
    return payload, PARAMS.pack(exponents[Kind.KEY], exponents[Kind.VALUE], 0)


def decode(
    payload: bytes, params: bytes, kinds: Kind, shape: tuple[int, ...], fmt: FloatFormat
) -> dict[Kind, np.ndarray]:
    """payload of the right length and scheme_params -> uint16 bits of `shape` per kind."""
    *exponents, rest = PARAMS.unpack(params)
    u = dict(zip((Kind.KEY, Kind.VALUE), exponents, strict=True))
    for name, value in [(k.name, u[k] & 0xFFFF) for k in u if k not in kinds] + [("rest", rest)]:
        if value:
            raise RecordError(
                f"scheme_params {name} {value}, should be 0: record damaged; refetch the block",
                status=Status.BAD_PAYLOAD,
                value=value,
            )
    plane, out = np.frombuffer(payload, np.uint8).astype(np.int64), {}
    for kind in (k for k in u if k in kinds):
        groups = int(np.prod(group_shape(kind, shape)))
        cuts = np.cumsum([groups, groups, groups // 2, int(np.prod(shape)) // 2])
        code, low, high, packed, plane = np.split(plane, cuts)
        z = low | (np.stack([high & 15, high >> 4], axis=1).reshape(-1) ^ 8) - 8 << 8
        code, z = code.reshape(group_shape(kind, shape)), z.reshape(group_shape(kind, shape))
        q = unpack_values(packed.reshape(*shape[:2], -1))
        out[kind] = dequantise(u[kind], code, z, q, kind, fmt)
    return out
