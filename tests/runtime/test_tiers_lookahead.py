"""Dense prefetch in the tiers: blocks are there when their layer asks, and whatever goes wrong, they read right."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from speckv_pynq.errors import ConfigError, StaleHandle
from speckv_pynq.spec import Scheme
from speckv_pynq.tiers import TierConfig, TierManager, prefetching
from tests.runtime.gated_device import FAULTS, GatedDevice
from tests.runtime.prefetch import STAGING
from tests.runtime.tiers import SMALL, Cache, budgets, conserved, manager

pytestmark = pytest.mark.requires("libspeckv")
LAYERS, BLOCKS = 3, 16
CACHES = [Cache.random(BLOCKS, seed=layer) for layer in range(LAYERS)]


def config(l1: int = 12, l2: int = 30, **fields: object) -> TierConfig:
    base = budgets(SMALL, l1, l2=STAGING + l2)
    return TierConfig(base.l1_bytes, base.l2_bytes, base.l3_bytes, prefetch="dense", **fields)


class Decoding:
    """One sequence that is read layer by layer, step by step, and checked."""

    def __init__(self, tiers: TierManager, name: int = 0) -> None:
        self.tiers, self.name = tiers, name
        self.handles = [cache.put(tiers, layer) for layer, cache in enumerate(CACHES)]
        self.there: list[int] = []  # blocks there when their layer asked

    def layer(self, layer: int) -> None:
        handles, cache = self.handles[layer], CACHES[layer]
        count = len(handles)
        self.there.append(int(self.tiers.resident(handles).sum()))
        out = cache.empty()
        self.tiers.get(
            handles, np.zeros(count), cache.offsets[:count], out.kv(), ahead=(self.name, layer)
        )
        tokens = count * SMALL.tokens
        assert out.k[:, :, :tokens].tobytes() == cache.k[:, :, :tokens].tobytes()
        assert out.v[:, :, :tokens].tobytes() == cache.v[:, :, :tokens].tobytes()

    def step(self, *, wait: bool = True) -> list[int]:
        self.there = []
        for layer in range(LAYERS):
            if wait:
                self.tiers.wait_prefetched()
            self.layer(layer)
        return self.there


@pytest.mark.parametrize("scheme", [Scheme.RAW, Scheme.LOSSLESS])
def test_once_warm_every_block_is_there_and_comes_once_a_step(scheme: Scheme) -> None:
    with manager(config(), scheme=scheme) as tiers:
        decoding = Decoding(tiers)
        for _ in range(3):
            decoding.step()
        tiers.wait_prefetched()
        before = tiers.stats()
        for _ in range(4):
            assert decoding.step() == [BLOCKS] * LAYERS
            conserved(tiers)
        tiers.wait_prefetched()
        after = tiers.stats()
        assert after.misses == before.misses
        streamed = LAYERS * BLOCKS - 12
        assert after.hits_l2 - before.hits_l2 == 4 * streamed
        assert after.hits_l1 - before.hits_l1 == 4 * 12
        came = after.prefetched - before.prefetched
        assert came == 4 * streamed  # L2 was full before and is again
        assert after.l1_blocks == 12
        assert after.prefetch_failed == 0


def test_l1_holds_the_same_share_of_each_layer() -> None:
    with manager(config()) as tiers:
        decoding = Decoding(tiers)
        for _ in range(3):
            decoding.step()
        tiers.prefetch_depth = 0
        decoding.step()
        assert decoding.step() == [4, 4, 4]


@pytest.mark.parametrize("depth", [0, 1, 7, None])
def test_depth_can_be_changed_between_any_two_gets(depth: int | None) -> None:
    with manager(config()) as tiers:
        decoding = Decoding(tiers)
        for _ in range(3):
            decoding.step()
        tiers.prefetch_depth = depth
        decoding.step()
        there = decoding.step()
        assert there == [min(BLOCKS, 4 + (12 if depth is None else depth))] * LAYERS
        tiers.wait_prefetched()
        assert tiers.stats().l2_blocks <= (36 if depth is None else depth)
        tiers.prefetch_depth = None
        decoding.step()
        assert decoding.step() == [BLOCKS] * LAYERS


def test_a_sequence_that_is_cropped_or_ends_takes_nothing_with_it() -> None:
    with manager(config(l1=0)) as tiers:
        one, two = Decoding(tiers, 1), Decoding(tiers, 2)
        for _ in range(3):
            one.step()
            two.step()
        for layer in range(LAYERS):  # cropped without a word: the planner finds out
            gone = one.handles[layer][9:]
            one.handles[layer] = one.handles[layer][:9]
            tiers.release(gone)
        for _ in range(2):
            one.step(wait=False)
        for layer in range(LAYERS):  # ends, said so
            tiers.expect((2, layer), [])
            tiers.release(two.handles[layer])
        one.step()
        assert one.step() == [9] * LAYERS
        tiers.wait_prefetched()
        conserved(tiers)
        stats = tiers.stats()
        assert stats.blocks == 9 * LAYERS
        assert stats.l2_blocks <= 30


def test_a_new_block_is_known_before_it_is_asked_for() -> None:
    with manager(config()) as tiers:
        decoding = Decoding(tiers)
        whole = decoding.handles
        decoding.handles = [handles[:12] for handles in whole]
        for _ in range(4):
            decoding.step()
        decoding.handles = whole
        for layer in range(LAYERS):
            tiers.expect((0, layer), whole[layer])
        decoding.step()
        assert decoding.step() == [BLOCKS] * LAYERS
        with pytest.raises(StaleHandle):
            tiers.expect((0, 0), [12345])
        assert decoding.step() == [BLOCKS] * LAYERS


def test_a_byte_budget_slows_it_down_and_nothing_else() -> None:
    with manager(config(prefetch_bytes_per_s=1e-3)) as tiers:
        decoding = Decoding(tiers)
        for _ in range(4):
            decoding.step()
        stats = tiers.stats()
        assert stats.prefetched <= 1  # the one that overdraws
        assert stats.misses >= 3 * (LAYERS * BLOCKS - 12)


def test_no_hit_waits_for_what_it_set_going(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetching, "PATIENCE_S", 60.0)  # the test would not end in time
    with manager(config(), wrap=GatedDevice) as tiers:
        device = tiers.codec.device
        assert isinstance(device, GatedDevice)
        decoding = Decoding(tiers)
        for _ in range(4):
            decoding.step()
        tiers.wait_prefetched()
        device.hold()
        try:
            assert decoding.step(wait=False) == [BLOCKS] * LAYERS
            assert tiers.poll() == LAYERS * BLOCKS - 12
        finally:
            device.open()
        assert decoding.step() == [BLOCKS] * LAYERS


def test_sequences_on_threads_while_the_depth_changes() -> None:
    with manager(config()) as tiers, ThreadPoolExecutor(3) as threads:

        def decode(name: int) -> None:
            decoding = Decoding(tiers, name)
            for _ in range(12):
                decoding.step(wait=False)
            for layer, handles in enumerate(decoding.handles):
                tiers.expect((name, layer), [])
                tiers.release(handles)

        running = [threads.submit(decode, name) for name in range(2)]
        depths = itertools.cycle((0, 5, None))
        while not all(one.done() for one in running):
            tiers.prefetch_depth = next(depths)
            time.sleep(0.001)
        for one in running:
            one.result()
        tiers.wait_prefetched()
        conserved(tiers)
        stats = tiers.stats()
        assert (stats.blocks, stats.l1_blocks, stats.l2_blocks, stats.prefetching) == (0, 0, 0, 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_device_that_fails_while_prefetching_loses_nothing(fault: str) -> None:
    with manager(config(), wrap=GatedDevice) as tiers:
        device = tiers.codec.device
        assert isinstance(device, GatedDevice)
        decoding = Decoding(tiers)
        decoding.step()
        for _ in range(3):
            device.fail(fault)
            decoding.step()  # reads right, by demand where it must
            device.open()
        assert tiers.stats().prefetch_failed > 0
        for _ in range(3):
            decoding.step()
        conserved(tiers)
        assert decoding.step() == [BLOCKS] * LAYERS


def test_a_driver_that_cannot_take_commands_costs_no_get(monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(config()) as tiers:
        decoding = Decoding(tiers)
        monkeypatch.setattr(
            type(tiers.codec.device), "allocate", _no_memory, raising=True
        )  # of tables of commands
        for _ in range(3):
            decoding.step()
        stats = tiers.stats()
        assert stats.prefetched == 0
        assert stats.prefetch_failed > 0
        monkeypatch.undo()
        decoding.step()
        assert decoding.step() == [BLOCKS] * LAYERS


def _no_memory(*_: object, **__: object) -> None:
    raise MemoryError


def test_settings_out_of_range() -> None:
    for fields, text in (
        ({"prefetch": "sparse"}, "prefetch 'sparse' is not one of none, dense"),
        ({"prefetch": "dense", "policy": "lru"}, "goes with policy 'dense'"),
        ({"prefetch_depth": -1}, "prefetch_depth -1"),
        ({"prefetch_bytes_per_s": 0.0}, "prefetch_bytes_per_s 0.0"),
    ):
        with pytest.raises(ConfigError, match=text):
            TierConfig(0, 1, 1, **fields)
    with manager(config()) as tiers:
        with pytest.raises(ConfigError, match="depth -2"):
            tiers.prefetch_depth = -2
        assert tiers.prefetch_depth is None
