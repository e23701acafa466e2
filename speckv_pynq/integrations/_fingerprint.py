"""Names a model by what its cache comes from: equal however the same weights were rounded when loaded."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from speckv_pynq.integrations._model import ModelShape

# Words in the names of weights that make keys and values, in the models of transformers.
PROJECTIONS = ("k_proj", "v_proj", "kv_proj", "qkv", "query_key_value", "c_attn", "wqkv")


def model_fingerprint(model: Any) -> str:
    """16 hexadecimal digits: of the shape of the cache, RoPE, and the signs of all weights that make keys and values.

    A weight keeps its sign bit in every rounding to FP16, BF16 or back, even where it becomes 0; training changes
    the signs of some of so many.
    """
    shape = ModelShape.of(model)
    facts = [shape.architecture, shape.layers, shape.heads, shape.head_dim, shape.rope]
    digest = hashlib.sha256(json.dumps(["speckv-model", 1, facts]).encode())
    for name, weight in sorted(_weights(model).items()):
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(_signs(weight.detach()))
    return digest.hexdigest()[:16]


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """Those of PROJECTIONS; in a model that has none, all but the embeddings."""
    named = {n: p for n, p in model.named_parameters() if p.is_floating_point()}
    chosen = {n: p for n, p in named.items() if any(word in n.lower() for word in PROJECTIONS)}
    if chosen:
        return chosen
    embedding = model.get_input_embeddings().weight
    return {n: p for n, p in named.items() if p.shape != embedding.shape}


def _signs(weight: torch.Tensor) -> bytes:
    """Sign bits, eight a byte."""
    bits = torch.signbit(weight).flatten().to(torch.uint8)
    bits = torch.cat([bits, bits.new_zeros(-len(bits) % 8)]).view(-1, 8)
    powers = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=bits.device)
    return (bits * powers).sum(1, dtype=torch.uint8).cpu().numpy().tobytes()
