"""Codebooks for tests: random but valid ones, for blocks of any shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speckv_pynq import spec
from speckv_pynq.codebook import FULL, Codebook, Tables, Unit, channel_order, padded
from speckv_pynq.spec import Kind


def random_tables(rng: np.random.Generator, classes: int = 6) -> Tables:
    """Tables of ever wider distributions; some leave low bits raw, some escape often."""
    raw_bits = rng.integers(0, 4, classes).astype(np.uint8)
    half = rng.integers(0, spec.ENTROPY_SYMBOLS // 2, classes).astype(np.uint8)
    frequency = np.zeros((classes, spec.ENTROPY_SYMBOLS), np.uint16)
    for i, h in enumerate(half.astype(int)):
        used = 2 * h + 2
        weights = np.exp(-np.abs(np.arange(used) - h) / rng.uniform(0.3, 6))
        row = 1 + np.floor((FULL - used) * weights / weights.sum()).astype(int)
        row[h] += FULL - row.sum()
        frequency[i, :used] = row
    return Tables(frequency, Tables.costs(frequency, raw_bits, half), raw_bits, half)


@dataclass(frozen=True)
class Shape:
    """What a random unit is made for."""

    heads: int
    head_dim: int
    kinds: Kind = Kind.BOTH
    transforms: int = 1
    apart: bool = False
    interleaved: bool = False
    pairs: int | None = None  # None: the whole head rotates
    layer_count: int = 1


def random_unit(
    rng: np.random.Generator,
    shape: Shape,
    classes: int,
    first_layer: int = 0,
    scale: float = 1.0,
    steps: float = 6.0,
) -> Unit:
    """A unit with orthogonal transforms for values of standard deviation `scale`, about `steps` steps each."""
    kinds, head_dim = int(shape.kinds).bit_count(), shape.head_dim
    n = kinds * shape.heads * head_dim
    each = n // shape.transforms
    pairs = head_dim // 2 if shape.pairs is None else shape.pairs
    exponent = np.full(n, 10 - round(np.log2(scale)), np.int8)
    most = each if rng.random() < 0.3 else min(each, 40)
    ranks = rng.integers(1, most + 1, shape.transforms).astype(np.uint16)
    rank = int(ranks.sum())
    analysis = np.zeros((rank, padded(each)), np.int16)
    synthesis = np.zeros((n, padded(int(ranks.max()))), np.int16)
    at = 0
    for j, r in enumerate(ranks.astype(int)):
        basis = np.linalg.qr(rng.standard_normal((each, r)))[0]
        analysis[at : at + r, :each] = np.round(basis.T * 4096)
        synthesis[j * each : (j + 1) * each, :r] = np.round(basis * 1024 / steps * 8)
        at += r
    return Unit(
        first_layer=first_layer,
        layer_count=shape.layer_count,
        heads=shape.heads,
        head_dim=head_dim,
        kinds=shape.kinds,
        transforms=shape.transforms,
        apart=shape.apart,
        interleaved=shape.interleaved,
        turns=rng.integers(0, 1 << 63, pairs, np.uint64),
        exponent=exponent,
        mean=rng.integers(-300, 300, n).astype(np.int32),
        in_shift=rng.integers(0, 3, n).astype(np.uint8),
        out_shift=np.full(n, 3, np.uint8),
        ranks=ranks,
        analysis=analysis,
        rounding=rng.integers(0, 1 << 17, rank).astype(np.int32),
        shift=rng.integers(16, 21, rank).astype(np.uint8),
        limit=np.full(rank, 1500, np.int16),
        classes=rng.integers(0, classes, (spec.KLT_TABLE_SETS, rank)).astype(np.uint8),
        synthesis=synthesis,
    )


def random_codebook(
    seed: int, shape: Shape, units: int = 1, scale: float = 1.0, first_layer: int = 0
) -> Codebook:
    """A codebook of `units` units that follow each other from `first_layer` on."""
    rng = np.random.default_rng(seed)
    tables = random_tables(rng)
    return Codebook(
        tuple(
            random_unit(rng, shape, tables.classes, first_layer + i * shape.layer_count, scale)
            for i in range(units)
        ),
        tables,
    )


__all__ = ["Shape", "channel_order", "random_codebook", "random_tables", "random_unit"]
