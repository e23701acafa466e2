"""What the cache must know of a transformers model, and which models it refuses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import get_layer_types_and_kwargs

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError, UnsupportedLayer

SUPPORTED = (
    "supported: decoder-only models whose layers are all 'full_attention' with keys and values of one head_dim of "
    f"{spec.HEAD_DIM_ALLOWED}"
)
DTYPES = {
    torch.float16: spec.DType.FP16,
    torch.bfloat16: spec.DType.BF16,
    torch.float32: spec.DType.FP32,
}
SHARING_FIELDS = ("num_kv_shared_layers", "kv_sharing_modes")


def torch_dtype(dtype: spec.DType) -> torch.dtype:
    """The torch dtype of a block's element type."""
    return next(theirs for theirs, ours in DTYPES.items() if ours == dtype)


@dataclass(frozen=True)
class ModelShape:
    """The shape of a model's cache; rope and names are what the layout fingerprint covers besides."""

    layers: int
    heads: int
    head_dim: int
    dtype: spec.DType
    architecture: str
    rope: str

    @staticmethod
    def of(model_or_config: Any) -> ModelShape:
        """From a model, or from its config (dtype as the config states it). UnsupportedLayer where it does not fit."""
        config = getattr(model_or_config, "config", model_or_config)
        if getattr(config, "is_encoder_decoder", False):
            raise UnsupportedLayer(f"{config.model_type} is an encoder-decoder model; {SUPPORTED}")
        text = config.get_text_config(decoder=True)
        kinds, _ = get_layer_types_and_kwargs(text)
        _check_kinds(text, kinds)
        heads, head_dim = _check_widths(text)
        dtype = getattr(model_or_config, "dtype", None) or getattr(config, "dtype", None)
        return ModelShape(
            layers=len(kinds),
            heads=heads,
            head_dim=head_dim,
            dtype=_dtype(dtype),
            architecture=f"{text.model_type}/{','.join(config.architectures or [])}",
            rope=_rope(text),
        )

    @property
    def varies_with_length(self) -> bool:
        """Whether the keys of a token depend on how long its sequence is, and not only on the tokens before it."""
        return any(kind in self.rope for kind in ("dynamic", "longrope"))

    def fingerprint(self, block_dtype: spec.DType, block_tokens: int) -> int:
        """64 bits of SHA-256 over everything that must agree for a record to make sense; never 0."""
        facts = [
            ["speckv-layout", 1],
            [self.architecture, self.layers, self.heads, self.head_dim, self.rope],
            [block_dtype.name, block_tokens],
        ]
        digest = hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).digest()
        return int.from_bytes(digest[:8], "little") or 1


def _heads(text: Any) -> tuple[int, int]:
    """KV heads and their head_dim."""
    query_heads = text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or query_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // query_heads
    return int(heads), int(head_dim)


def _check_kinds(text: Any, kinds: list[str]) -> None:
    for i, kind in enumerate(kinds):
        if kind != "full_attention":
            raise UnsupportedLayer(f"layer {i}: {kind}; {SUPPORTED}")
    for name in SHARING_FIELDS:
        shared = getattr(text, name, None)
        if shared:
            raise UnsupportedLayer(
                f"layer {len(kinds) - 1}: shared K and V ({name}={shared}); {SUPPORTED}"
            )


def _check_widths(text: Any) -> tuple[int, int]:
    """KV heads and head_dim, the same in all layers."""
    if not getattr(text, "num_attention_heads", None):
        raise UnsupportedLayer(f"layer 0: {text.model_type} without attention heads; {SUPPORTED}")
    heads, head_dim = _heads(text)
    value_dim = getattr(text, "v_head_dim", None) or head_dim
    if getattr(text, "kv_lora_rank", None) or value_dim != head_dim:
        raise UnsupportedLayer(f"layer 0: latent attention or values of another width; {SUPPORTED}")
    if head_dim not in spec.HEAD_DIM_ALLOWED:
        raise UnsupportedLayer(f"layer 0: full_attention of head_dim {head_dim}; {SUPPORTED}")
    for i, layer in enumerate(getattr(text, "per_layer_config", None) or ()):
        if _heads(layer) != (heads, head_dim):
            raise UnsupportedLayer(
                f"layer {i}: (heads, head_dim) {_heads(layer)}, elsewhere {(heads, head_dim)}; {SUPPORTED}"
            )
    return heads, head_dim


def _dtype(dtype: Any) -> spec.DType:
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in DTYPES:
        raise ConfigError(f"the model's dtype is {dtype}; caches are {[str(d) for d in DTYPES]}")
    return DTYPES[dtype]


def _rope(text: Any) -> str:
    """RoPE parameters in one spelling; angles of some kinds depend on the model's maximum length too."""
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    facts = {
        "rope": dict(rope),
        "theta": getattr(text, "rope_theta", None),
        "partial": getattr(text, "partial_rotary_factor", None),
        "max": getattr(text, "max_position_embeddings", None) if len(rope) > 2 else None,
    }
    return json.dumps(facts, sort_keys=True, default=str)
