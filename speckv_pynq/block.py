"""Blocks: their shape, how a large one is split by KV head, and what identifies one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.errors import ShapeError

_MAX_U16: Final = 0xFFFF

# Element types as NumPy sees them; it has no bfloat16, so those travel as their bits.
NUMPY_DTYPES: Final[dict[spec.DType, np.dtype[np.generic]]] = {
    spec.DType.FP16: np.dtype(np.float16),
    spec.DType.BF16: np.dtype(np.uint16),
    spec.DType.FP32: np.dtype(np.float32),
}

# What comes back bit for bit; these keep fp32 blocks too, and values that are not finite.
EXACT_SCHEMES: Final = (spec.Scheme.RAW, spec.Scheme.LOSSLESS)

# Identities as a table, for many blocks at once; fields as in BlockId.
BLOCK_ID: Final = np.dtype(
    [
        ("first_position", "<u4"),
        ("layer", "<u2"),
        ("first_head", "<u2"),
        ("heads", "<u2"),
    ]
)


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ShapeError(f"{name} {value} is not within {low}..{high}")


@dataclass(frozen=True)
class BlockShape:
    """K and V of one block: (tokens, heads, head_dim) each, C order, K first; or one alone."""

    tokens: int
    heads: int
    head_dim: int
    dtype: spec.DType
    kinds: spec.Kind = spec.Kind.BOTH

    def __post_init__(self) -> None:
        if self.tokens not in spec.BLOCK_TOKENS_ALLOWED:
            raise ShapeError(f"tokens {self.tokens} is not one of {spec.BLOCK_TOKENS_ALLOWED}")
        if self.head_dim not in spec.HEAD_DIM_ALLOWED:
            raise ShapeError(f"head_dim {self.head_dim} is not one of {spec.HEAD_DIM_ALLOWED}")
        _check("heads", self.heads, 1, _MAX_U16)
        _check("kinds", self.kinds, spec.Kind.KEY, spec.Kind.BOTH)
        if self.dtype not in NUMPY_DTYPES:
            raise ShapeError(f"dtype {self.dtype} is not one of {[d.name for d in spec.DType]}")
        object.__setattr__(self, "dtype", spec.DType(self.dtype))
        object.__setattr__(self, "kinds", spec.Kind(self.kinds))

    @property
    def head_bytes(self) -> int:
        """Bytes of one head of one kind."""
        return self.tokens * self.head_dim * spec.DTYPE_BYTES[self.dtype]

    @property
    def kind_bytes(self) -> int:
        """Bytes of K, or of V; whole lines."""
        return self.heads * self.head_bytes

    @property
    def block_bytes(self) -> int:
        """Bytes of what the block holds: K and V, or the one kind."""
        return self.kind_bytes * self.kinds.bit_count()

    @property
    def slot_bytes(self) -> int:
        """Bytes that a record of this block may take at worst; whole lines."""
        return self.block_bytes + spec.MIN_SLOT_BYTES

    def split(self, max_block_bytes: int = spec.MAX_BLOCK_BYTES) -> list[tuple[int, int]]:
        """The parts that kernels take, as (first head, heads): as few and as equal as possible.

        ShapeError when a single head is over `max_block_bytes`.
        """
        one_head = self.head_bytes * self.kinds.bit_count()
        if one_head > max_block_bytes:
            raise ShapeError(
                f"one head of a block has {one_head} bytes ({self.tokens} tokens x {self.head_dim} "
                f"x {self.dtype.name.lower()}), the kernels' limit is {max_block_bytes}: "
                "use fewer tokens a block"
            )
        parts = -(-self.heads // (max_block_bytes // one_head))
        bounds = [self.heads * i // parts for i in range(parts + 1)]
        return [(first, end - first) for first, end in itertools.pairwise(bounds)]

    def part(self, heads: int) -> BlockShape:
        """The shape of a part with so many heads."""
        return replace(self, heads=heads)


@dataclass(frozen=True)
class BlockId:
    """What identifies a block within its sequence: a record of another one is refused."""

    layer: int
    first_position: int
    first_head: int = 0
    heads: int = 0  # 0: as many as the codec's shape has; otherwise a part of a split block

    def __post_init__(self) -> None:
        _check("layer", self.layer, 0, _MAX_U16)
        _check("first_position", self.first_position, 0, 0xFFFFFFFF)
        _check("first_head", self.first_head, 0, _MAX_U16)
        _check("heads", self.heads, 0, _MAX_U16)


Ids = Sequence[BlockId] | npt.NDArray[np.void]


def block_ids(
    layer: npt.ArrayLike,
    first_position: npt.ArrayLike,
    first_head: npt.ArrayLike = 0,
    heads: npt.ArrayLike = 0,
) -> npt.NDArray[np.void]:
    """A table of identities, (n,) BLOCK_ID, from columns that broadcast against one another."""
    columns = {
        "layer": layer,
        "first_position": first_position,
        "first_head": first_head,
        "heads": heads,
    }
    shape = np.broadcast(np.empty(1), *columns.values()).shape
    table = np.empty(shape, BLOCK_ID)
    for name, column in columns.items():
        limit = 0xFFFFFFFF if name == "first_position" else _MAX_U16
        if isinstance(column, int):
            _check(name, column, 0, limit)
        elif shape != (0,):  # NumPy would cut what does not fit
            _check(name, int(np.min(column)), 0, limit)
            _check(name, int(np.max(column)), 0, limit)
        table[name] = column
    return table


def as_table(ids: Ids) -> npt.NDArray[np.void]:
    """Identities as (n,) BLOCK_ID; a table passes as it is."""
    if isinstance(ids, np.ndarray):
        if ids.dtype != BLOCK_ID or ids.ndim != 1:
            raise ShapeError(f"ids: {ids.ndim}-D {ids.dtype}, not 1-D BLOCK_ID")
        return ids
    rows = [(i.first_position, i.layer, i.first_head, i.heads) for i in ids]
    return np.array(rows, BLOCK_ID).reshape(-1)
