"""Failures: whatever goes wrong, whenever, leaves the tiers as they were and names the block."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest

from speckv_pynq.bench.faulty_device import FaultyDevice
from speckv_pynq.config import POLICIES
from speckv_pynq.errors import DeviceError, DeviceTimeout, PoolFull, RecordError
from speckv_pynq.native import Tier
from speckv_pynq.spec import Scheme
from speckv_pynq.tiers import TierManager
from tests.runtime.tiers import LAYERS, SMALL, Cache, budgets, conserved, held, manager

pytestmark = pytest.mark.requires("libspeckv")


def faulty(tiers: TierManager) -> FaultyDevice:
    device = tiers.codec.device
    assert isinstance(device, FaultyDevice)
    return device


@pytest.mark.parametrize("fault", ["start", "wait", "status"])
def test_a_put_that_fails_keeps_nothing(fault: str) -> None:
    cache = Cache.random(9)
    with manager(budgets(SMALL, 3), wrap=FaultyDevice) as tiers:
        kept = cache.put(tiers)
        cache.get(tiers, kept)
        before = held(tiers)
        for countdown in range(5):  # five rounds of two blocks
            faulty(tiers).arm(fault, countdown)
            with pytest.raises((DeviceError, RecordError)):
                cache.put(tiers, 1)
            assert held(tiers) == before
        assert cache.get(tiers, kept).same(cache)
        assert cache.get(tiers, cache.put(tiers, 1)).same(cache)


def test_a_pool_that_fills_at_any_block_keeps_nothing() -> None:
    cache = Cache.random(8)
    for room in range(8):
        with manager(budgets(SMALL, 2, l3=room * SMALL.slot_bytes + 4096)) as tiers:
            with pytest.raises(PoolFull, match="L3 holds 0 of"):
                cache.put(tiers)
            stats = tiers.stats()
            assert (stats.blocks, stats.references, stats.record_bytes, stats.l3_bytes) == (0,) * 4
            if room:
                part = slice(0, room)
                at = cache.offsets[part]
                assert len(tiers.put(0, at, cache.rows[part], at, cache.kv())) == room


@pytest.mark.parametrize("fault", ["start", "wait", "status"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("slots", [0, 5, 20])
def test_a_get_that_fails_leaves_no_unsound_block(fault: str, policy: str, slots: int) -> None:
    cache = Cache.random(9)
    for countdown in range(5):
        with manager(budgets(SMALL, slots, policy=policy), wrap=FaultyDevice) as tiers:
            handles = cache.put(tiers)
            faulty(tiers).arm(fault, countdown)
            with pytest.raises((DeviceError, RecordError)):
                cache.get(tiers, handles)
            conserved(tiers)
            for _ in range(2):
                assert cache.get(tiers, handles).same(cache)
                conserved(tiers)


@pytest.mark.parametrize("slots", [0, 20])
def test_nothing_changes_hands_while_a_late_run_may_write(slots: int) -> None:
    cache = Cache.random(9)
    with manager(budgets(SMALL, slots), wrap=FaultyDevice) as tiers:
        handles = cache.put(tiers)
        device = faulty(tiers)
        device.timeouts = 5  # of get, then twice more of the two runs that were under way
        with pytest.raises(DeviceTimeout):
            cache.get(tiers, handles)
        for call in (lambda: cache.put(tiers), lambda: tiers.release(handles)):
            with pytest.raises(DeviceTimeout):
                call()
        assert tiers.stats().blocks == 9
        assert cache.get(tiers, handles).same(cache)
        assert device.timeouts == 0


def damage(tiers: TierManager, handle: int, at: int = 200) -> None:
    tiers.records(handle)[0][at] ^= 0x40


@pytest.mark.parametrize("scheme", [Scheme.RAW, Scheme.INT8_DELTA_RLE, Scheme.INT4])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("slots", [0, 4, 20])
def test_a_damaged_record_is_named_and_never_written(
    scheme: Scheme, policy: str, slots: int
) -> None:
    cache = Cache.random(7)
    with manager(budgets(SMALL, slots, policy=policy), scheme=scheme) as tiers:
        handles = cache.put(tiers, layer=2)
        want = Cache.random(7).get(tiers, handles)
        tiers._core.evict(Tier.L1, handles)
        for bad in (0, 3, 6):
            damage(tiers, handles[bad])
            out = cache.empty()
            first = bad * SMALL.tokens
            with pytest.raises(
                RecordError, match=f"layer 2, positions {first}..{first + 15}.*bad_crc"
            ):
                tiers.get(handles, cache.rows, cache.offsets, out.kv())
            for i in range(7):
                k, v = out.block(i)
                written = np.array_equal(k, want.block(i)[0]) and np.array_equal(
                    v, want.block(i)[1]
                )
                assert written or not (k.any() or v.any())
                assert not (written and i == bad)
            conserved(tiers)
            assert not np.isin(handles[bad], tiers._core.resident(Tier.L1))
            damage(tiers, handles[bad])  # back again
            assert cache.get(tiers, handles).same(want)
            tiers._core.evict(Tier.L1, handles)


def test_a_record_of_another_block_is_refused() -> None:
    cache = Cache.random(2)
    with manager() as tiers:
        handles = cache.put(tiers)
        (first,), (second,) = (tiers.records(handle) for handle in handles)
        second[:] = first
        with pytest.raises(RecordError, match=r"positions 16\.\.31.*identity_mismatch"):
            cache.get(tiers, handles)


def test_a_damaged_record_is_not_brought_up_early() -> None:
    cache = Cache.random(5)
    with manager(budgets(SMALL, l2=1000)) as tiers:
        handles = cache.put(tiers)
        damage(tiers, handles[2])
        assert tiers.prefetch(handles) == 5
        tiers.wait_prefetched()
        assert (tiers.stats().l2_blocks, tiers.stats().prefetch_failed) == (4, 1)
        with pytest.raises(RecordError, match=r"positions 32\.\.47"):
            cache.get(tiers, handles)


def test_released_memory_is_given_back() -> None:
    """L1 and L3 read as zeros where nothing lies: the pages are gone."""
    with manager(budgets(SMALL, 100)) as tiers:
        handles = [Cache.random(6, layer).put(tiers, layer) for layer in range(LAYERS)]
        for those in handles:
            Cache.random(6).get(tiers, those)
        tiers.release(handles[1])
        for those in (handles[0], handles[2]):
            Cache.random(6).get(tiers, those)
        tiers.release(np.concatenate([handles[0], handles[2]]))
        for tier in (Tier.L1, Tier.L3):
            memory = tiers._memories[tier]
            assert memory is not None
            assert not memory.array[: 20 * SMALL.slot_bytes].any()
        assert tiers.stats().metadata_bytes < 1500


def resident_bytes(memory: Any) -> int:
    """What the system counts as resident in a buffer."""
    pages = np.zeros(-(-memory.nbytes // mmap.PAGESIZE), np.uint8)
    start, vector = memory.array.ctypes.data, ctypes.c_void_p(pages.ctypes.data)
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    assert not mincore(ctypes.c_void_p(start), ctypes.c_size_t(memory.nbytes), vector)
    return int(np.count_nonzero(pages & 1)) * mmap.PAGESIZE


def test_held_bytes_are_what_the_system_counts() -> None:
    """Random puts, gets and releases: frames of L1 and L3 are exactly the resident pages."""
    rng = np.random.default_rng(4)
    with manager(budgets(SMALL, 20, policy="lru"), scheme=Scheme.INT4) as tiers:
        live: list[np.ndarray] = []
        for step in range(60):
            cache = Cache.random(int(rng.integers(1, 9)), step)
            if live and rng.random() < 0.45:
                tiers.release(live.pop(int(rng.integers(len(live)))))
            else:
                live.append(cache.put(tiers, step % LAYERS))
                cache.get(tiers, live[-1])
            stats = tiers.stats()
            assert resident_bytes(tiers._memories[Tier.L1]) == stats.l1_bytes
            assert resident_bytes(tiers._memories[Tier.L3]) == stats.l3_bytes
