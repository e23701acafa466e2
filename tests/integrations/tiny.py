"""A tiny random Llama with grouped-query attention, and caches for it."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache

torch.set_num_threads(1)  # models this small lose by threads, the more the busier the machine is

LAYERS, HEADS, HEAD_DIM, VOCABULARY = 3, 2, 64, 97
RAW = CacheConfig(scheme="raw")


def config(**changes: Any) -> LlamaConfig:
    settings = {
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_DIM,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 128,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
    }
    return LlamaConfig(**(settings | changes))


@functools.cache
def model(
    dtype: torch.dtype = torch.float32, attention: str = "sdpa", seed: int = 0, spread: float = 0.2
) -> Any:
    """One model per argument; only ever read. spread: of its weights; 0.2 makes tokens depend on the whole context."""
    torch.manual_seed(seed)
    settings = config(initializer_range=spread)
    made = LlamaForCausalLM._from_config(settings, attn_implementation=attention)
    return made.to(dtype).eval()


def prompt(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """(rows, tokens) token ids without the padding token."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, VOCABULARY, (rows, tokens), generator=generator)


def padded(lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Prompts of these lengths, padded on the left, with their mask."""
    longest = max(lengths)
    ids = prompt(len(lengths), longest, seed)
    mask = torch.ones_like(ids)
    for row, length in enumerate(lengths):
        ids[row, : longest - length] = 0
        mask[row, : longest - length] = 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(made: Any, cache: Any, inputs: Any, **settings: Any) -> torch.Tensor:
    """Token ids of model.generate with this cache, greedy unless told otherwise."""
    if isinstance(inputs, torch.Tensor):
        inputs = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer releases prefer `cache` to `past_key_values`
        return made.generate(**inputs, past_key_values=cache, **({"do_sample": False} | settings))


def logits(made: Any, cache: Any, ids: torch.Tensor, **more: Any) -> torch.Tensor:
    """Logits of one forward pass over `ids` behind what the cache holds."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return made(ids, past_key_values=cache, use_cache=True, **more).logits


def raw_cache(made: Any, **settings: Any) -> SpecKVCache:
    return SpecKVCache.for_model(made, RAW, **settings)
