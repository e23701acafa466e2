"""Calls a model with a cache, by whichever name its release has for that."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch


@functools.lru_cache(maxsize=4)  # once a model class, not once a token
def cache_argument(kind: Any) -> str:
    """transformers 5.2x renames past_key_values to cache, and warns about the old name."""
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


def forward(model: Any, ids: torch.Tensor, cache: Any, last: int = 0) -> torch.Tensor:
    """Logits of (rows, tokens) ids that continue what `cache` holds; last: of so many last positions (0: of all)."""
    named = {cache_argument(model.__class__): cache}
    logits: torch.Tensor = model(input_ids=ids, use_cache=True, logits_to_keep=last, **named).logits
    return logits
