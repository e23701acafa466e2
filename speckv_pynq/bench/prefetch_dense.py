"""Dense decoding on csim behind a MODELLED link: prefetch beside demand, with real computation between the layers.

The model is of the link alone: codec, copies and computation take the time that they take here. Its rate is set, round
by round, to MARGIN times what must come up in a step whose blocks are all there already.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from speckv_pynq import spec
from speckv_pynq.bench.prefetch_decoder import Decoder, ModelSize
from speckv_pynq.block import BlockShape
from speckv_pynq.config import TierConfig
from speckv_pynq.device.link import Link, LinkedCsimDevice
from speckv_pynq.errors import ConfigError
from speckv_pynq.native import U64
from speckv_pynq.tiers import StridedKV, TierManager

BLOCK_TOKENS: Final = spec.BLOCK_TOKENS
MARGIN: Final = 1.2  # link over demand
LATENCY_S: Final = 2e-6
L1_SHARE: Final = 4  # a quarter of the cache
L2_SHARE: Final = 8  # an eighth, staging included
ENGINES: Final = 1  # a core for the kernels, one for the computation
WARM_STEPS: Final = 2  # after a change of mode, not counted
FIRST_STEPS: Final = 3  # until L1 is full
VOCABULARY: Final = 4096  # a cut output layer: nothing comes up while it is computed
RESIDENT, PREFETCH, DEMAND = "resident", "prefetch", "demand"


@dataclass(frozen=True)
class Settings:
    """Sizes of the sequence and the model; rounds of every mode by turns, steps measured in each."""

    tokens: int = 2048
    layers: int = 16
    rounds: int = 3
    steps: int = 5

    def __post_init__(self) -> None:
        for name in ("layers", "rounds", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} < 1")
        grain = L1_SHARE * BLOCK_TOKENS
        if self.tokens < grain or self.tokens % grain:
            raise ConfigError(f"tokens {self.tokens} is not a multiple of {grain}")


@dataclass(frozen=True)
class Figures:
    """Times are medians; MB are 1e6 bytes. The rate of the link is a setting of the model, not a measurement."""

    on_time: (
        float  # of all blocks of measured prefetch steps, those in L1 or L2 when their layer asked
    )
    speedup: float  # a demand step / a prefetch step, median over rounds
    resident_ms: float  # a step with all blocks in L1
    prefetch_ms: float
    demand_ms: float
    wasted: float  # of the record bytes moved while prefetching, those not read
    link_mb_s: float
    link_over_demand: float
    step_mb: float  # records that must come up in a step
    moved_mb: float  # records that did, in a measured prefetch step
    tokens: int
    layers: int
    steps: int  # measured, of each mode


@dataclass
class Counts:
    """Of the measured steps of one mode."""

    seconds: list[list[float]] = field(default_factory=list)  # by round
    asked: int = 0
    on_time: int = 0
    needed_bytes: int = 0
    moved_bytes: int = 0

    @property
    def all_seconds(self) -> list[float]:
        return [one for part in self.seconds for one in part]


class Mode:
    """A tier manager with the blocks of one sequence, and its decoder's steps over them."""

    def __init__(
        self, tiers: TierManager, handles: list[U64], decoder: Decoder, link: Link
    ) -> None:
        self.tiers, self._handles, self._decoder, self._link = tiers, handles, decoder, link
        self.counts = Counts()
        blocks = decoder.tokens // BLOCK_TOKENS
        self._rows, self._offsets = np.zeros(blocks, int), np.arange(blocks) * BLOCK_TOKENS
        kv = decoder.kv[:, None, :, : decoder.tokens]
        self._target = StridedKV.of(kv[0], kv[1])

    def streamed_bytes(self) -> int:
        """Record bytes of the blocks that L1 does not hold."""
        stats = self.tiers.stats()
        blocks = np.concatenate(self._handles)
        return round(stats.record_bytes * (1 - stats.l1_blocks / len(blocks)))

    def step(self) -> int:
        """One decoding step; how many blocks were there when their layer asked."""
        there = 0
        for layer, handles in enumerate(self._handles):
            there += int(self.tiers.resident(handles).sum())
            self.tiers.get(handles, self._rows, self._offsets, self._target, ahead=(0, layer))
            self._decoder.layer(layer)
        self._decoder.finish()
        return there

    def run(self, steps: int) -> None:
        """`steps` steps counted, after WARM_STEPS that are not."""
        for _ in range(WARM_STEPS):
            self.step()
        counts, moved, seconds = self.counts, self._link.moved_bytes, []
        for _ in range(steps):
            start = time.perf_counter()
            counts.on_time += self.step()
            seconds.append(time.perf_counter() - start)
            counts.asked += sum(map(len, self._handles))
            counts.needed_bytes += self.streamed_bytes()
        counts.seconds.append(seconds)
        counts.moved_bytes += self._link.moved_bytes - moved

    def quiet(self) -> None:
        """What is on its way has come, so that the next mode has the link to itself."""
        self.tiers.wait_prefetched()


