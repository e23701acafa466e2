"""Caches for the tests of the tiers: random K and V, and what must come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.block import NUMPY_DTYPES, BlockShape
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.spec import DType, Scheme
from speckv_pynq.tiers import StridedKV, TierConfig, TierManager, TierStats

SMALL = BlockShape(16, 2, 64, DType.FP16)  # 8 KiB
LAYERS = 3


def budgets(
    shape: BlockShape, l1: float = 0, l3: int = 1 << 30, policy: Any = "dense", l2: int = 4
) -> TierConfig:
    """L1 and L2 budgets in blocks."""
    block = shape.block_bytes
    l2_bytes = l2 * (block + 64 * len(shape.split()))
    return TierConfig(int(l1 * block), l2_bytes, l3, policy)


@contextmanager
def manager(
    config: TierConfig | None = None,
    shape: BlockShape = SMALL,
    scheme: Scheme = Scheme.RAW,
    engines: int = 2,
    wrap: Callable[[CsimDevice], Any] = lambda device: device,
) -> Iterator[TierManager]:
    """A manager on a device of its own; checks that nothing of it stays."""
    with CsimDevice(engines) as device:
        with TierManager(
            wrap(device), shape, scheme, config or budgets(shape), 0xF00D, layers=LAYERS
        ) as tiers:
            yield tiers
        assert device.live_buffers == 0


@dataclass
class Cache:
    """One layer on the host: k, v (batch, heads, tokens, head_dim) in the blocks' dtype."""

    shape: BlockShape
    k: np.ndarray
    v: np.ndarray

    @classmethod
    def random(cls, blocks: int, seed: int = 0, shape: BlockShape = SMALL, batch: int = 1) -> Cache:
        sizes = (batch, shape.heads, blocks * shape.tokens, shape.head_dim)
        rng = np.random.default_rng(seed)
        k, v = (rng.standard_normal(sizes).astype(np.float32) for _ in range(2))
        if shape.dtype is DType.BF16:
            k, v = ((x.view(np.uint32) >> 16).astype(np.uint16) for x in (k, v))
        return cls(shape, *(x.astype(NUMPY_DTYPES[shape.dtype]) for x in (k, v)))

    @property
    def blocks(self) -> int:
        return self.k.shape[2] // self.shape.tokens

    @property
    def offsets(self) -> np.ndarray:
        return np.arange(self.blocks) * self.shape.tokens

    @property
    def rows(self) -> np.ndarray:
        return np.zeros(self.blocks, np.int64)

    def kv(self) -> StridedKV:
        return StridedKV.of(self.k, self.v, dtype=self.shape.dtype)

    def put(self, tiers: TierManager, layer: int = 0, keys: Any = None) -> np.ndarray:
        return tiers.put(layer, self.offsets, self.rows, self.offsets, self.kv(), keys)

    def empty(self) -> Cache:
        return Cache(self.shape, np.zeros_like(self.k), np.zeros_like(self.v))

    def get(self, tiers: TierManager, handles: np.ndarray) -> Cache:
        """Everything, read back."""
        out = self.empty()
        tiers.get(handles, self.rows, self.offsets, out.kv())
        return out

    def block(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """K and V of block i, (tokens, heads, head_dim)."""
        at = slice(i * self.shape.tokens, (i + 1) * self.shape.tokens)
        k, v = (np.ascontiguousarray(x[0, :, at].transpose(1, 0, 2)) for x in (self.k, self.v))
        return k, v

    def same(self, other: Cache) -> bool:
        return self.k.tobytes() == other.k.tobytes() and self.v.tobytes() == other.v.tobytes()


def through_reference(cache: Cache, scheme: Scheme, layer: int) -> Cache:
    """What the reference makes of encoding and decoding each block."""
    out, shape = cache.empty(), cache.shape
    for i in range(cache.blocks):
        at = slice(i * shape.tokens, (i + 1) * shape.tokens)
        for first, heads in shape.split():
            part = slice(first, first + heads)
            identity = {
                "dtype": shape.dtype, "first_layer": layer, "first_head": first,
                "first_position": i * shape.tokens, "layout_fingerprint": 0xF00D,
            }  # fmt: skip
            info = BlockInfo(shape.tokens, heads, shape.head_dim, **identity)
            halves = [np.ascontiguousarray(x[:, part]).view(np.uint16) for x in cache.block(i)]
            decoded = decode_record(encode_record(*halves, scheme, **identity), info)
            for target, half in zip((out.k, out.v), decoded, strict=True):
                assert half is not None
                target.view(np.uint16)[0, part, at] = half.transpose(1, 0, 2).view(np.uint16)
    return out


def conserved(tiers: TierManager) -> None:
    """Budgets hold, and the sums agree."""
    s, c = tiers.stats(), tiers.config
    assert s.l1_bytes <= c.l1_bytes
    assert s.l2_bytes <= c.l2_bytes
    assert s.l3_bytes <= c.l3_bytes
    assert s.l3_bytes - s.l3_slack_bytes == s.record_bytes == sum(s.record_bytes_by_layer)
    assert s.l1_blocks * tiers.shape.block_bytes <= s.l1_bytes
    assert s.l3_bytes % spec.FRAME_BYTES == 0


def held(tiers: TierManager) -> TierStats:
    """All that a failed call must leave alone: not the size of tables that grew for it."""
    return replace(tiers.stats(), metadata_bytes=0)
