"""The process that `bench.memory` measures: fills a cache without a model and prints what it takes, as JSON."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict

import torch
from transformers import LlamaConfig

from speckv_pynq.bench.budgets import l1_share_bytes
from speckv_pynq.bench.machine import pss_bytes
from speckv_pynq.bench.memory import Memory, Settings
from speckv_pynq.integrations.transformers import CacheConfig, CacheStats, SpecKVCache


def main(argument: str) -> None:
    settings = Settings(**json.loads(argument))
    model = LlamaConfig(
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.head_dim,
        hidden_size=settings.heads * settings.head_dim,
        dtype="float16",
    )
    config = CacheConfig(scheme=settings.scheme)
    share = min(1.0, settings.l1_layers / settings.layers)
    l1_bytes = l1_share_bytes(model, config, settings.tokens, share)
    config = CacheConfig(scheme=settings.scheme, l1_bytes=l1_bytes)
    with SpecKVCache.for_model(
        model, config
    ) as warm_up:  # code and threads are not the cache's memory
        _fill(warm_up, settings, 4 * config.block_tokens)
    _release()
    before = pss_bytes()
    with SpecKVCache.for_model(model, config) as cache:
        _fill(cache, settings, settings.tokens)
        _release()
        grown = pss_bytes() - before
        print(json.dumps(asdict(_counted(settings, cache.stats(), grown))))


def _release() -> None:
    """Garbage, and what the allocator keeps of freed inputs, is not the cache's memory either."""
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@torch.inference_mode()
def _fill(cache: SpecKVCache, settings: Settings, tokens: int) -> None:
    """Normal values with a scale of their own for each channel: no codec can fold them into less."""
    generator = torch.Generator().manual_seed(settings.seed)
    scale = torch.rand((1, settings.heads, 1, settings.head_dim), generator=generator) + 0.1
    for start in range(0, tokens, settings.chunk_tokens):
        n = min(settings.chunk_tokens, tokens - start)
        shape = (1, settings.heads, n, settings.head_dim)
        for layer in cache.layers:
            keys = (torch.randn(shape, generator=generator) * scale).half()
            layer.update(keys, keys * 0.5)


def _counted(settings: Settings, stats: CacheStats, pss: int) -> Memory:
    tiers = stats.tiers
    metadata = stats.held_bytes - tiers.l3_bytes - stats.exact_bytes
    parts = (tiers.l1_bytes, tiers.l2_bytes, tiers.l3_bytes, metadata, stats.exact_bytes)
    return Memory(
        settings.scheme,
        pss,
        sum(parts) + stats.workspace_bytes,
        *parts,
        workspace=stats.workspace_bytes,
        fp16=stats.fp16_bytes,
    )


if __name__ == "__main__":
    main(sys.argv[1])
