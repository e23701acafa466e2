"""Conversations that begin with the same prompt, on one system: what is held with and without being told so."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from speckv_pynq.bench.models import Loaded
from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations._forward import forward
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache


@dataclass(frozen=True)
class Sharing:
    """blocks: held by all; prompt_blocks, own_blocks: of one conversation's prompt and of the rest of it."""

    conversations: int
    prompt_tokens: int
    own_tokens: int
    blocks: int
    prompt_blocks: int
    own_blocks: int
    record_bytes: int

    @property
    def prompt_copies(self) -> float:
        """Times that the prompt is held: 1 where it is held once."""
        return (self.blocks - self.conversations * self.own_blocks) / self.prompt_blocks

    @property
    def smaller(self) -> float:
        """Blocks that would be held with nothing shared, over those that are."""
        return self.conversations * (self.prompt_blocks + self.own_blocks) / self.blocks


@torch.inference_mode()
def measure(
    loaded: Loaded,
    ids: torch.Tensor,
    conversations: int,
    own_tokens: int,
    config: CacheConfig,
    progress: Callable[[], None] = lambda: None,
) -> Sharing:
    """ids: (tokens,) int64: the prompt, then own_tokens for each conversation. All of it goes through the model."""
    prompt_tokens = len(ids) - conversations * own_tokens
    if prompt_tokens < config.sinks + config.block_tokens:
        raise ConfigError(
            f"a prompt of {prompt_tokens} tokens has no block: {config.sinks} sinks, then blocks of "
            f"{config.block_tokens}"
        )
    prompt, rest = ids[:prompt_tokens], ids[prompt_tokens:]
    counts = []
    with ExitStack() as stack:
        # Decoded copies of every conversation would take far more than the records that are counted here.
        records_alone = replace(config, l1_bytes=0)
        first = stack.enter_context(SpecKVCache.for_model(loaded.model, records_alone))
        caches = [first, *(stack.enter_context(first.sibling()) for _ in range(conversations - 1))]
        for cache, own in zip(caches, rest.split(own_tokens), strict=True):
            text = torch.cat([prompt, own])[None].to(loaded.model.device)
            cache.tell_tokens(text)
            forward(loaded.model, text, cache, last=1)
            counts.append(first.system.stats().tiers.blocks)
            progress()
        system = first.system
        spans = system.geometry.layers // system.span_layers
        in_prompt = (prompt_tokens - config.sinks) // config.block_tokens * spans
        return Sharing(
            conversations=conversations,
            prompt_tokens=prompt_tokens,
            own_tokens=own_tokens,
            blocks=counts[-1],
            prompt_blocks=in_prompt,
            own_blocks=counts[0] - in_prompt,
            record_bytes=system.stats().tiers.record_bytes,
        )
