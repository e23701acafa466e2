"""A simulated day of requests through the core's pool: does it break up so that free bytes cannot be used?"""

from __future__ import annotations

import heapq
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError, PoolFull
from speckv_pynq.native import U32, U64, Core, Tier
from speckv_pynq.native.layout import CoreConfig

HOURS: Final = 24
HOUR_S: Final = 3600.0
MEAN_LINES: Final = 96  # a record of 24 KiB of FP16 at a ratio of four
RAW_LINES: Final = 24 * 1024 // spec.LINE_BYTES + 1
RAW_SHARE: Final = 0.03
CHUNKS: Final = 4  # a request's blocks: half of them at once, the rest one chunk after another
LAST_HOURS: Final = 6  # compared with the hours before them, to see whether something builds up


@dataclass(frozen=True)
class Settings:
    """requests: in a day, Poisson arrivals. occupancy: mean share of the pool in use; the load swings by `swing`
    around it over the day, so that the pool is full for hours where occupancy * (1 + swing) passes 1.
    """

    requests: int = 100_000
    pool_bytes: int = 256 << 20
    occupancy: float = 0.9
    swing: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.requests < 1:
            raise ConfigError(f"requests {self.requests} < 1")
        if not 0 < self.occupancy <= 1:
            raise ConfigError(f"occupancy {self.occupancy} is not within 0..1")
        if self.pool_bytes < 1 << 22:
            raise ConfigError(f"pool_bytes {self.pool_bytes} < {1 << 22}")


@dataclass(frozen=True)
class Hour:
    """The pool at the end of a simulated hour, and what failed within it.

    largest_free_bytes: of one run, that above the highest record included. slack_share: of held frames.
    full: puts refused for want of free bytes; broken_up: puts refused although their bytes were free.
    """

    hour: int
    occupancy: float
    free_runs: int
    free_bytes: int
    largest_free_bytes: int
    slack_share: float
    puts: int
    full: int
    broken_up: int


