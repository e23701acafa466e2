"""Decoding speed: everything in L1, a quarter in L1, and DynamicCache, in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache

from speckv_pynq.bench.budgets import l1_share_bytes
from speckv_pynq.bench.decoding import Lane, decode
from speckv_pynq.bench.models import Loaded
from speckv_pynq.codebook import Codebook
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache

CASES = (  # name, scheme, share of the blocks that L1 holds
    ("all_l1", "int4", 1.0),
    ("quarter_int4", "int4", 0.25),
    ("quarter_raw", "raw", 0.25),
)
CALIBRATED_CASES = (("all_l1_klt", "klt", 1.0), ("quarter_klt", "klt", 0.25))
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Speed:
    """Of one cache; ratio: to DynamicCache, by median steps."""

    name: str
    tokens_per_s: float
    slowest_tokens_per_s: float
    ratio: float
    prefill_s: float
    l1_share: float


@torch.inference_mode()
def measure(
    loaded: Loaded,
    prompt: torch.Tensor,
    new_tokens: int,
    config: CacheConfig,
    codebook: Codebook | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Speed]:
    """DynamicCache first, then CASES, then CALIBRATED_CASES with the codebook, if one is given.

    All are fed the same tokens; prompt: (tokens,) int64.
    """
    model = loaded.model
    exact = Lane("DynamicCache", DynamicCache(config=model.config))
    final = len(prompt) + new_tokens + WARM_UP_STEPS
    with ExitStack() as stack:
        lanes = [exact]
        for name, scheme, share in cases(codebook):
            chosen = replace(config, scheme=scheme, codebook=codebook if scheme == "klt" else None)
            chosen = replace(chosen, l1_bytes=l1_share_bytes(model, chosen, final, share))
            cache = stack.enter_context(SpecKVCache.for_model(model, chosen))
            lanes.append(Lane(name, cache))
        for lane in lanes:
            lane.prefill(model, prompt)
            progress()
        decode(model, lanes, WARM_UP_STEPS, forced=True)
        before = {lane.name: _reads(lane.cache) for lane in lanes}
        for lane in lanes:
            lane.step_s.clear()
        decode(model, lanes, new_tokens, forced=True, after_step=progress)
        return [_speed(lane, exact, before[lane.name]) for lane in lanes]


def cases(codebook: Codebook | None) -> list[tuple[str, str, float]]:
    """What is measured beside DynamicCache: name, scheme, share of the blocks that L1 holds."""
    return [*CASES, *(CALIBRATED_CASES if codebook is not None else ())]


def _speed(lane: Lane, exact: Lane, before: tuple[int, int]) -> Speed:
    hits, reads = (now - then for now, then in zip(_reads(lane.cache), before, strict=True))
    return Speed(
        name=lane.name,
        tokens_per_s=lane.tokens_per_s,
        slowest_tokens_per_s=1 / max(lane.step_s),
        ratio=statistics.median(exact.step_s) / statistics.median(lane.step_s),
        prefill_s=lane.prefill_s,
        l1_share=hits / reads if reads else 0.0,
    )


def _reads(cache: Any) -> tuple[int, int]:
    """Blocks that L1 had, and blocks read in all."""
    if not isinstance(cache, SpecKVCache):
        return 0, 0
    tiers = cache.stats().tiers
    return tiers.hits_l1, tiers.hits_l1 + tiers.hits_l2 + tiers.misses
