"""What a codebook is made of: units, which serve the records of some layers, and the entropy tables they share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec

COLUMN_PAD: Final = 32  # rows of a transform are padded with zeros to a multiple of this
COST_UNIT: Final = 64  # of a bit, in `cost`
ESCAPE_BITS: Final = 16
FULL: Final = 1 << spec.ENTROPY_BITS
# Of a Unit: what is a number; the rest are arrays.
UNIT_SCALARS: Final = (
    "first_layer",
    "layer_count",
    "heads",
    "head_dim",
    "kinds",
    "transforms",
    "apart",
    "interleaved",
)


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


def channel_order(
    kinds: int, heads: int, head_dim: int, transforms: int, apart: bool
) -> npt.NDArray[np.int64]:
    """(kinds * heads * head_dim,): the channels, of (kind, head, element) in C order, by transform."""
    channels = np.arange(kinds * heads * head_dim, dtype=np.int64)
    if apart:
        return channels
    return channels.reshape(kinds, transforms, -1).transpose(1, 0, 2).reshape(-1)


def pair_elements(
    pairs: int, interleaved: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The two elements of each rotated pair of a head, (pairs,) each."""
    i = np.arange(pairs)
    return (2 * i, 2 * i + 1) if interleaved else (i, i + pairs)


def unit_arrays() -> list[str]:
    """Names of a Unit's arrays."""
    return [f.name for f in fields(Unit) if f.name not in UNIT_SCALARS]
