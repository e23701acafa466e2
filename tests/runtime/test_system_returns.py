"""Policy "returns" of a system: more is found than with LRU, the same comes out, prefetches are of what returns."""

from __future__ import annotations

import functools
import heapq
from dataclasses import dataclass

import numpy as np
import pytest

from speckv_pynq.errors import ConfigError
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig

pytestmark = pytest.mark.requires("libspeckv")
GEOMETRY = Geometry(layers=1, kv_heads=2, head_dim=64)
TOKENS = 16
BLOCK_GB = 2 * TOKENS * 2 * 64 * 2 / (1 << 30)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def opened(policy: str, blocks: int, clock: Clock, l2_blocks: int = 600) -> CXLSpecKVSystem:
    """With room for so many blocks in L1; of L2, 512 are staging."""
    config = SystemConfig(
        l1_size_gb=(blocks + 0.5) * BLOCK_GB, l2_size_gb=(l2_blocks + 200) * BLOCK_GB, l3_size_gb=2**-6,
        scheme="raw", block_tokens=TOKENS, policy=policy,  # type: ignore[arg-type]
    )  # fmt: skip
    return CXLSpecKVSystem(GEOMETRY, config, clock=clock)


@functools.cache
def values(seed: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    k, v = (rng.standard_normal((blocks * TOKENS, 2, 64)).astype(np.float16) for _ in range(2))
    return k, v


def store(system: CXLSpecKVSystem, req_id: int, blocks: int) -> None:
    system.put(req_id, 0, 0, *values(req_id, blocks))


def read(system: CXLSpecKVSystem, req_id: int, blocks: int) -> None:
    k, v = system.get(req_id, 0, 0, blocks * TOKENS)
    for got, want in zip((k, v), values(req_id, blocks), strict=True):
        assert got.tobytes() == want.tobytes()


def found(policy: str) -> float:
    """Share of blocks found in L1: agents that call tools, and people who come back after minutes or never."""
    rng, clock = np.random.default_rng(0), Clock()
    due = [(float(rng.uniform(0, 60)), req_id, int(req_id % 3 == 0)) for req_id in range(60)]
    heapq.heapify(due)
    with opened(policy, 20, clock) as system:
        turns = dict.fromkeys(range(60), 0)
        while due:
            clock.now_s, req_id, agent = heapq.heappop(due)
            if not turns[req_id]:
                store(system, req_id, 4)
            read(system, req_id, 4)
            turns[req_id] += 1
            system.idle(req_id, "tool" if agent else "answer")
            if turns[req_id] < (12 if agent else 2):
                gap_s = rng.lognormal(np.log(3 if agent else 200), 0.5)
                heapq.heappush(due, (clock.now_s + float(gap_s), req_id, agent))
        stats = system.stats().tiers
        return stats.hits_l1 / (stats.hits_l1 + stats.misses)


def test_more_is_found_than_with_lru() -> None:
    returns, lru, dense = found("returns"), found("lru"), found("dense")
    assert returns > lru + 0.1
    assert returns > dense


def test_what_returns_soon_is_brought_up_and_found_in_l2() -> None:
    clock = Clock()
    with opened("returns", 0, clock) as system:
        for req_id, kind in ((1, "tool"), (2, "answer")):
            store(system, req_id, 3)
            for _ in range(30):
                read(system, req_id, 3)
                system.idle(req_id, kind)
                clock.now_s += 2.0 if kind == "tool" else 500.0
            read(system, req_id, 3)
            system.idle(req_id, kind)
        read(system, 1, 3)
        system.idle(1, "tool")
        before = system.stats().tiers.hits_l2
        assert system.prefetch_returns() == 3  # of the one whose tool answers in a moment
        assert system.prefetch_returns() == 0
        system.tiers.wait_prefetched()
        clock.now_s += 2.0
        read(system, 1, 3)
        assert system.stats().tiers.hits_l2 == before + 3
        assert system.returns is not None
        assert system.returns.ahead.used_bytes == 3 * system.shape.block_bytes
        assert system.returns.ahead.wasted_bytes == 0


def test_forks_share_and_what_is_freed_is_forgotten() -> None:
    clock = Clock()
    with opened("returns", 8, clock) as system:
        store(system, 1, 2)
        system.fork(1, 2)
        k, v = values(7, 1)
        system.put(2, 0, 2 * TOKENS, k, v)
        system.put(2, 0, 2 * TOKENS, k, v)  # again: the block before is nobody's
        system.idle(1)
        assert system.returns is not None
        worth = system.returns.predictor.worth([1], 0.0)
        assert worth[0] == np.inf  # the other one still reads them
        system.idle(2)
        clock.now_s += 5.0
        read(system, 1, 2)
        system.free(1)
        assert np.array_equal(system.get(2, 0, 0, 3 * TOKENS)[0][-TOKENS:], k)
        system.free(2)
        assert len(system.returns.predictor) == 0
        assert system.returns.policy.nbytes == 0
        assert system.prefetch_returns() == 0
        assert system.stats().tiers.blocks == 0
        store(system, 1, 2)  # a number may come back
        read(system, 1, 2)


def test_with_other_policies_hints_do_nothing() -> None:
    with opened("lru", 4, Clock()) as system:
        store(system, 1, 1)
        system.idle(1)
        assert system.prefetch_returns() == 0
        assert system.returns is None
    with pytest.raises(ConfigError, match="returns"):
        SystemConfig(policy="soon")  # type: ignore[arg-type]


def test_idle_of_what_is_not_there_is_harmless() -> None:
    with opened("returns", 4, Clock()) as system:
        system.idle(77)
        store(system, 1, 1)
        system.idle(1)
        system.idle(1)
        read(system, 1, 1)
