"""Prefetches among all other calls, in any order and from several threads, with faults: what a dict would do."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.errors import DeviceTimeout, StaleHandle
from speckv_pynq.tiers import TierManager, prefetching
from tests.runtime.gated_device import FAULTS, GatedDevice
from tests.runtime.prefetch import CACHE, STAGING, gated, read, some
from tests.runtime.tiers import SMALL, conserved

pytestmark = pytest.mark.requires("libspeckv")


class Oracle:
    """A manager beside a dict: handle -> (block of CACHE, references)."""

    def __init__(self, tiers: TierManager, device: GatedDevice) -> None:
        self.tiers, self.device = tiers, device
        self.held: dict[int, list[int]] = {}
        self.accepted = self.buffers = 0

    def pick(self, at: int, count: int) -> np.ndarray:
        """Up to `count` live handles from a place on."""
        live = list(self.held)
        return np.array((live[at % len(live) :] + live)[:count] if live else [], np.uint64)

    def put(self, at: int, count: int) -> None:
        blocks = (at + np.arange(count)) % CACHE.blocks
        offsets = blocks * SMALL.tokens
        handles = self.tiers.put(0, offsets, np.zeros_like(blocks), offsets, CACHE.kv())
        self.held |= {h: [b, 1] for h, b in zip(handles.tolist(), blocks.tolist(), strict=True)}

    def get(self, at: int, count: int) -> None:
        handles = np.unique(self.pick(at, count))
        if len(handles):
            assert read(self.tiers, handles, np.array([self.held[h][0] for h in handles.tolist()]))

    def prefetch(self, at: int, count: int) -> None:
        self.accepted += self.tiers.prefetch(self.pick(at, count))

    def retain(self, at: int, count: int) -> None:
        handles = np.unique(self.pick(at, count))
        self.tiers.retain(handles)
        for handle in handles.tolist():
            self.held[handle][1] += 1

    def release(self, at: int, count: int) -> None:
        handles = np.unique(self.pick(at, count))
        self.tiers.release(handles)
        for handle in handles.tolist():
            self.held[handle][1] -= 1
            if not self.held[handle][1]:
                del self.held[handle]
                with pytest.raises(StaleHandle):
                    self.tiers.release(np.array([handle], np.uint64))

    def wait(self, *_: int) -> None:
        with suppress(DeviceTimeout):  # held
            self.tiers.wait_prefetched(0.003)

    def hold(self, runs: int, *_: int) -> None:
        self.device.hold(runs % 3)

    def open(self, *_: int) -> None:
        self.device.open()

    def fail(self, at: int, count: int) -> None:
        self.device.fail(*(FAULTS[(at + i) % len(FAULTS)] for i in range(1 + count % 2)))

    def check(self) -> None:
        conserved(self.tiers)
        s = self.tiers.stats()
        assert (s.blocks, s.references) == (len(self.held), sum(n for _, n in self.held.values()))
        assert (
            s.prefetching + s.prefetched + s.prefetch_failed + s.prefetch_cancelled == self.accepted
        )

    def end(self) -> None:
        """Everything comes to rest, reads right and gives its memory back."""
        self.device.open()
        self.tiers.wait_prefetched()
        self.device.open()  # those that were late by then
        assert self.tiers.poll() == 0
        self.get(0, len(self.held))
        references = [self.held[h][1] for h in self.held]
        self.tiers.release(np.repeat(np.array(list(self.held), np.uint64), references))
        stats = self.tiers.stats()
        assert (stats.blocks, stats.l1_bytes, stats.l3_bytes) == (0, 0, 0)
        assert stats.l2_bytes == STAGING * SMALL.slot_bytes
        assert stats.metadata_bytes < 1500
        assert self.device.live_buffers == self.buffers


CALLS = [
    "put", "get", "get", "get", "prefetch", "prefetch", "prefetch", "retain", "release", "wait", "hold", "open", "fail",
]  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(CALLS), st.integers(0, 69), st.integers(0, 40)),
    min_size=20,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(STEPS, st.sampled_from([5, 70]), st.sampled_from(["dense", "lru"]), st.integers(0, 4))
def test_it_does_what_a_dict_does(
    steps: list[tuple[str, int, int]], l2: int, policy: str, ending: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, gated(6, l2, policy) as (tiers, device):
        patch.setattr(prefetching, "PATIENCE_S", 0.002)
        oracle = Oracle(tiers, device)
        oracle.put(0, 40)
        oracle.buffers = device.live_buffers
        for call, at, count in steps:
            getattr(oracle, call)(at, count)
            oracle.check()
        if not ending:  # in the middle of it all
            threading.Timer(0.001, device.open).start()
            tiers.close()
        else:
            oracle.end()


def test_threads_prefetch_read_and_release() -> None:
    with gated(6, 12, "lru") as (tiers, device):
        shared = CACHE.put(tiers)
        ended = time.monotonic() + 30

        def work(seed: int) -> bool:
            rng, fine = np.random.default_rng(seed), True
            mine = CACHE.put(tiers, layer=1)
            for _ in range(25):
                first = int(rng.integers(0, 60))
                part = slice(first, first + int(rng.integers(1, 10)))
                device.fail(*rng.choice(["", *FAULTS[:3]], 2))
                handles = (shared, mine)[int(rng.integers(2))]
                tiers.prefetch(handles[part])
                fine &= read(tiers, handles[part], some(0, 70)[part])
            tiers.release(mine)
            return fine and time.monotonic() < ended

        with ThreadPoolExecutor(3) as threads:
            assert all(threads.map(work, range(6)))
        tiers.wait_prefetched()
        conserved(tiers)
        stats = tiers.stats()
        assert (stats.blocks, stats.prefetching) == (70, 0)
        tiers.release(shared)
        assert tiers.stats().l2_bytes == STAGING * SMALL.slot_bytes
