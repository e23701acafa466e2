"""The tier manager: what goes in comes out, references, budgets, threads, other shapes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.block import BlockShape
from speckv_pynq.config import POLICIES
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import ConfigError, DeviceError, PoolFull, ShapeError, StaleHandle
from speckv_pynq.spec import DType, Scheme
from speckv_pynq.tiers import StridedKV, TierConfig, TierManager
from tests.runtime.tiers import (
    LAYERS,
    SMALL,
    Cache,
    budgets,
    conserved,
    held,
    manager,
    through_reference,
)

pytestmark = pytest.mark.requires("libspeckv")
SHAPES = {
    "small": SMALL,
    "bf16": BlockShape(32, 3, 80, DType.BF16),
    "fp32": BlockShape(16, 2, 64, DType.FP32),
    "parts": BlockShape(64, 35, 128, DType.FP16),  # 1.1 MiB: two parts of 17 and 18 heads
}


@pytest.mark.parametrize("engines", [1, 2])
@pytest.mark.parametrize("l1", [0, 2.5, 100], ids=["no L1", "some L1", "all in L1"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", SHAPES)
def test_raw_comes_back_bit_for_bit(name: str, policy: str, l1: float, engines: int) -> None:
    shape = SHAPES[name]
    with manager(budgets(shape, l1, policy=policy), shape, engines=engines) as tiers:
        caches = [Cache.random(7, seed, shape) for seed in range(LAYERS)]
        handles = [cache.put(tiers, layer) for layer, cache in enumerate(caches)]
        for _ in range(3):
            for cache, those in zip(caches, handles, strict=True):
                assert cache.get(tiers, those).same(cache)
                conserved(tiers)
        stats = tiers.stats()
        assert stats.blocks == stats.references == 7 * LAYERS
        assert stats.hits_l1 + stats.misses == 3 * 7 * LAYERS
        assert stats.bytes_decoded == stats.misses * shape.block_bytes
        assert stats.bytes_encoded == stats.blocks * shape.block_bytes
        if l1 == 100:
            assert stats.misses == 7 * LAYERS
        for those in handles:
            tiers.release(those)
        empty = tiers.stats()
        assert (empty.blocks, empty.l1_bytes, empty.l3_bytes, empty.record_bytes) == (0, 0, 0, 0)


@pytest.mark.parametrize("scheme", [Scheme.INT8_DELTA_RLE, Scheme.INT4])
@pytest.mark.parametrize("name", ["small", "bf16", "parts"])
def test_lossy_gives_what_the_reference_gives(name: str, scheme: Scheme) -> None:
    shape = SHAPES[name]
    with manager(budgets(shape, 1), shape, scheme) as tiers:
        cache = Cache.random(3, 9, shape)
        handles = cache.put(tiers, layer=2)
        want = through_reference(cache, scheme, layer=2)
        assert not want.same(cache)
        for _ in range(
            2
        ):  # first decoded, then partly from L1: the decoded record, never the input
            assert cache.get(tiers, handles).same(want)


def test_raw_fallbacks_and_overflows_are_counted() -> None:
    with manager(scheme=Scheme.INT8_DELTA_RLE) as tiers:
        k = np.ones((1, 2, 48, 64), np.float32)
        k[0, 0, 3, 5], k[0, 1, 20, 0] = 1e6, np.inf
        offsets, rows = np.arange(3) * 16, np.zeros(3, int)
        handles = tiers.put(0, offsets, rows, offsets, StridedKV.of(k, np.ones_like(k)))
        assert (tiers.stats().overflows, tiers.stats().raw_fallbacks) == (1, 2)
        out = StridedKV.of(k.copy(), np.zeros_like(k))
        tiers.get(handles, rows, offsets, out)
        want = k.copy()
        want[k == 1e6] = np.inf
        assert np.array_equal(out.owners[0], want)


def test_workspace_of_another_dtype_and_order() -> None:
    cache = Cache.random(4, batch=2)
    with manager() as tiers:
        rows, offsets = np.array([1, 0, 1]), np.array([5, 32, 40])
        handles = tiers.put(1, [100, 7, 9], rows, offsets, cache.kv())
        k, v = np.zeros((2, 3, 70, 2, 64), np.float32).transpose(0, 1, 3, 2, 4)
        tiers.get(handles, [2, 0, 2], [54, 3, 0], StridedKV.of(k, v))
        want_k, want_v = np.zeros_like(k), np.zeros_like(v)
        for (to_row, to), (row, at) in zip(
            [(2, 54), (0, 3), (2, 0)], zip(rows, offsets, strict=True), strict=True
        ):
            want_k[to_row, :, to : to + 16] = cache.k[row, :, at : at + 16]
            want_v[to_row, :, to : to + 16] = cache.v[row, :, at : at + 16]
        assert np.array_equal(k, want_k)
        assert np.array_equal(v, want_v)


@pytest.mark.parametrize("l1", [0, 2, 50])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_handle_may_stand_in_several_places(policy: str, l1: float) -> None:
    cache = Cache.random(6)
    with manager(budgets(SMALL, l1, policy=policy)) as tiers:
        handles = cache.put(tiers)
        order = np.array([3, 0, 3, 5, 3, 1, 0, 2, 4, 4])
        for _ in range(2):
            out = Cache.random(len(order)).empty()
            tiers.get(handles[order], np.zeros(len(order), int), out.offsets, out.kv())
            for i, source in enumerate(order):
                assert all(
                    np.array_equal(a, b)
                    for a, b in zip(out.block(i), cache.block(source), strict=True)
                )
            conserved(tiers)
        first = tiers.stats()
        assert first.hits_l1 + first.misses == 2 * len(order)
        if not l1:
            assert first.bytes_decoded == 2 * 6 * SMALL.block_bytes  # each once a call


def test_fork_and_release() -> None:
    cache = Cache.random(4)
    with manager(budgets(SMALL, 2)) as tiers:
        handles = cache.put(tiers)
        tiers.retain(handles)
        tiers.retain(handles[:2])
        before = tiers.stats()
        tiers.release(handles)
        assert tiers.stats().record_bytes == before.record_bytes
        assert cache.get(tiers, handles).same(cache)
        tiers.release(handles)
        assert tiers.stats().blocks == 2
        with pytest.raises(StaleHandle):
            cache.get(tiers, handles)
        with pytest.raises(StaleHandle):
            tiers.release(handles)  # the first two stay as they were
        assert tiers.stats().references == 2
        tiers.release(handles[:2])
        for call in (tiers.retain, tiers.release):
            with pytest.raises(StaleHandle, match=f"{int(handles[0]):#x}"):
                call(handles[:1])
        again = cache.put(tiers)
        assert not set(again.tolist()) & set(handles.tolist())
        with pytest.raises(StaleHandle):
            tiers.retain(handles[:1])


def test_blocks_brought_up_early_hit_l2_once() -> None:
    cache = Cache.random(6)
    with manager(budgets(SMALL, l2=1000)) as tiers:
        handles = cache.put(tiers)
        assert tiers.prefetch(handles[:4]) == 4
        assert tiers.prefetch(handles[2:4]) == 0  # on their way
        tiers.wait_prefetched()
        assert tiers.prefetch(handles[2:4]) == 0  # there already
        conserved(tiers)
        assert tiers.stats().l2_blocks == 4
        assert cache.get(tiers, handles).same(cache)
        stats = tiers.stats()
        assert (stats.hits_l2, stats.misses, stats.l2_blocks) == (4, 2, 0)
        assert cache.get(tiers, handles).same(cache)
        assert (tiers.stats().hits_l2, tiers.stats().misses) == (4, 8)


def test_without_room_in_l2_nothing_comes_early() -> None:
    cache = Cache.random(3)
    with manager(budgets(SMALL, l2=2)) as tiers:
        assert tiers.prefetch(cache.put(tiers)) == 0


def test_pool_full_and_recovery() -> None:
    cache = Cache.random(30)
    slot, budget = SMALL.slot_bytes, 40 * SMALL.slot_bytes + 4096  # cut to whole frames
    with manager(budgets(SMALL, 4, l3=budget)) as tiers:
        first = cache.put(tiers)
        assert cache.get(tiers, first).same(cache)
        before = held(tiers)
        with pytest.raises(
            PoolFull, match=f"holds {30 * slot} of {budget} bytes; 30 blocks of layer 1"
        ):
            cache.put(tiers, layer=1)
        assert held(tiers) == before
        assert cache.get(tiers, first).same(cache)
        tiers.release(first[10:])
        second = cache.put(tiers, layer=1)[:10]
        assert cache.get(tiers, np.concatenate([first[:10], second, first[:10]])).blocks == 30
        conserved(tiers)


def test_empty_calls() -> None:
    with manager() as tiers:
        cache = Cache.random(1)
        none = tiers.put(0, [], [], [], cache.kv())
        assert len(none) == 0
        tiers.get(none, [], [], cache.kv())
        tiers.retain(none)
        tiers.release(none)
        assert tiers.prefetch(none) == 0


def test_threads_may_share_a_manager() -> None:
    caches = [Cache.random(9, seed) for seed in range(LAYERS)]
    with manager(budgets(SMALL, 5, policy="lru", l2=40)) as tiers:
        handles = [cache.put(tiers, layer) for layer, cache in enumerate(caches)]

        def work(i: int) -> bool:
            cache, layer = caches[i % LAYERS], i % LAYERS
            mine = cache.put(tiers, layer)
            tiers.prefetch(handles[layer])
            same = cache.get(tiers, mine).same(cache) and cache.get(tiers, handles[layer]).same(
                cache
            )
            tiers.release(mine)
            return same

        with ThreadPoolExecutor(3) as threads:
            assert all(threads.map(work, range(24)))
        conserved(tiers)
        assert tiers.stats().blocks == 9 * LAYERS


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        ({"rows": [1]}, ValueError, "row 1 is not within 0..0"),
        ({"rows": [-1]}, ValueError, "row -1"),
        ({"offsets": [17]}, ValueError, "offset 17 is not within 0..16"),
        ({"offsets": [0, 1]}, ValueError, "one"),
        ({"handles": [1, 2]}, ValueError, "2 handles for 1 places"),
        ({"handles": [12345]}, StaleHandle, "0x3039"),
    ],
)
def test_wrong_arguments_of_get(change: dict[str, Any], error: type, what: str) -> None:
    cache = Cache.random(2)
    with manager() as tiers:
        handles = cache.put(tiers)
        out = cache.empty()
        arguments = {"handles": handles[:1], "rows": [0], "offsets": [0], "dest": out.kv()} | change
        with pytest.raises(error, match=what):
            tiers.get(**arguments)
        assert not out.k.any()


def test_tensors_must_fit_the_shape() -> None:
    cache = Cache.random(1)
    with manager() as tiers:
        with pytest.raises(ShapeError, match="1 heads x 64"):
            tiers.put(0, [0], [0], [0], StridedKV.of(cache.k[:, :1], cache.v[:, :1]))
        with pytest.raises(ShapeError, match="KEY"):
            tiers.put(0, [0], [0], [0], StridedKV.of(cache.k, None))
        with pytest.raises(ValueError, match="layer 3"):
            tiers.put(LAYERS, [0], [0], [0], cache.kv())
        with pytest.raises(ValueError, match="2 positions"):
            tiers.put(0, [0, 1], [0], [0], cache.kv())
        handles = cache.put(tiers)
        cache.k.flags.writeable = False
        with pytest.raises(ShapeError, match="read-only"):
            tiers.get(handles, [0], [0], cache.kv())


def test_one_kind_alone() -> None:
    shape = BlockShape(16, 1, 256, DType.FP16, spec.Kind.KEY)
    latent = np.random.default_rng(2).standard_normal((1, 1, 64, 256)).astype(np.float16)
    with manager(budgets(shape), shape) as tiers:
        rows, offsets = np.zeros(4, int), np.arange(4) * 16
        handles = tiers.put(0, offsets, rows, offsets, StridedKV.of(latent, None))
        out = np.zeros_like(latent)
        tiers.get(handles, rows, offsets, StridedKV.of(out, None))
        assert out.tobytes() == latent.tobytes()
        assert tiers.stats().block_fp16_bytes == latent.nbytes


def test_close_gives_everything_back_and_ends_the_manager() -> None:
    with CsimDevice(1) as device:
        tiers = TierManager(device, SMALL, Scheme.RAW, budgets(SMALL, 4), layers=1)
        cache = Cache.random(4)
        cache.get(tiers, cache.put(tiers))
        assert device.live_buffers > 0
        tiers.close()
        tiers.close()
        assert device.live_buffers == 0
        with pytest.raises(DeviceError, match="closed"):
            tiers.stats()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (lambda: TierConfig(-1, 1, 1), "l1_bytes -1"),
        (lambda: TierConfig(0, 0, 1), "l2_bytes 0"),
        (lambda: TierConfig(0, 1, 1 << 46), "l3_bytes"),
        (lambda: TierConfig(0, 1.5, 1), "l2_bytes 1.5 is not an int"),
        (lambda: TierConfig(0, 1, 1, "fifo"), "fifo"),
        (lambda: TierConfig(0, 1, 1, l3_pool="ram"), "'ram' is not one of device, memory, numa"),
        (lambda: TierConfig(0, 1, 1, l3_pool="numa:first"), "should be numa:NODE"),
        (lambda: TierConfig(0, 1, 1, l3_pool="file"), "should be file:DIRECTORY"),
        (lambda: TierConfig(0, 1, 1, l3_pool="memory:big"), "memory or memory:thp or memory:huge"),
        (lambda: TierConfig(0, 1, 1, l3_pool=None), "pool None is not a string"),
    ],
)
def test_settings_are_checked(config: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        config()


def test_budgets_below_one_block_are_refused() -> None:
    with CsimDevice(1) as device:
        for config, what in (
            (TierConfig(0, 2 * SMALL.slot_bytes - 1, 1 << 20), "l2_bytes 16511 < 16512"),
            (TierConfig(0, 1 << 20, 4095), "l3_bytes 4095 < 4096"),
        ):
            with pytest.raises(ConfigError, match=what):
                TierManager(device, SMALL, Scheme.RAW, config, layers=1)
        assert device.live_buffers == 0