@dataclass(frozen=True)
class Day:
    """All hours. stranded_share: the largest share of the pool that was free when a put was refused."""

    hours: tuple[Hour, ...]
    requests: int
    records: int
    evicted_requests: int
    stranded_share: float
    end_held_bytes: int  # after all were released
    end_free_runs: int

    @property
    def full(self) -> int:
        return sum(hour.full for hour in self.hours)

    @property
    def broken_up(self) -> int:
        return sum(hour.broken_up for hour in self.hours)

    @property
    def growth_percent(self) -> float:
        """Free runs in the last hours over those of the same hours of load before them."""
        late = [hour.free_runs for hour in self.hours[-LAST_HOURS:]]
        before = [hour.free_runs for hour in self.hours[: HOURS // 2][-LAST_HOURS:]]
        return 100 * (float(np.mean(late)) / float(np.mean(before)) - 1)


class _Pool:
    """A core with L3 alone, over memory of its own."""

    def __init__(self, nbytes: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.memory = np.frombuffer(mmap.mmap(-1, nbytes, flags=flags), np.uint8)
        self.lines = nbytes // spec.LINE_BYTES
        config = CoreConfig()
        config.base[Tier.L3], config.bytes[Tier.L3] = self.memory.ctypes.data, nbytes
        config.give_back[Tier.L3] = 1
        config.frame_bytes = max(spec.FRAME_BYTES, mmap.PAGESIZE)
        config.block_bytes, config.parts, config.layers = RAW_LINES * spec.LINE_BYTES, 1, 1
        self.core = Core(config)
        self._staging = np.zeros(RAW_LINES * spec.LINE_BYTES, np.uint8)

    def put(self, lines: U32) -> U64:
        """Handles of records of these sizes, (n,): all of them or PoolFull."""
        at = np.zeros(len(lines), np.uint64)
        sizes = lines * np.uint32(spec.LINE_BYTES)
        handles, _, _ = self.core.put(0, at.astype(np.uint32), self._staging, at, sizes)
        return handles

    def free_lines(self) -> int:
        return self.lines - int(self.core.stats().used_bytes[Tier.L3]) // spec.LINE_BYTES

    def largest_free_run(self, handles: U64) -> int:
        """Bytes; handles: of all blocks."""
        if not len(handles):
            return self.lines * spec.LINE_BYTES
        plan = self.core.plan_get(handles, counted=False)
        order = np.argsort(plan.record_offsets[:, 0])
        first = plan.record_offsets[order, 0].astype(np.int64)
        end = first + plan.record_bytes[order, 0]
        if (first[1:] < end[:-1]).any():
            raise AssertionError("two records overlap")
        gaps = np.append(first, self.lines * spec.LINE_BYTES) - np.append(0, end)
        return int(gaps.max())


@dataclass
class _Request:
    chunks: list[U32]  # lines of records still to come, the next one last
    step_s: float
    handles: list[U64]


class _Simulation:
    """Events in the order of their time: a chunk of a request, or its end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rng = np.random.default_rng(settings.seed)
        self.pool = _Pool(settings.pool_bytes)
        self.live: dict[int, _Request] = {}  # oldest first
        self.events: list[tuple[float, int]] = []
        self.records = self.evicted = self.puts = self.full = self.broken_up = 0
        self.stranded_share = 0.0
        self.per_s = settings.requests / (HOURS * HOUR_S)
        mean_blocks = math.exp(math.log(12) + 0.8**2 / 2)
        mean_lines = MEAN_LINES * (1 - RAW_SHARE) + RAW_LINES * RAW_SHARE
        # Three quarters of a request's bytes are there in the mean of its life: half at once, then chunk by chunk.
        weight = 0.5 + 0.5 * (CHUNKS + 1) / 2 / (CHUNKS + 1)
        self.mean_life_s = (
            settings.occupancy * self.pool.lines / (self.per_s * mean_blocks * mean_lines * weight)
        )

    def arrive(self, now_s: float, number: int) -> None:
        rng = self.rng
        blocks = int(np.clip(rng.lognormal(math.log(12), 0.8), 1, 400))
        lines = np.clip(rng.lognormal(math.log(MEAN_LINES) - 0.03, 0.25, blocks), 4, RAW_LINES)
        lines[rng.random(blocks) < RAW_SHARE] = RAW_LINES
        whole = lines.astype(np.uint32)
        prompt = -(-blocks // 2)
        chunks = [whole[:prompt], *np.array_split(whole[prompt:], CHUNKS)]
        life_s = self.mean_life_s * rng.lognormal(-0.32, 0.8)
        self.live[number] = _Request(chunks[::-1], life_s / (CHUNKS + 1), [])
        heapq.heappush(self.events, (now_s, number))

    def advance(self, now_s: float) -> None:
        """Everything up to this time."""
        while self.events and self.events[0][0] <= now_s:
            at_s, number = heapq.heappop(self.events)
            request = self.live.get(number)
            if request is None:
                continue  # was evicted
            if not request.chunks:
                self.end(number)
                continue
            self.store(number, request, request.chunks.pop())
            heapq.heappush(self.events, (at_s + request.step_s, number))

    def store(self, number: int, request: _Request, lines: U32) -> None:
        """Where the pool refuses, the oldest requests go, as a serving engine would have it."""
        while len(lines) and number in self.live:
            try:
                request.handles.append(self.pool.put(lines))
                self.records += len(lines)
                break
            except PoolFull:
                free, need = self.pool.free_lines(), int(lines.sum())
                self.full += free < need
                self.broken_up += free >= need
                self.stranded_share = max(self.stranded_share, free / self.pool.lines)
                oldest = next(iter(self.live))
                self.evicted += 1
                self.end(oldest)
        self.puts += 1

    def end(self, number: int) -> None:
        handles = self.live.pop(number).handles
        if handles:
            self.pool.core.release(np.concatenate(handles))

    def hour(self, number: int) -> Hour:
        stats, total = self.pool.core.stats(), self.pool.lines * spec.LINE_BYTES
        handles = [part for request in self.live.values() for part in request.handles]
        used, held = int(stats.used_bytes[Tier.L3]), int(stats.held_bytes[Tier.L3])
        out = Hour(
            number, used / total, int(stats.free_runs), total - used,
            self.pool.largest_free_run(np.concatenate(handles) if handles else np.empty(0, np.uint64)),
            (held - used) / held if held else 0.0, self.puts, self.full, self.broken_up,
        )  # fmt: skip
        self.puts = self.full = self.broken_up = 0
        return out


def simulate(settings: Settings, progress: Callable[[], None] = lambda: None) -> Day:
    """A day from an empty pool, then everything is released."""
    simulation = _Simulation(settings)
    rng, hours, now_s, number = simulation.rng, [], 0.0, 0
    for hour in range(1, HOURS + 1):
        while True:
            # Two waves a day, so that the second half meets the loads of the first.
            load = 1 + settings.swing * math.sin(4 * math.pi * now_s / (HOURS * HOUR_S))
            now_s += rng.exponential(1 / (simulation.per_s * load))
            if now_s >= hour * HOUR_S:
                break
            simulation.advance(now_s)
            simulation.arrive(now_s, number)
            number += 1
        simulation.advance(hour * HOUR_S)
        now_s = hour * HOUR_S  # arrivals have no memory
        hours.append(simulation.hour(hour))
        progress()
    for left in list(simulation.live):
        simulation.end(left)
    stats = simulation.pool.core.stats()
    return Day(
        tuple(hours), number, simulation.records, simulation.evicted, simulation.stranded_share,
        int(stats.held_bytes[Tier.L3]), int(stats.free_runs),
    )  # fmt: skip
