"""A long run of many sequences that come, fork, share, diverge and go, checked at every step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from speckv_pynq.bench.soak_engines import CEngine, Engine, PythonEngine
from speckv_pynq.bench.soak_world import BASES, PATTERNS, check, decoded
from speckv_pynq.errors import ConfigError, PoolFull
from speckv_pynq.spec import Scheme

CASES: Final = ("c", "python int4", "python raw")
CELLS: Final = 12  # at most, of a sequence
TEMPLATES: Final = 8  # prefixes that sequences share
PREFIX_CELLS: Final = 4
TURN_STEPS: Final = 500
BURST_STEPS: Final = 500  # then sequences come until the pool is full
WARM_UP: Final = 0.2  # of the time; RSS is compared after it
SAMPLES: Final = 2000  # at most, in a table that does not grow with the run
SAMPLE_S: Final = 0.25  # or longer
RSS_GROWTH_BYTES: Final = 4 << 20  # more, beyond what the system says that it holds, is a leak
L3_BYTES_EACH: Final = {"c": 24_000, "python int4": 14_000, "python raw": 34_000}  # a sequence

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """case: one of CASES. sequences: alive at once; seconds: after they have all come."""

    case: str = "c"
    seconds: float = 60.0
    sequences: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise ConfigError(f"case {self.case!r} is not one of {', '.join(CASES)}")
        if self.sequences < 50:
            raise ConfigError(f"sequences {self.sequences} < 50")
        if not self.seconds > 0:
            raise ConfigError(f"seconds {self.seconds} is not above 0")


@dataclass
class Counts:
    """steps: each with all accounts checked. pool_full: calls refused. RSS in bytes; beyond: what RSS is over the
    bytes that the system says that it holds, after the warm-up.
    """

    case: str
    steps: int = 0
    operations: int = 0
    blocks_written: int = 0
    blocks_overwritten: int = 0
    blocks_read: int = 0
    evictions: int = 0
    forks: int = 0
    shared_blocks: int = 0
    freed_sequences: int = 0
    pool_full: int = 0
    seconds: float = 0.0
    sequences_least: int = 0
    sequences_most: int = 0
    blocks_most: int = 0
    rss_start: int = 0
    rss_warm: int = 0
    rss_most: int = 0
    held_most: int = 0
    beyond_growth: int = 0
    beyond_slope_per_hour: float = 0.0

    def report(self) -> dict[str, Any]:
        return asdict(self)


class Soak:
    """One run; `world` of the engine says what must come back."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rng = np.random.default_rng(settings.seed)
        self.counts = Counts(settings.case)
        for pattern in range(BASES):  # made now, so that memory is flat from the start
            for scheme in (Scheme.RAW, Scheme.INT4):
                decoded(pattern, scheme)
        self.counts.rss_start = resident_bytes()
        l3_bytes = L3_BYTES_EACH[settings.case] * settings.sequences // 4096 * 4096
        self.engine: Engine = (
            CEngine(l3_bytes, settings.seed)
            if settings.case == "c"
            else PythonEngine(
                Scheme.INT4 if settings.case == "python int4" else Scheme.RAW, l3_bytes
            )
        )
        self.world = self.engine.world
        self.next_request = 0
        self.first_reads = 0
        self.burst = False
        self.alive: list[int] = []  # sequences that may go
        self.templates: list[int] = []
        self.samples = np.full((SAMPLES, 3), np.nan)  # seconds, bytes resident, bytes held
        self.sampled = 0

    # ---- operations

    def attempt(self, call: Callable[[], T], keep: int) -> T:
        """Where the pool is full, nothing has changed, and other sequences go until there is room."""
        while True:
            self.counts.operations += 1
            try:
                return call()
            except PoolFull:
                self.counts.pool_full += 1
                self.burst = False
                self.engine.check()
                others = [request for request in self.alive if request != keep]
                check(bool(others), "the pool is full of one sequence")
                self.go(others[int(self.rng.integers(len(others)))])

    def write(self, request: int, cell: int, pattern: int) -> None:
        new = cell == len(self.world.sequences[request])
        self.attempt(lambda: self.engine.write(request, cell, pattern), request)
        self.world.write(request, cell, pattern, self.engine.scheme)
        self.counts.blocks_written += new
        self.counts.blocks_overwritten += not new

    def read(self, request: int) -> None:
        def all_blocks() -> None:
            for held in self.engine.read(request):
                self.counts.blocks_read += 1
                self.first_reads += not held.read
                held.read = True

        self.attempt(all_blocks, request)

    def new(self) -> int:
        self.next_request += 1
        return self.next_request

    def fork(self, source: int) -> int:
        request = self.new()
        self.attempt(lambda: self.engine.fork(source, request), source)
        self.world.fork(source, request)
        self.engine.open(request, CELLS)
        self.counts.forks += 1
        return request

    def fresh(self, patterns: list[int]) -> int:
        request = self.new()
        self.engine.open(request, CELLS)
        self.world.sequences[request] = []
        for cell, pattern in enumerate(patterns):
            self.write(request, cell, pattern)
        return request

    def come(self) -> None:
        kind, rng = self.rng.random(), self.rng
        if kind < 0.4 and self.alive:
            request = self.fork(self.some())
            self.alive.append(request)
            self.write(request, len(self.world.sequences[request]) - 1, self.pattern())
            return
        if kind < 0.7:
            prefix = self.templates[int(rng.integers(TEMPLATES))]
            if self.world.share_equal:
                request = self.fresh([held.pattern for held in self.world.sequences[prefix]])
            else:
                request = self.fork(prefix)
        else:
            request = self.fresh([self.pattern()])
        self.alive.append(request)
        for cell in range(len(self.world.sequences[request]), int(rng.integers(5, CELLS + 1))):
            self.write(request, cell, self.pattern())

    def go(self, request: int) -> None:
        self.alive.remove(request)
        self.engine.free(request)
        self.world.free(request)
        self.counts.operations += 1
        self.counts.freed_sequences += 1

    # ---- the run

    def step(self) -> None:
        want = self.settings.sequences
        if self.burst or len(self.alive) < want or self.rng.random() < 0.3:
            self.come()
        for _ in range(2):
            if len(self.alive) > want and not self.burst:
                self.go(self.some())
        self.read(self.some())
        request = self.some()
        self.write(
            request, int(self.rng.integers(len(self.world.sequences[request]))), self.pattern()
        )
        self.counts.steps += 1
        self.counts.blocks_most = max(self.counts.blocks_most, self.world.blocks)
        self.engine.check()
        if self.counts.steps % TURN_STEPS == 0:
            self.engine.turn(self.counts.steps // TURN_STEPS)
        if self.counts.steps % BURST_STEPS == 0:
            self.burst = True
        self.burst = self.burst and len(self.alive) < 2 * want

    def run(self, progress: Callable[[float], None] = lambda seconds: None) -> Counts:
        """CheckFailed at the first thing that is wrong."""
        self.templates = [
            self.fresh([self.pattern() for _ in range(PREFIX_CELLS)]) for _ in range(TEMPLATES)
        ]
        for _ in range(20 * self.settings.sequences):
            if len(self.alive) >= self.settings.sequences:
                break
            self.come()
            self.engine.check()
        check(len(self.alive) >= self.settings.sequences, "sequences that fit", len(self.alive))
        self.burst = True
        while self.burst:  # until all is full once: the model's own memory is at its largest before RSS is compared
            self.step()
        start = last = time.monotonic()
        sample_s = max(SAMPLE_S, 2 * self.settings.seconds / SAMPLES)
        while (now := time.monotonic()) - start < self.settings.seconds:
            if now - last >= sample_s:
                self.sample(now - start)
                progress(now - last)
                last = now
            self.step()
        self.sample(self.settings.seconds)
        self.counts.seconds = time.monotonic() - start
        for request in [*self.world.sequences]:
            if request in self.world.sequences:  # reading the others may have needed its room
                self.read(request)
        self.counts.evictions = self.engine.evictions(self.first_reads)
        self.counts.shared_blocks = self.world.shared
        self.judge()
        for request in [*self.world.sequences]:
            self.engine.free(request)
            self.world.free(request)
            self.engine.check()
        self.engine.close()
        return self.counts

    def sample(self, at_s: float) -> None:
        counts, alive = self.counts, len(self.alive)
        counts.sequences_least = min(counts.sequences_least or alive, alive)
        counts.sequences_most = max(counts.sequences_most, alive)
        self.samples[self.sampled] = at_s, resident_bytes(), self.engine.held_bytes()
        self.sampled += 1

    def judge(self) -> None:
        """Resident memory after the warm-up: what is not the system's own, declared, may not grow."""
        table = self.samples[: self.sampled]
        late = table[table[:, 0] >= WARM_UP * self.settings.seconds]
        beyond = late[:, 1] - late[:, 2]
        counts = self.counts
        counts.rss_warm, counts.rss_most = int(late[0, 1]), int(late[:, 1].max())
        counts.held_most = int(late[:, 2].max())
        counts.beyond_growth = int(beyond.max() - np.median(beyond[:8]))
        if len(late) > 2:
            counts.beyond_slope_per_hour = float(np.polyfit(late[:, 0], beyond, 1)[0] * 3600)
        check(counts.beyond_growth <= RSS_GROWTH_BYTES, "RSS grew by bytes", counts.beyond_growth)

    def some(self) -> int:
        return self.alive[int(self.rng.integers(len(self.alive)))]

    def pattern(self) -> int:
        return int(self.rng.integers(PATTERNS))


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
