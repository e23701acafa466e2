"""Interleaved range coding (rANS; Duda, arXiv 1311.2540), the entropy coder of schemes `klt` and `lossless`.

ENTROPY_LANES states take turns: symbol i belongs to lane i mod ENTROPY_LANES. A state x is 32 bits wide and lies in
2**16 .. 2**32 - 1. With f the frequency of a symbol and c the sum of those before it, both of 2**ENTROPY_BITS = 2**12:

Encoding takes the symbols from the last to the first: if x >= f << 20, the low 16 bits of x become a word and
x >>= 16; then x = ((x // f) << 12) + x % f + c.
Decoding goes from the first symbol to the last: the symbol is the one with c <= x & 4095 < c + f;
x = f * (x >> 12) + (x & 4095) - c; if x < 2**16, x = (x << 16) | the next word.

So a lane takes at most one 16-bit word a symbol, and lanes that take one in the same round take them in order.
A stream is the states before the first symbol, u32 a lane, then the words, u16, in the order of decoding. A lane
begins (encoding) and ends (decoding) at 2**16 + s, where s is 16 bits of the record's own: the states cost a record
64 bytes, not 128, because the first 64 bytes of what a scheme stores beside its symbols travel as the lanes' s.
"""

from __future__ import annotations

import numpy as np

from speckv_pynq.errors import RecordError
from speckv_pynq.spec import ENTROPY_BITS, ENTROPY_LANES, Status

LOW = 1 << 16  # least state
SLOTS = 1 << ENTROPY_BITS
STATE_BYTES = 4 * ENTROPY_LANES
SEED_BYTES = 2 * ENTROPY_LANES  # of side information that travels in the states


def rounds(count: int) -> list[slice]:
    """The symbols that all lanes take together, in order; the last round may be short."""
    return [slice(i, min(i + ENTROPY_LANES, count)) for i in range(0, count, ENTROPY_LANES)]


def encode(frequency: np.ndarray, start: np.ndarray, seeds: np.ndarray) -> tuple[bytes, int]:
    """frequency, start: (n,) of each symbol, in order; seeds: (ENTROPY_LANES,) uint16 -> (stream, words)."""
    x = LOW + seeds.astype(np.uint64)
    f, c = frequency.astype(np.uint64), start.astype(np.uint64)
    words: list[np.ndarray] = []
    for part in reversed(rounds(len(f))):
        state, fs = x[: part.stop - part.start], f[part]
        full = state >= fs << np.uint64(32 - ENTROPY_BITS)
        words.append((state[full] & np.uint64(0xFFFF))[::-1])
        state = np.where(full, state >> np.uint64(16), state)
        x[: len(state)] = (state // fs << np.uint64(ENTROPY_BITS)) + state % fs + c[part]
    stream = np.concatenate([*words, np.empty(0, np.uint64)])[::-1].astype("<u2")
    return x.astype("<u4").tobytes() + stream.tobytes(), len(stream)


class Decoder:
    """Takes symbols from a stream, a round at a time."""

    def __init__(self, stream: bytes, words: int) -> None:
        """stream: STATE_BYTES of states, then `words` words."""
        self._x = np.frombuffer(stream[:STATE_BYTES], "<u4").astype(np.uint64)
        self._words = np.frombuffer(stream[STATE_BYTES : STATE_BYTES + 2 * words], "<u2")
        self._at = 0  # words that were needed: beyond the last one, zeros are read
        if (self._x < LOW).any():
            raise damaged("state", int(self._x.min()), LOW)

    def slots(self, lanes: slice) -> np.ndarray:
        """What decides the next symbol of each of these lanes: int64 within 2**ENTROPY_BITS."""
        return (self._x[lanes] & np.uint64(SLOTS - 1)).astype(np.int64)

    def take(self, lanes: slice, frequency: np.ndarray, start: np.ndarray) -> None:
        """Moves on past symbols of these frequencies and starts, one of each of these lanes."""
        x = self._x[lanes]
        slot = x & np.uint64(SLOTS - 1)
        x = frequency.astype(np.uint64) * (x >> np.uint64(ENTROPY_BITS)) + slot
        x -= start.astype(np.uint64)
        low = np.flatnonzero(x < LOW)
        words = np.zeros(len(low), np.uint64)
        there = self._words[self._at : self._at + len(low)]
        words[: len(there)] = there
        x[low] = x[low] << np.uint64(16) | words
        self._at += len(low)
        self._x[lanes] = x

    def finish(self) -> bytes:
        """The 64 bytes that travelled in the states; RecordError unless the stream ends as it must."""
        if self._at != len(self._words):
            raise damaged("words", len(self._words), self._at)
        if (self._x >= 2 * LOW).any():  # below LOW it cannot be: every frequency is at least 1
            raise damaged("state at the end", int(self._x.max()), 2 * LOW - 1)
        return (self._x - LOW).astype("<u2").tobytes()


def damaged(what: str, value: int, limit: int) -> RecordError:
    """A payload that contradicts itself although its checksum holds."""
    return RecordError(
        f"{what} {value}, should be {limit}: record damaged; refetch the block",
        status=Status.BAD_PAYLOAD,
        value=value & 0xFFFFFFFF,
        limit=limit & 0xFFFFFFFF,
    )
