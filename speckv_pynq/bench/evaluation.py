"""Quality and size of coded caches on text: the exact cache and each coded one go through it side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from speckv_pynq.bench.models import Loaded, forward
from speckv_pynq.bench.quality import Floats, Quality, chunks, score
from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations.transformers import CacheConfig, CacheStats, SpecKVCache

Progress = Callable[[int], None]  # takes tokens scored since the last call


@dataclass(frozen=True)
class Evaluation:
    """One scheme's result. Ratios as in CacheStats, over the bytes of all batches at their ends."""

    scheme: str
    quality: Quality
    ratio_records: float
    ratio_held: float
    raw_fallbacks: int
    blocks: int


@dataclass
class _Sizes:
    fp16: int = 0
    held: int = 0
    block_fp16: int = 0
    records: int = 0
    raw_fallbacks: int = 0
    blocks: int = 0

    def add(self, stats: CacheStats) -> None:
        self.fp16 += stats.fp16_bytes
        self.held += stats.held_bytes
        self.block_fp16 += stats.tiers.block_fp16_bytes
        self.records += stats.tiers.record_bytes
        self.raw_fallbacks += stats.tiers.raw_fallbacks
        self.blocks += stats.tiers.blocks


@torch.inference_mode()
def evaluate(
    loaded: Loaded,
    sequences: torch.Tensor,
    configs: Sequence[CacheConfig],
    *,
    batch: int,
    seed: int,
    progress: Progress = lambda tokens: None,
) -> list[Evaluation]:
    """Results in the order of `configs`, which must cut blocks alike. sequences: (n, context) int64.

    All caches take chunks of one block, so nothing but the coding differs between them and the exact one.
    """
    if len({(c.sinks, c.recent, c.block_tokens) for c in configs}) != 1:
        raise ConfigError("schemes evaluated together need the same sinks, recent and block_tokens")
    sums: list[list[Floats]] = [[] for _ in configs]
    sizes = [_Sizes() for _ in configs]
    for rows in sequences.tensor_split(-(-len(sequences) // batch)):  # as equal as possible
        with ExitStack() as stack:
            caches = [stack.enter_context(SpecKVCache.for_model(loaded.model, c)) for c in configs]
            exact = DynamicCache(config=loaded.model.config)
            scored = score_text(loaded.model, rows, exact, caches, configs[0], progress)
            for i, cache in enumerate(caches):
                sums[i].append(scored[i].sum(0))
                sizes[i].add(cache.stats())
    return [
        Evaluation(
            scheme=config.scheme,
            quality=Quality.of(np.concatenate(part), seed),
            ratio_records=size.block_fp16 / max(1, size.records),
            ratio_held=size.fp16 / max(1, size.held),
            raw_fallbacks=size.raw_fallbacks,
            blocks=size.blocks,
        )
        for config, part, size in zip(configs, sums, sizes, strict=True)
    ]


def score_text(
    model: Any,
    rows: torch.Tensor,
    exact: Any,
    caches: Sequence[Any],
    config: CacheConfig,
    progress: Progress = lambda tokens: None,
) -> list[Floats]:
    """(chunks, rows, SUMS) of each cache against `exact`; all hold the same tokens already, or none.

    rows: (n, positions) int64, what follows those tokens. Every position but the last predicts the one after it.
    """
    sums: list[list[Floats]] = [[] for _ in caches]
    past, end = exact.get_seq_length(), rows.shape[1]
    uncoded = config.sinks + config.recent
    for low, high in chunks(past, past + end, uncoded, config.block_tokens):
        ids = rows[:, low - past : high - past].to(model.device)
        targets = rows[:, low - past + 1 : high - past + 1].to(model.device)
        scored = targets.shape[1]
        want = _log_probabilities(model, ids, exact)[:, :scored]
        for cache, parts in zip(caches, sums, strict=True):
            got = _log_probabilities(model, ids, cache)[:, :scored]
            parts.append(score(want, got, targets))
        progress(len(rows) * scored)
    return [np.stack(parts) for parts in sums]


def _log_probabilities(model: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    return torch.log_softmax(forward(model, ids, cache).float(), dim=-1)