@torch.inference_mode()
def measure(settings: Settings, advance: Callable[[], None] = lambda: None) -> Figures:
    """Steps with all blocks in L1, with prefetch and on demand, by turns; same computation, link and workers."""
    links: list[float] = []
    with one_thread(), _modes(settings) as (modes, link):
        for mode in modes.values():
            for _ in range(FIRST_STEPS):
                mode.step()
            mode.quiet()
        step_bytes = modes[DEMAND].streamed_bytes()
        for _ in range(settings.rounds):
            modes[RESIDENT].run(settings.steps)
            resident_s = statistics.median(modes[RESIDENT].counts.seconds[-1])
            link.bytes_per_s = MARGIN * step_bytes / resident_s
            links.append(link.bytes_per_s)
            for name in (PREFETCH, DEMAND):
                modes[name].run(settings.steps)
                modes[name].quiet()
            advance()
        return _figures(settings, {name: mode.counts for name, mode in modes.items()}, links)


def _figures(settings: Settings, counts: dict[str, Counts], links: list[float]) -> Figures:
    resident, prefetch, demand = (counts[name] for name in (RESIDENT, PREFETCH, DEMAND))
    middle = {name: statistics.median(one.all_seconds) for name, one in counts.items()}
    steps = settings.rounds * settings.steps
    step_bytes = prefetch.needed_bytes / steps
    return Figures(
        on_time=prefetch.on_time / prefetch.asked,
        speedup=statistics.median(
            statistics.median(late) / statistics.median(early)
            for late, early in zip(demand.seconds, prefetch.seconds, strict=True)
        ),
        resident_ms=1e3 * middle[RESIDENT],
        prefetch_ms=1e3 * middle[PREFETCH],
        demand_ms=1e3 * middle[DEMAND],
        wasted=max(0.0, 1 - prefetch.needed_bytes / prefetch.moved_bytes),
        link_mb_s=1e-6 * statistics.median(links),
        link_over_demand=statistics.median(
            rate * statistics.median(part) / step_bytes
            for rate, part in zip(links, resident.seconds, strict=True)
        ),
        step_mb=1e-6 * step_bytes,
        moved_mb=1e-6 * prefetch.moved_bytes / steps,
        tokens=settings.tokens,
        layers=settings.layers,
        steps=steps,
    )


@contextmanager
def _modes(settings: Settings) -> Iterator[tuple[dict[str, Mode], Link]]:
    """All modes on one device behind one link, which has no limit yet; each with its own copy of the cache."""
    size = ModelSize(layers=settings.layers, vocabulary=VOCABULARY, alike=True)
    decoder = Decoder(size, settings.tokens, torch.device("cpu"), torch.float32)
    shape = BlockShape(BLOCK_TOKENS, size.kv_heads, size.head_dim, spec.DType.FP16)
    blocks = settings.layers * settings.tokens // BLOCK_TOKENS
    whole, link = blocks * shape.block_bytes, Link(LATENCY_S)
    budgets = {
        RESIDENT: TierConfig(whole, whole // L2_SHARE, 2 * whole),
        PREFETCH: TierConfig(whole // L1_SHARE, whole // L2_SHARE, 2 * whole, prefetch="dense"),
        DEMAND: TierConfig(whole // L1_SHARE, whole // L2_SHARE, 2 * whole),
    }
    with ExitStack() as stack:
        device = stack.enter_context(LinkedCsimDevice(link, ENGINES))
        modes = {}
        for name, config in budgets.items():
            tiers = stack.enter_context(
                TierManager(device, shape, spec.Scheme.INT4, config, layers=settings.layers)
            )
            handles = _filled(tiers, settings)
            modes[name] = Mode(tiers, handles, decoder, link)
        yield modes, link


def _filled(tiers: TierManager, settings: Settings) -> list[U64]:
    """Handles of the blocks of each layer."""
    shape, random = tiers.shape, np.random.default_rng(0)
    at = np.arange(settings.tokens // BLOCK_TOKENS) * BLOCK_TOKENS
    handles = []
    for layer in range(settings.layers):
        size = (2, 1, shape.heads, settings.tokens, shape.head_dim)
        values = random.standard_normal(size, np.float32).astype(np.float16)
        kv = StridedKV.of(values[0], values[1])
        handles.append(tiers.put(layer, at, np.zeros_like(at), at, kv))
    return handles


@contextmanager
def one_thread() -> Iterator[None]:
    """The computation on one thread of torch's: others would spin on the cores of the kernels."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
