"""L3 in any pool: the same blocks come back, budgets hold, and closing gives everything back."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import ConfigError, PoolError, PoolFull
from speckv_pynq.pool import numa
from speckv_pynq.spec import Scheme
from speckv_pynq.tiers import TierManager, manager
from tests.runtime.test_tiers_faults import FaultyDevice
from tests.runtime.tiers import LAYERS, SMALL, Cache, budgets, conserved

pytestmark = pytest.mark.requires("libspeckv")

PAGE = os.sysconf("SC_PAGE_SIZE")
POOLS = ["device", "fpga:host", "memory", "memory:thp", "numa:0"]
POOLS += [f"file:{tempfile.gettempdir()}"]


@contextmanager
def tiers_in(pool: str, l3: int = 1 << 24, wrap: Any = lambda device: device) -> Iterator[Any]:
    with CsimDevice(2) as device:
        config = replace(budgets(SMALL, 3, l3), l3_pool=pool)
        try:
            tiers = TierManager(wrap(device), SMALL, Scheme.INT4, config, layers=LAYERS)
        except (PoolError, ConfigError) as error:
            pytest.skip(f"this machine refuses it: {error}")
        with tiers:
            yield tiers
        assert device.live_buffers == 0


@pytest.mark.parametrize("pool", POOLS)
def test_blocks_come_back_from_any_pool(pool: str) -> None:
    cache = Cache.random(20)
    with tiers_in("device") as tiers:
        expected = cache.get(tiers, cache.put(tiers))
    with tiers_in(pool) as tiers:
        for layer in range(LAYERS):
            handles = cache.put(tiers, layer)
            assert cache.get(tiers, handles).same(expected)
            conserved(tiers)
            tiers.release(handles[::2])
            assert cache.get(tiers, np.repeat(handles[1::2], 2)).k.any()
            conserved(tiers)


@pytest.mark.parametrize("pool", POOLS)
def test_a_full_pool_is_a_typed_error_and_keeps_what_it_has(pool: str) -> None:
    few, many = Cache.random(3), Cache.random(40)
    with tiers_in(pool, l3=16 * PAGE) as tiers:
        handles = few.put(tiers)
        before = few.get(tiers, handles)
        with pytest.raises(PoolFull, match="L3 holds"):
            many.put(tiers)
        assert few.get(tiers, handles).same(before)
        conserved(tiers)


@pytest.mark.parametrize("pool", ["memory", "numa:0"])
def test_frames_of_released_blocks_go_back_to_the_system(
    pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, real = [], manager.open_pool
    monkeypatch.setattr(
        manager, "open_pool", lambda *call: opened.append(real(*call)) or opened[-1]
    )
    cache = Cache.random(40)
    with tiers_in(pool) as tiers:
        array = opened[-1].array
        handles = cache.put(tiers)
        try:
            assert sum(numa.placement(array).values()) * PAGE == tiers.stats().l3_bytes > 0
        except PoolError as error:
            pytest.skip(f"the system does not tell: {error}")
        tiers.release(handles)
        assert numa.placement(array) == {}
        assert tiers.stats().l3_bytes == 0


def test_a_pool_that_cannot_be_had_leaves_nothing_behind(tmp_path: Path) -> None:
    class Board(FaultyDevice):
        """A device with memory of its own: what adopts host memory is missing."""

        def __getattr__(self, name: str) -> Any:
            if name == "adopt":
                raise AttributeError(name)
            return super().__getattr__(name)

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with CsimDevice(1) as device:
        for wrapped, pool, error, words in (
            (Board(device), "memory", ConfigError, "do not reach host memory"),
            (Board(device), f"file:{tmp_path}", ConfigError, "do not reach host memory"),
            (device, "numa:4000", ConfigError, "nodes with memory here"),
            (device, "dax:/dev/dax77.0", ConfigError, "no DAX device"),
            (device, f"file:{tmp_path}/no", ConfigError, "no such directory"),
            (device, "fpga:hbm9", ConfigError, "device csim has host"),
            (device, "memory:huge", (PoolError, ConfigError), "huge"),
        ):
            l3 = 4096 if pool == "memory:huge" else 1 << 20
            config = replace(budgets(SMALL, 3, l3), l3_pool=pool)
            with pytest.raises(error, match=words):
                TierManager(wrapped, SMALL, Scheme.RAW, config, layers=1)
            assert device.live_buffers == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert list(tmp_path.iterdir()) == []
