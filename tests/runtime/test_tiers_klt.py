"""Blocks of several layers in one record, through the tiers."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq.block import BlockShape
from speckv_pynq.codec import LoadedCodebook
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import CodebookError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.spec import DType, Scheme
from speckv_pynq.tiers import TierManager
from tests.codebooks import Shape, random_codebook
from tests.runtime.tiers import Cache, budgets, conserved

pytestmark = pytest.mark.requires("libspeckv")
GROUP, HEADS = 3, 2
SHAPE = BlockShape(16, GROUP * HEADS, 64, DType.FP16)
BOOK = random_codebook(5, Shape(GROUP * HEADS, 64, layer_count=GROUP), units=2)


def through_reference(cache: Cache, layer: int) -> Cache:
    """What the reference makes of encoding and decoding each block."""
    out = cache.empty()
    for i in range(cache.blocks):
        identity = {
            "first_layer": layer,
            "layer_count": GROUP,
            "first_position": i * SHAPE.tokens,
            "codebook_fingerprint": BOOK.fingerprint,
        }
        record = encode_record(*cache.block(i), Scheme.KLT, codebook=BOOK, **identity)
        info = BlockInfo(SHAPE.tokens, SHAPE.heads, SHAPE.head_dim, **identity)
        at = slice(i * SHAPE.tokens, (i + 1) * SHAPE.tokens)
        for target, half in zip((out.k, out.v), decode_record(record, info, BOOK), strict=True):
            assert half is not None
            target.view(np.uint16)[0, :, at] = half.transpose(1, 0, 2)
    return out


@pytest.mark.parametrize("l1", [0, 2, 100])
def test_groups_come_back_as_the_reference_decodes_them(l1: int) -> None:
    with CsimDevice(2) as device:
        with (
            LoadedCodebook(device, BOOK) as loaded,
            TierManager(
                device, SHAPE, Scheme.KLT, budgets(SHAPE, l1), layers=2 * GROUP, codebook=loaded
            ) as tiers,
        ):
            caches = {layer: Cache.random(5, layer, SHAPE) for layer in (0, GROUP)}
            handles = {layer: cache.put(tiers, layer) for layer, cache in caches.items()}
            for _ in range(2):
                for layer, cache in caches.items():
                    want = through_reference(cache, layer)
                    assert not want.same(cache)
                    assert cache.get(tiers, handles[layer]).same(want)
                    conserved(tiers)
            stats = tiers.stats()
            assert stats.blocks == 10
            by_layer = stats.record_bytes_by_layer
            assert [layer for layer, n in enumerate(by_layer) if n] == [0, GROUP]
            assert tiers.prefetch(handles[0]) >= 0
            with pytest.raises(CodebookError, match="begin with layer 1"):
                caches[0].put(tiers, 1)
            assert tiers.stats().blocks == 10
        assert device.live_buffers == 0


def test_blocks_beyond_the_codebook_are_counted() -> None:
    cache = Cache.random(4, 0, SHAPE)
    cache.k[0, 1, 20, 3] = 60000  # in the second block
    with (
        CsimDevice(1) as device,
        LoadedCodebook(device, BOOK) as loaded,
        TierManager(
            device, SHAPE, Scheme.KLT, budgets(SHAPE), layers=2 * GROUP, codebook=loaded
        ) as tiers,
    ):
        before = sum(through_int4(cache))
        cache.put(tiers)
        assert tiers.stats().int4_fallbacks == before >= 1
        assert tiers.stats().raw_fallbacks == 0


def through_int4(cache: Cache) -> list[bool]:
    """Which blocks the reference codes as int4."""
    identity = {"layer_count": GROUP, "codebook_fingerprint": BOOK.fingerprint}
    records = [
        encode_record(
            *cache.block(i),
            Scheme.KLT,
            codebook=BOOK,
            first_position=i * SHAPE.tokens,
            **identity,
        )
        for i in range(cache.blocks)
    ]
    return [record[8] == Scheme.INT4 for record in records]


def test_every_layer_needs_a_unit() -> None:
    with (
        CsimDevice(1) as device,
        LoadedCodebook(device, BOOK) as loaded,
        pytest.raises(CodebookError, match=r"begin with layer 6; .* layers 0, 3"),
    ):
        TierManager(device, SHAPE, Scheme.KLT, budgets(SHAPE), layers=3 * GROUP, codebook=loaded)
