"""Faults by the hundred thousand, in records, pool and device: never a wrong byte, a leak or a hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from speckv_pynq.bench.fault_library import LibraryTarget
from speckv_pynq.bench.fault_system import SystemTarget
from speckv_pynq.errors import CheckFailed, ConfigError

HANG_S: Final = (
    5.0  # a call that takes longer has hung: no deadline within is longer than a fraction of it
)
BATCH: Final = 100

# Kind of fault, how many of a thousand.
SHARES: Final = {
    "library: flipped bit": 540,
    "library: truncated record": 150,
    "library: swapped records": 150,
    "library: full pool": 100,
    "system: flipped bit": 15,
    "system: device fails to start": 10,
    "system: device fails in a run": 10,
    "system: wrong completion": 8,
    "system: device too late": 7,
    "system: full pool": 5,
    "system: failed allocation": 5,
}


class Target(Protocol):
    """Something that faults are put into."""

    def kinds(self) -> dict[str, Callable[[np.random.Generator], None]]:
        """Each puts one fault in, calls, sees it refused, and takes it out again.

        CheckFailed where wrong bytes came back or nothing was refused; `leaks` finds what stayed.
        """
        ...

    def leaks(self) -> int:
        """Blocks, references, leases, bytes and buffers that should not be there."""
        ...

    def close(self) -> int:
        """Ends it; leaks, all memory included."""
        ...


@dataclass
class Tally:
    """What was injected, by kind, and what came of it."""

    injected: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    leaks: int = 0
    hangs: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0

    @property
    def sound(self) -> bool:
        return not self.wrong and self.leaks == self.hangs == 0


def run(count: int, seed: int = 0, progress: Callable[[int], None] = lambda done: None) -> Tally:
    """At least `count` faults over all kinds, interleaved; stops at the first wrong byte."""
    if count < 1:
        raise ConfigError(f"count {count} < 1")
    rng, tally, start = np.random.default_rng(seed), Tally(), time.perf_counter()
    targets: tuple[Target, ...] = (LibraryTarget(), SystemTarget())
    inject = {name: call for target in targets for name, call in target.kinds().items()}
    left = {name: -(-count * share // 1000) for name, share in SHARES.items()}
    try:
        while any(left.values()):
            for name, remaining in left.items():
                # In proportion, so that all kinds meet the states that the others leave.
                some = min(remaining, max(1, BATCH * SHARES[name] // 1000))
                for _ in range(some):
                    _one(inject[name], rng, tally)
                left[name] -= some
                tally.injected[name] = tally.injected.get(name, 0) + some
                progress(some)
            tally.leaks += sum(target.leaks() for target in targets)
    except CheckFailed as error:
        tally.wrong.append(str(error))
    tally.leaks += sum(target.close() for target in targets)
    tally.seconds = time.perf_counter() - start
    return tally


def _one(
    inject: Callable[[np.random.Generator], None], rng: np.random.Generator, tally: Tally
) -> None:
    start = time.perf_counter()
    inject(rng)
    took = time.perf_counter() - start
    tally.slowest_s = max(tally.slowest_s, took)
    tally.hangs += took > HANG_S
