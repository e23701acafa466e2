"""The image of a codebook, which kernels read: docs/codebook_format.md."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.codebook.parts import UNIT_SCALARS, Tables, Unit, padded

_ROTATION_SCALE: Final = 1 << spec.KLT_ROTATION_BITS


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


def image_of(units: Sequence[Unit], tables: Tables, fingerprint: int) -> bytes:
    """Headers, one a line; the shared sections; the sections of each unit, each whole lines."""
    line = spec.LINE_BYTES

    def whole(arrays: Iterable[npt.NDArray[Any]]) -> bytes:
        parts = [np.ascontiguousarray(a).tobytes() for a in arrays]
        return b"".join(part + bytes(-len(part) % line) for part in parts)

    headers = np.zeros(len(units), spec.CODEBOOK_HEADER)
    bodies = [whole(shared_sections(tables))]
    at = len(headers)
    headers["magic"], headers["version"] = spec.CODEBOOK_MAGIC, spec.CODEBOOK_VERSION
    headers["slots"], headers["fingerprint"] = len(headers), fingerprint
    headers["shared_line"] = at
    headers["classes"] = tables.classes
    for header, unit in zip(headers, units, strict=True):
        at += len(bodies[-1]) // line
        header["body_line"] = at
        for name in ("rank", "pairs", *UNIT_SCALARS):
            header[name] = getattr(unit, name)
        bodies.append(whole(unit_sections(unit)))
    return headers.tobytes() + b"".join(bodies)
