"""Memory measured beside memory counted: a long synthetic cache in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from speckv_pynq.errors import ConfigError, SpeckvError

TIMEOUT_S = 600


@dataclass(frozen=True)
class Settings:
    """The cache that is filled; SmolLM2's shape by default. L1 gets what the blocks of `l1_layers` layers take."""

    scheme: str = "int4"
    tokens: int = 32768
    layers: int = 30
    heads: int = 3
    head_dim: int = 64
    l1_layers: float = 1.0
    chunk_tokens: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "layers", "heads", "head_dim", "chunk_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} < 1")


@dataclass(frozen=True)
class Memory:
    """Of one process, bytes. pss: growth of its proportional set size while the cache was made and filled."""

    scheme: str
    pss: int
    accounted: int
    l1: int
    l2: int
    l3: int
    metadata: int
    exact: int
    workspace: int
    fp16: int

    @property
    def difference_percent(self) -> float:
        """PSS over what is accounted for."""
        return 100 * (self.pss / self.accounted - 1)

    def report(self) -> dict[str, float | str]:
        """In MB (1e6 bytes), for JSON."""
        sizes = {f"{k}_mb": v / 1e6 for k, v in asdict(self).items() if k != "scheme"}
        return {"scheme": self.scheme, **sizes, "difference_percent": self.difference_percent}


def measure(
    settings: Settings, processes: int, progress: Callable[[], None] = lambda: None
) -> list[Memory]:
    """One figure from each of `processes` fresh processes."""
    out = []
    for _ in range(processes):
        out.append(_fresh_process(settings))
        progress()
    return out


def median(figures: list[Memory]) -> Memory:
    """The one whose PSS is in the middle."""
    return sorted(figures, key=lambda m: m.pss)[len(figures) // 2]


def _fresh_process(settings: Settings) -> Memory:
    command = [sys.executable, "-m", "speckv_pynq.bench.memory_child", json.dumps(asdict(settings))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise SpeckvError(f"bench memory: the process took more than {TIMEOUT_S} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise SpeckvError(f"bench memory: the process failed: {lines[-1]}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))
