"""Blocks for tests: named cases of bit patterns, and the hypothesis strategies that draw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo
from speckv_pynq.spec import DType, Kind

# layers; key, value float16 (blocks, tokens, heads, head_dim): of a real cache
REAL_BLOCKS = Path(__file__).parent / "data/smollm2_blocks.npz"
INFINITY = {DType.FP16: 0x7C00, DType.BF16: 0x7F80}
FINITE_CASES = (
    "any_finite",
    "zeros",
    "signed_zeros",
    "constant",
    "largest",
    "subnormal",
    "smallest",
    "normal",
    "outlier",
    "channels",
    "runs",
    "narrow",
    "tiny_groups",
)
LOSSY_DTYPES = (DType.FP16, DType.BF16)


def to_bits(values: np.ndarray, dtype: DType) -> np.ndarray:
    """float64 values -> nearest bit patterns, uint16; saturates at the largest finite value."""
    if dtype == DType.FP16:
        return np.clip(values, -65504, 65504).astype(np.float16).view(np.uint16)
    words = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype(np.uint16)


def to_floats(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """uint16 bit patterns -> the same values, exactly, as float64."""
    if dtype == DType.FP16:
        return bits.view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def make_bits(case: str, seed: int, shape: tuple[int, int, int], dtype: DType) -> np.ndarray:
    """One kind of a block: uint16 bit patterns (tokens, heads, head_dim) of a case above."""
    rng = np.random.default_rng([seed, len(case)])
    infinity = INFINITY[dtype]
    sign = rng.integers(0, 2, shape).astype(np.uint16) << 15
    if case == "any":
        return rng.integers(0, 1 << 16, shape).astype(np.uint16)
    if case == "any_finite":
        return rng.integers(0, infinity, shape).astype(np.uint16) | sign
    if case == "zeros":
        return np.zeros(shape, np.uint16)
    if case == "signed_zeros":
        return sign
    if case == "constant":
        return np.full(shape, rng.integers(0, infinity), np.uint16) | (rng.integers(0, 2) << 15)
    if case == "largest":
        return np.full(shape, infinity - 1, np.uint16) | sign
    if case == "subnormal":
        hidden = infinity & -infinity
        return rng.integers(0, hidden, shape).astype(np.uint16) | sign
    if case == "smallest":
        return rng.integers(0, 4, shape).astype(np.uint16) | sign
    values = rng.standard_normal(shape)
    if case == "outlier":
        values.flat[rng.integers(values.size)] = rng.choice([-1, 1]) * 2.0 ** rng.integers(3, 15)
    elif case == "channels":
        values *= 2.0 ** rng.integers(-12, 3, shape[-1])
        values += rng.standard_normal(shape[-1]) * 8
    elif case == "runs":
        values = np.repeat(values.reshape(-1)[::64], 64).reshape(shape)
    elif case == "narrow":  # a range far below the values themselves
        values = 1000 + values
    elif (
        case == "tiny_groups"
    ):  # of either sign, far below one large channel: int4's smallest codes
        values = 1 + values / 64
        values *= rng.choice([-1, 1], shape[-1]) * 2.0 ** -rng.uniform(6, 13, shape[-1])
        values[..., 0] *= 2.0**13
    elif case == "steady":
        values = (1 + values / 8) * 2.0 ** -rng.uniform(7, 12, shape[-1])
        values[..., 0] = 1 + rng.random()
    return to_bits(values, dtype)


@st.composite
def shapes(draw: st.DrawFn, max_bytes: int = 32768) -> tuple[int, int, int]:
    """(tokens, heads, head_dim) that kernels accept; small enough to keep many examples quick."""
    tokens = draw(st.sampled_from(spec.BLOCK_TOKENS_ALLOWED))
    head_dim = draw(st.sampled_from(spec.HEAD_DIM_ALLOWED))
    most = max(1, min(8, max_bytes // (4 * tokens * head_dim)))
    return tokens, draw(st.integers(1, most)), head_dim


@st.composite
def block_infos(draw: st.DrawFn, dtypes: tuple[DType, ...] = LOSSY_DTYPES) -> BlockInfo:
    """A block's shape, dtype, kinds and identity, every field drawn over its whole range."""
    return BlockInfo(
        *draw(shapes()),
        dtype=draw(st.sampled_from(dtypes)),
        kinds=draw(st.sampled_from((Kind.BOTH, Kind.BOTH, Kind.KEY, Kind.VALUE))),
        first_layer=draw(st.integers(0, 0xFFFF)),
        first_head=draw(st.integers(0, 0xFFFF)),
        first_position=draw(st.integers(0, 0xFFFFFFFF)),
        layout_fingerprint=draw(st.integers(0, (1 << 64) - 1)),
    )


@st.composite
def blocks(
    draw: st.DrawFn, cases: tuple[str, ...] = FINITE_CASES
) -> tuple[BlockInfo, np.ndarray | None, np.ndarray | None]:
    """(info, k, v): bit patterns, None for a kind that the block lacks."""
    info = draw(block_infos())
    k, v = (
        make_bits(
            draw(st.sampled_from(cases)),
            draw(st.integers(0, 1 << 32)),
            info.shape,
            DType(info.dtype),
        )
        for _ in range(2)
    )
    return info, k if Kind.KEY in info.kinds else None, v if Kind.VALUE in info.kinds else None


def identity(info: BlockInfo) -> dict[str, int]:
    """The keyword arguments that encode_record wants beside the arrays."""
    names = (
        "dtype",
        "first_layer",
        "layer_count",
        "first_head",
        "first_position",
        "layout_fingerprint",
        "codebook_fingerprint",
    )
    return {name: getattr(info, name) for name in names}
