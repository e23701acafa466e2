"""Queries and keys of a model's decoding steps, recorded, and the attention that each block of keys gets by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq.errors import ConfigError

NAME = "speckv_recorded"  # of the attention function, while a model has it


@dataclass(frozen=True)
class AttentionTrace:
    """One sequence of which the last `steps` tokens count as decoded, teacher-forced; RoPE is applied.

    tokens: (n,) int64. queries: (layers, steps, q_heads, head_dim) float16. keys: (layers, kv_heads, n, head_dim)
    float16. scale: of the dot products.
    """

    tokens: npt.NDArray[np.int64]
    queries: npt.NDArray[np.float16]
    keys: npt.NDArray[np.float16]
    scale: float

    @property
    def first(self) -> int:
        """Position of the first step."""
        return len(self.tokens) - self.queries.shape[1]

    def mass(self, layer: int, block_tokens: int) -> npt.NDArray[np.float32]:
        """(steps, q_heads, blocks) float32: the share of each query's attention in each block, 0 behind the step."""
        queries = torch.from_numpy(self.queries[layer]).float().transpose(0, 1)
        keys = torch.from_numpy(self.keys[layer]).float()
        heads, steps, _ = queries.shape
        tokens = keys.shape[1]
        out = np.zeros((steps, heads, -(-tokens // block_tokens)), np.float32)
        later = torch.arange(tokens) > torch.arange(self.first, tokens)[:, None]
        group = heads // len(keys)
        for head in range(heads):
            scores = queries[head] @ keys[head // group].T * self.scale
            shares = torch.softmax(scores.masked_fill_(later, -torch.inf), -1).numpy()
            starts = np.arange(0, tokens, block_tokens)
            out[:, head] = np.add.reduceat(shares, starts, axis=1)
        return out


def record(model: Any, tokens: torch.Tensor, steps: int) -> AttentionTrace:
    """One forward pass over (n,) int64 tokens, without a cache."""
    if not 0 < steps < len(tokens):
        raise ConfigError(f"steps {steps} is not within 1..{len(tokens) - 1}, the tokens less one")
    layers: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    with _recorded(model, layers, steps), torch.inference_mode():
        model.base_model(tokens[None].to(model.device), use_cache=False)
    if not layers:
        raise ConfigError(f"{type(model).__name__} does not take another attention function")
    return AttentionTrace(
        tokens.numpy(),
        np.stack([queries.numpy() for queries, _, _ in layers]),
        np.stack([keys.numpy() for _, keys, _ in layers]),
        layers[0][2],
    )


@contextmanager
def _recorded(
    model: Any, layers: list[tuple[torch.Tensor, torch.Tensor, float]], steps: int
) -> Iterator[None]:
    """Each attention layer's queries, (steps, q_heads, head_dim), and keys are added to `layers`."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def attention(
        module: Any, query: Any, key: Any, value: Any, mask: Any, **named: Any
    ) -> tuple[Any, Any]:
        scale = named.get("scaling") or query.shape[-1] ** -0.5
        wanted = query[0, :, -steps:].transpose(0, 1)
        layers.append((wanted.half().cpu(), key[0].half().cpu(), float(scale)))
        return sdpa_attention_forward(module, query, key, value, mask, **named)

    before = model.config._attn_implementation
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
