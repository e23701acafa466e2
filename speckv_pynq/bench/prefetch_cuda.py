"""Dense decoding on a GPU whose cache is mostly in pinned host memory: prefetch beside demand. No model of a link.

The layers are of the size of Llama 3.1 70B's, with random weights, one sequence; keys stand rotated, RoPE is left out.
The host asks layer by layer: it waits until the GPU has come to a layer, looks which blocks are there, and goes on. So
"at the instant the layer asks" is an instant of both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from speckv_pynq.bench.prefetch_decoder import LARGE, Decoder, ModelSize
from speckv_pynq.bench.prefetch_ring import CudaLane, Lane, Ring
from speckv_pynq.errors import ConfigError, DependencyMissing, DeviceError

BLOCK_TOKENS: Final = 32
MARGIN: Final = 1.2  # link over demand
L1_SHARE: Final = 4  # a quarter of each layer
L2_SHARE: Final = 8  # an eighth of all
WARM_STEPS: Final = 2  # after a change of mode, not counted
_GRAIN: Final = BLOCK_TOKENS * L1_SHARE
_TOKENS: Final = (16 * _GRAIN, 512 * _GRAIN)  # least, most
_TRIES: Final = 12


@dataclass(frozen=True)
class Figures:
    """Times are medians; GB are 1e9 bytes, blocks FP16. on_time: of all blocks of the measured prefetch steps."""

    on_time: float
    speedup: float  # demand_ms / prefetch_ms
    resident_ms: float  # a step with all blocks on the GPU
    prefetch_ms: float
    demand_ms: float
    wasted: float  # of the bytes copied while prefetching, those not read
    link_gb_s: float  # pinned memory to GPU, measured
    demand_gb_s: float  # bytes that must come up in a step / resident_ms
    link_over_demand: float
    step_mb: float  # bytes that must come up in a step, 1e6
    tokens: int
    steps: int  # measured, of each mode
    exact: bool  # what a layer reads is what L3 holds, in every byte
    gpu: str


@dataclass
class Counts:
    """Of the steps of one mode."""

    seconds: list[float]
    asked: int = 0
    on_time: int = 0
    copied: int = 0
    read: int = 0


def step(decoder: Decoder, ring: Ring, ahead: bool, reach: Callable[[], None]) -> tuple[int, float]:
    """One decoding step: blocks there when their layer asked, seconds. reach: returns once the device has come here."""
    reach()
    start, there = time.perf_counter(), 0
    for index in range(ring.layers):
        reach()
        there += ring.on_time(index)
        ring.get(index, decoder.kv)
        decoder.layer(index)
        if ahead:  # while the device computes
            ring.feed()
    decoder.finish()
    reach()
    return there, time.perf_counter() - start


def run(
    decoder: Decoder,
    ring: Ring,
    steps: int,
    *,
    ahead: bool,
    reach: Callable[[], None],
    into: Counts,
) -> None:
    """`steps` steps counted, after WARM_STEPS that are not."""
    for i in range(WARM_STEPS + steps):
        before = ring.copied, ring.read
        there, seconds = step(decoder, ring, ahead, reach)
        if i < WARM_STEPS:
            continue
        into.seconds.append(seconds)
        into.on_time += there
        into.asked += ring.layers * ring.blocks
        into.copied += ring.copied - before[0]
        into.read += ring.read - before[1]


@torch.inference_mode()
def measure(
    rounds: int,
    steps: int,
    size: ModelSize = LARGE,
    advance: Callable[[], None] = lambda: None,
) -> Figures:
    """`rounds` times `steps` steps with prefetch, then as many on demand, by turns; DependencyMissing without a GPU.

    The length of the sequence is chosen so that the link carries MARGIN times what must come up in a step.
    """
    if rounds < 1 or steps < 1:
        raise ConfigError(f"rounds {rounds} < 1 or steps {steps} < 1")
    if not torch.cuda.is_available():
        raise DependencyMissing("--compute cuda needs a CUDA device, and torch made for it")
    device = torch.device("cuda")
    lane = CudaLane()

    def reach() -> None:  # of the computation: what the lane copies goes on
        torch.cuda.current_stream().synchronize()

    link = link_bytes_per_s(lane, device, reach)
    decoder, source, resident_s = _sized(size, link, lane, device, reach)
    blocks = source.shape[1]
    ring = Ring(source, blocks // L1_SHARE, size.layers * blocks // L2_SHARE, lane, device)
    modes = {True: Counts([]), False: Counts([])}
    for _ in range(rounds):
        for ahead, counts in modes.items():
            run(decoder, ring, steps, ahead=ahead, reach=reach, into=counts)
            advance()
    exact = check(ring, decoder, source)
    prefetch, demand = modes[True], modes[False]
    step_bytes = size.layers * ring.streamed * source[0, 0].nbytes
    prefetch_s, demand_s = map(statistics.median, (prefetch.seconds, demand.seconds))
    return Figures(
        on_time=prefetch.on_time / prefetch.asked,
        speedup=demand_s / prefetch_s,
        resident_ms=1e3 * resident_s,
        prefetch_ms=1e3 * prefetch_s,
        demand_ms=1e3 * demand_s,
        wasted=max(0.0, 1 - prefetch.read / prefetch.copied),
        link_gb_s=1e-9 * link,
        demand_gb_s=1e-9 * step_bytes / resident_s,
        link_over_demand=link * resident_s / step_bytes,
        step_mb=1e-6 * step_bytes,
        tokens=decoder.tokens,
        steps=rounds * steps,
        exact=exact,
        gpu=torch.cuda.get_device_name(),
    )


def link_bytes_per_s(lane: Lane, device: torch.device, reach: Callable[[], None]) -> float:
    """Of copies as the ring makes them, from pinned memory."""
    source = torch.empty((64, 1 << 22), dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty_like(source, device=device)
    rates = []
    for _ in range(5):
        reach()
        start = time.perf_counter()
        ends = [lane.copy(into, part, None) for into, part in zip(target, source, strict=True)]
        lane.need(ends[-1])
        reach()
        rates.append(source.nbytes / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def host_blocks(size: ModelSize, tokens: int, device: torch.device) -> torch.Tensor:
    """L3: (layers, blocks, kinds, kv_heads, BLOCK_TOKENS, head_dim) FP16, pinned where the device is a GPU."""
    shape = (size.layers, tokens // BLOCK_TOKENS, 2, size.kv_heads, BLOCK_TOKENS, size.head_dim)
    host = torch.empty(shape, dtype=torch.float16, pin_memory=device.type == "cuda")
    make = torch.Generator(device=device).manual_seed(1)
    for layer in host:
        layer.copy_(torch.randn(shape[1:], generator=make, device=device, dtype=torch.float16))
    return host


def check(ring: Ring, decoder: Decoder, source: torch.Tensor) -> bool:
    """Whether every layer reads what L3 holds, in every byte, with prefetch ahead."""
    equal = True
    for layer in range(ring.layers):
        ring.get(layer, decoder.kv)
        ring.feed()
        want = source[layer].to(decoder.device).permute(1, 2, 0, 3, 4).flatten(2, 3)
        equal &= torch.equal(decoder.kv[:, :, : decoder.tokens], want)
    return equal


def _sized(
    size: ModelSize, link: float, lane: Lane, device: torch.device, reach: Callable[[], None]
) -> tuple[Decoder, torch.Tensor, float]:
    """A decoder and blocks for which the link is MARGIN times the demand, or a bit more; seconds of a resident step."""
    tokens = 32 * _GRAIN
    for _ in range(_TRIES):
        decoder = Decoder(size, tokens, device)
        source = host_blocks(size, tokens, device)
        ring = Ring(source, source.shape[1], 0, lane, device)
        counts = Counts([])
        run(decoder, ring, 15, ahead=False, reach=reach, into=counts)
        resident_s = statistics.median(counts.seconds)
        fits = fitting_tokens(size, link, resident_s)
        if tokens == fits or 0.85 * fits <= tokens <= fits:
            return decoder, source, resident_s
        del decoder, source, ring
        tokens = max(_TOKENS[0], int(0.95 * fits) // _GRAIN * _GRAIN)
    raise DeviceError(
        f"no length found after {_TRIES} tries: {tokens} tokens, step {resident_s:g} s"
    )


def fitting_tokens(size: ModelSize, link: float, resident_s: float) -> int:
    """The longest sequence whose streamed share comes up in resident_s / MARGIN, in whole grains."""
    streamed = size.token_bytes * (1 - 1 / L1_SHARE)
    tokens = int(link * resident_s / MARGIN / streamed) // _GRAIN * _GRAIN
    return min(max(tokens, _TOKENS[0]), _TOKENS[1])
