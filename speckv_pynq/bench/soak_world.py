"""What a soak's memory system should hold: contents, who shares them, and the bytes of their records."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.errors import CheckFailed
from speckv_pynq.reference import BlockInfo, decode_record, encode_record

LAYERS: Final = 2
HEADS: Final = 1
HEAD_DIM: Final = 64
TOKENS: Final = 16
SHAPE: Final = (2, TOKENS, HEADS, HEAD_DIM)
BLOCK_BYTES: Final = 2 * TOKENS * HEADS * HEAD_DIM * 2
BASES: Final = 256
PATTERNS: Final = BASES * TOKENS * HEAD_DIM
UNCODABLE: Final = 8  # every so many bases one holds an infinity: int4 keeps it raw

Bits = npt.NDArray[np.uint16]


def check(holds: bool, what: str, *values: object) -> None:
    """CheckFailed that names the values."""
    if not holds:
        raise CheckFailed(" ".join([what, *map(str, values)]))


def written(pattern: int) -> Bits:
    """SHAPE: FP16 bits as a caller writes them."""
    return _turned(_base(pattern % BASES), pattern)


def decoded(pattern: int, scheme: spec.Scheme) -> bytes:
    """The block once it was coded and decoded; layer and position do not matter to it."""
    return _turned(_by_reference(pattern % BASES, scheme)[0], pattern).tobytes()


def _turned(bits: Bits, pattern: int) -> Bits:
    """A base with K turned along its channels and V along its tokens.

    Int4 codes the channels of K and the tokens of V apart, so that coding and turning may change places, and the slow
    reference is asked for the bases alone.
    """
    v_by, k_by = divmod(pattern // BASES, HEAD_DIM)
    return np.stack([np.roll(bits[0], k_by, axis=-1), np.roll(bits[1], v_by, axis=0)])


@functools.cache
def _base(base: int) -> Bits:
    values = np.random.default_rng(base).normal(0, 2, SHAPE).astype(np.float16)
    if base % UNCODABLE == 0:
        values.reshape(-1)[base % values.size] = np.inf
    bits: Bits = values.view(np.uint16)
    return bits


@functools.cache
def _by_reference(base: int, scheme: spec.Scheme) -> tuple[Bits, int]:
    k, v = _base(base)
    record = encode_record(k, v, scheme, dtype=spec.DType.FP16)
    halves = decode_record(record, BlockInfo(TOKENS, HEADS, HEAD_DIM))
    return np.stack(halves), len(record)  # type: ignore[arg-type]


def record_bytes(pattern: int, scheme: spec.Scheme) -> int:
    """Of the block's record, padding included."""
    return _by_reference(pattern % BASES, scheme)[1]


def place(cell: int) -> tuple[int, int]:
    """Layer and first position of a sequence's n-th block."""
    return cell % LAYERS, cell // LAYERS * TOKENS


@dataclass(eq=False)
class Held:
    """One block in memory, of one or several sequences."""

    pattern: int
    scheme: spec.Scheme
    cell: int
    users: int = 1
    coded: bool = False  # somebody has seen what its record decodes to
    read: bool = False


class World:
    """Sequences of blocks, with sums kept from call to call.

    share_equal: equal blocks at equal places are one, as in a system that compares records; else only forks share.
    """

    def __init__(self, *, share_equal: bool) -> None:
        self.share_equal = share_equal
        self.sequences: dict[int, list[Held]] = {}
        self.blocks = self.references = self.record_bytes = 0
        self.written_sequences = 0  # those that have blocks
        self.most_references = self.shared = 0
        self._by_content: dict[tuple[int, int], Held] = {}

    def write(self, request: int, cell: int, pattern: int, scheme: spec.Scheme) -> None:
        """A block is written or, where there is one, replaced."""
        row = self.sequences[request]
        old = row[cell] if cell < len(row) else None
        if old is not None and old.users == 1 and not self.share_equal:
            scheme = old.scheme  # overwritten where it lies
        held = self._by_content.get((pattern, cell)) if self.share_equal else None
        if held is None:
            held = self._add(Held(pattern, scheme, cell))
        else:
            held.users += 1
            self.shared += 1
        self.references += 1
        self.most_references = max(self.most_references, self.references)
        if old is None:
            self.written_sequences += not row
            row.append(held)
        else:
            row[cell] = held
            self._leave(old)

    def fork(self, request: int, new: int) -> None:
        row = self.sequences[new] = list(self.sequences[request])
        for held in row:
            held.users += 1
        self.written_sequences += bool(row)
        self.shared += len(row)
        self.references += len(row)
        self.most_references = max(self.most_references, self.references)

    def free(self, request: int) -> None:
        row = self.sequences.pop(request)
        self.written_sequences -= bool(row)
        for held in row:
            self._leave(held)

    def _add(self, held: Held) -> Held:
        self.blocks += 1
        self.record_bytes += record_bytes(held.pattern, held.scheme)
        if self.share_equal:
            self._by_content[held.pattern, held.cell] = held
        return held

    def _leave(self, held: Held) -> None:
        self.references -= 1
        held.users -= 1
        if held.users:
            return
        self.blocks -= 1
        self.record_bytes -= record_bytes(held.pattern, held.scheme)
        if self.share_equal:
            del self._by_content[held.pattern, held.cell]
