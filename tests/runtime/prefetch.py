"""A manager whose prefetches run on a gated device, and reads that are compared with what was put."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from speckv_pynq.tiers import TierManager, prefetching
from speckv_pynq.tiers.staging import ROUND_BYTES
from tests.runtime.gated_device import GatedDevice
from tests.runtime.tiers import SMALL, Cache, budgets, manager

STAGING = 2 * (ROUND_BYTES // SMALL.slot_bytes)  # blocks of L2 that it takes
CACHE = Cache.random(70)
COMMAND = prefetching.COMMAND_DESCRIPTORS


def drivers() -> int:
    return sum(thread.name.startswith("speckv-driver") for thread in threading.enumerate())


@contextmanager
def gated(
    l1: float = 0, l2: int = 100, policy: str = "dense"
) -> Iterator[tuple[TierManager, GatedDevice]]:
    """A manager whose L2 takes l2 blocks; checks that no thread of it stays."""
    before = drivers()
    with manager(budgets(SMALL, l1, l2=STAGING + l2, policy=policy), wrap=GatedDevice) as tiers:
        device = tiers.codec.device
        assert isinstance(device, GatedDevice)
        try:
            yield tiers, device
        finally:
            device.open()
    assert drivers() == before


def read(tiers: TierManager, handles: np.ndarray, blocks: np.ndarray) -> bool:
    """Whether these handles give those blocks of CACHE."""
    out = Cache.random(len(handles)).empty()
    tiers.get(handles, np.zeros(len(handles), int), out.offsets[: len(handles)], out.kv())
    return all(
        np.array_equal(a, b)
        for i, block in enumerate(blocks)
        for a, b in zip(out.block(i), CACHE.block(int(block)), strict=True)
    )


def some(first: int, end: int) -> np.ndarray:
    return np.arange(first, end)
