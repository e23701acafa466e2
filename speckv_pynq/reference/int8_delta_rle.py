"""Scheme `int8_delta_rle`: 8-bit quantisation, delta, run lengths (the published pipeline, seed's 20 stages).

Each kind by itself, over all its values in C order (tokens, heads, head_dim):

1. The value of largest magnitude (largest bits & 0x7fff) gives exponent `em` and mantissa `mm`
   (see floats.py). Its magnitude bits, sign clear, are the kind's `absmax`.
2. Quantise x with exponent `e` and mantissa `m`, d = em - e, to about 127 * x / max:
   q = min(127, (m * recip + 2**(19 + d)) >> (20 + d)) with recip = floor((127 << 20) / mm); 0 for
   d > 30 or when all values are zero; then x's sign. A half in magnitude rounds up.
3. Delta: b[0] = q[0], b[i] = q[i] - q[i - 1], modulo 256.
4. Runs: pairs (count - 1, b), 1 <= count <= 256, runs as long as they get.

Payload: K's pairs, then V's. scheme_params: absmax of K (u16), absmax of V (u16), bytes of K's
pairs (u32); those of a kind that the record lacks are zero.

Decoding: |x| = |q| * mm * 2**(em - bias - mantissa_bits) / 127 as an exact ratio, rounded once to the
nearest value of the dtype, ties to even, subnormals included; a negative q sets the sign bit.
"""

from __future__ import annotations

import struct

import numpy as np

from speckv_pynq.errors import RecordError
from speckv_pynq.reference.floats import (
    MAGNITUDE_MASK,
    SIGN_BIT,
    FloatFormat,
    magnitude_from_ratio,
    take_apart,
)
from speckv_pynq.spec import Kind, Status

LEVELS = 127
RECIPROCAL_BITS = 20
MAX_SHIFT = 30
MAX_RUN = 256
PARAMS = struct.Struct("<HHI")


def quantise(bits: np.ndarray, fmt: FloatFormat) -> tuple[int, np.ndarray]:
    """bits: uint16, finite -> (absmax bits, q int64 in -127..127 of the same shape)."""
    absmax = int((bits & MAGNITUDE_MASK).max())
    if absmax == 0:
        return 0, np.zeros(bits.shape, np.int64)
    _, top_exponent, top_mantissa = take_apart(np.array(absmax, np.uint16), fmt)
    sign, exponent, mantissa = take_apart(bits, fmt)
    reciprocal = (LEVELS << RECIPROCAL_BITS) // top_mantissa
    down = top_exponent - exponent
    shift = np.minimum(down, MAX_SHIFT) + RECIPROCAL_BITS
    q = (mantissa * reciprocal + (np.int64(1) << (shift - 1))) >> shift
    q = np.where(down > MAX_SHIFT, 0, np.minimum(q, LEVELS))
    return absmax, np.where(sign == 1, -q, q)


def dequantise_table(absmax: int, fmt: FloatFormat) -> np.ndarray:
    """(128,) uint16: magnitude bits for |q| = 0..127."""
    _, exponent, mantissa = take_apart(np.array(absmax, np.uint16), fmt)
    ratio_exponent = exponent - fmt.bias - fmt.mantissa_bits
    q = np.arange(LEVELS + 1, dtype=np.int64)
    return magnitude_from_ratio(q * mantissa, LEVELS, ratio_exponent, fmt)


def run_lengths(values: np.ndarray) -> bytes:
    """values: uint8, 1-D, not empty -> (count - 1, value) pairs."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[starts, values.size])
    pairs_of_run = -(-lengths // MAX_RUN)
    pairs = np.empty((int(pairs_of_run.sum()), 2), np.uint8)
    pairs[:, 0] = MAX_RUN - 1
    pairs[np.cumsum(pairs_of_run) - 1, 0] = (lengths - 1) % MAX_RUN
    pairs[:, 1] = np.repeat(values[starts], pairs_of_run)
    return pairs.tobytes()


def encode(arrays: dict[Kind, np.ndarray], fmt: FloatFormat) -> tuple[bytes, bytes]:
    """arrays: uint16 bits (tokens, heads, head_dim) per kind, finite -> (payload, scheme_params)."""
    absmax, streams = {}, {}
    for kind, bits in arrays.items():
        absmax[kind], q = quantise(bits.reshape(-1), fmt)
        streams[kind] = run_lengths(np.diff(q, prepend=0).astype(np.uint8))
    key_stream = streams.get(Kind.KEY, b"")
    params = PARAMS.pack(absmax.get(Kind.KEY, 0), absmax.get(Kind.VALUE, 0), len(key_stream))
    return key_stream + streams.get(Kind.VALUE, b""), params


def decode(
    payload: bytes, params: bytes, kinds: Kind, shape: tuple[int, ...], fmt: FloatFormat
) -> dict[Kind, np.ndarray]:
    """payload and scheme_params -> uint16 bits of `shape` per kind; RecordError where they contradict."""
    key_absmax, value_absmax, key_bytes = PARAMS.unpack(params)
    if key_bytes > len(payload):
        raise _damaged("bytes of K's runs", key_bytes, len(payload))
    absmax = {Kind.KEY: key_absmax, Kind.VALUE: value_absmax}
    streams = {Kind.KEY: payload[:key_bytes], Kind.VALUE: payload[key_bytes:]}
    out = {}
    for kind in (Kind.KEY, Kind.VALUE):
        if kind in kinds:
            out[kind] = _decode_kind(streams[kind], absmax[kind], shape, fmt)
        elif streams[kind] or absmax[kind]:
            raise _damaged(f"bytes of {kind.name}, which the record lacks,", len(streams[kind]), 0)
    return out


def _decode_kind(
    stream: bytes, absmax: int, shape: tuple[int, ...], fmt: FloatFormat
) -> np.ndarray:
    values = int(np.prod(shape))
    if absmax > fmt.max_finite:
        raise _damaged("absmax", absmax, fmt.max_finite)
    if len(stream) % 2:
        raise _damaged("bytes of runs, odd:", len(stream), len(stream) - 1)
    counts, deltas = np.frombuffer(stream, np.uint8).reshape(-1, 2).T
    total = int(counts.sum(dtype=np.int64)) + counts.size
    if total != values:
        raise _damaged("values in the runs", total, values)
    q = np.cumsum(np.repeat(deltas, counts.astype(np.int64) + 1), dtype=np.uint8).view(np.int8)
    lowest = int(q.min())
    if lowest < -LEVELS:
        raise _damaged("quantised value", lowest, -LEVELS)
    magnitude = dequantise_table(absmax, fmt)[np.abs(q.astype(np.int64))]
    return (magnitude | np.where(q < 0, np.uint16(SIGN_BIT), np.uint16(0))).reshape(shape)


def _damaged(what: str, value: int, limit: int) -> RecordError:
    return RecordError(
        f"{what} {value}, should be {limit}: payload damaged; refetch the block",
        status=Status.BAD_PAYLOAD,
        value=value,
        limit=limit,
    )
