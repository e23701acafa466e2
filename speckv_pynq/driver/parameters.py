"""What SET_PARAM sets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError

MAX_RUNS_IN_FLIGHT = 4

_MAX_TIMEOUT_US = 600_000_000
_LIMITS = {
    spec.Parameter.PREFETCH_DEPTH: (0, spec.RING_SLOTS),
    spec.Parameter.COMPRESSION_SCHEME: (min(spec.Scheme), max(spec.Scheme)),
    spec.Parameter.RUNS_IN_FLIGHT: (1, MAX_RUNS_IN_FLIGHT),
    spec.Parameter.PREFETCH_SLICE: (1, spec.MAX_BATCH),
    spec.Parameter.COMMAND_TIMEOUT_US: (1, _MAX_TIMEOUT_US),
}


@dataclass(frozen=True)
class Parameters:
    """Settings of a driver, as they are at one moment."""

    prefetch_depth: int = 4
    """Prefetches of an owner that may wait; a further one drops the oldest. 0 turns prefetch off."""
    compression_scheme: int = spec.Scheme.INT4
    """spec.Scheme of the blocks that a command with flag DEFAULT_SCHEME compresses."""
    runs_in_flight: int = 2
    """Tables of DMA_BATCH that run at once; each is split over all engines of the device."""
    prefetch_slice: int = 32
    """Descriptors of a prefetch that run between two looks at cancellation: what a DMA_BATCH
    may find ahead of it on the engines."""
    command_timeout_us: int = 10_000_000
    """How long a command waits for the device when it says nothing itself."""

    def changed(self, parameter: int, value: int) -> Parameters:
        """A copy with one parameter (spec.Parameter) set; ConfigError names value and limits."""
        if parameter not in _LIMITS:
            raise ConfigError(f"parameter {parameter} is none of {list(spec.Parameter)}")
        name = spec.Parameter(parameter).name.lower()
        low, high = _LIMITS[spec.Parameter(parameter)]
        if not low <= value <= high:
            raise ConfigError(f"{name} {value} is not within {low}..{high}")
        return dataclasses.replace(self, **{name: value})
