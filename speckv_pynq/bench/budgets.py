"""L1 budgets as shares of a cache."""

from __future__ import annotations

from typing import Any

from speckv_pynq import spec
from speckv_pynq.integrations._model import ModelShape
from speckv_pynq.integrations.transformers import CacheConfig


def l1_share_bytes(model: Any, config: CacheConfig, tokens: int, share: float) -> int:
    """Bytes of L1 that hold `share` of the blocks of `tokens` tokens of one sequence, decoded, in all layers."""
    shape = ModelShape.of(model)
    element = spec.DTYPE_BYTES[config.block_dtype_for(shape.dtype)]
    block = 2 * config.block_tokens * shape.heads * shape.head_dim * element
    blocks = shape.layers * (max(0, tokens - config.sinks - config.recent) // config.block_tokens)
    return int(share * blocks) * block
