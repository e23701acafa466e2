"""What a prefetch costs the hits beside it, and its caller."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from speckv_pynq import spec
from speckv_pynq.block import BlockShape
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.native import U64
from speckv_pynq.tiers import StridedKV, TierConfig, TierManager

SHAPE = BlockShape(32, 8, 128, spec.DType.FP16)  # 8 KV heads of 128, as in Llama 3.1 8B
ENGINES = 2
IDLE_HITS = 1000


@dataclass(frozen=True)
class Figures:
    """Of a get of one block from L1, and of prefetches of many from L3 to L2; GB are 1e9 bytes of FP16."""

    hit_idle_us: float  # median, nothing else going on
    hit_us: float  # median, a prefetch under way
    hit_p99_us: float
    hits: int  # while prefetches were under way
    call_us_per_block: float  # of prefetch(), which returns before the blocks are there
    prefetch_gb_s: float  # until they are


def measure(repeats: int, blocks: int, advance: Callable[[], None] = lambda: None) -> Figures:
    """`repeats` prefetches of `blocks` blocks, int4, while another thread reads a block in L1 over and over."""
    if repeats < 1 or blocks < 1:
        raise ValueError(f"repeats {repeats} < 1 or blocks {blocks} < 1")
    config = TierConfig(
        SHAPE.block_bytes, (blocks + 64) * SHAPE.slot_bytes, 2 * (blocks + 1) * SHAPE.slot_bytes
    )
    with (
        CsimDevice(ENGINES) as device,
        TierManager(device, SHAPE, spec.Scheme.INT4, config, layers=1) as tiers,
    ):
        handles, cache = _filled(tiers, blocks + 1)
        _read(tiers, handles[:1], cache)  # into L1, which has no room for more
        idle = [_read(tiers, handles[:1], cache) for _ in range(IDLE_HITS)]
        hits: list[float] = []
        calls, spans = [], []
        for i in range(repeats + 1):  # the first one opens the driver
            call, span, during = _prefetch(tiers, handles, cache)
            _read(tiers, handles[1:], cache)  # out of L2 again
            advance()
            if i:
                calls.append(call)
                spans.append(span)
                hits += during
    return Figures(
        hit_idle_us=1e6 * statistics.median(idle),
        hit_us=1e6 * statistics.median(hits),
        hit_p99_us=1e6 * float(np.quantile(hits, 0.99)),
        hits=len(hits),
        call_us_per_block=1e6 * statistics.median(calls) / blocks,
        prefetch_gb_s=1e-9 * blocks * SHAPE.block_bytes / statistics.median(spans),
    )


def _filled(tiers: TierManager, blocks: int) -> tuple[U64, StridedKV]:
    size = (1, SHAPE.heads, blocks * SHAPE.tokens, SHAPE.head_dim)
    values = np.random.default_rng(0).normal(0, 1, size).astype(np.float16)
    cache = StridedKV.of(values, values.copy())
    at = np.arange(blocks) * SHAPE.tokens
    return tiers.put(0, at, np.zeros_like(at), at, cache), cache


def _read(tiers: TierManager, handles: U64, cache: StridedKV) -> float:
    """Seconds that it took."""
    at = np.arange(len(handles)) * SHAPE.tokens
    start = time.perf_counter()
    tiers.get(handles, np.zeros_like(at), at, cache)
    return time.perf_counter() - start


def _prefetch(
    tiers: TierManager, handles: U64, cache: StridedKV
) -> tuple[float, float, list[float]]:
    """Seconds of the call, until all is there, and of each hit of this thread meanwhile."""
    over, call, span = threading.Event(), 0.0, 0.0

    def work() -> None:
        nonlocal call, span
        try:
            start = time.perf_counter()
            tiers.prefetch(handles[1:])
            call = time.perf_counter() - start
            tiers.wait_prefetched()
            span = time.perf_counter() - start
        finally:
            over.set()

    thread = threading.Thread(target=work)
    hits: list[float] = []
    thread.start()
    while not over.is_set() or not hits:
        hits.append(_read(tiers, handles[:1], cache))
    thread.join()
    return call, span, hits
