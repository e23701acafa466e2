"""The attention that sparse caches need: transformers' own, but where a cache has tokens to choose it asks the cache.

A cache's `update` never sees the query, so it answers with keys that carry a `Reader`; the attention function finds it
there and reads what is to be read. Keys without one go to transformers' sdpa attention as they are.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from speckv_pynq.errors import UnsupportedLayer

NAME = "speckv_sparse"
_READER = "_speckv_reader"
# What some models ask of attention beside a mask: it would have to be told which positions were chosen.
_REFUSED = ("sliding_window", "softcap", "s_aux", "position_bias")

Output = tuple[torch.Tensor, None]


class Reader(Protocol):
    """What stands behind the keys of one layer in one forward pass."""

    @property
    def layer(self) -> int: ...

    def read(
        self, query: torch.Tensor, mask: torch.Tensor | None, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keys, values and mask to attend to."""


def use(model: Any) -> None:
    """Makes a transformers model call `attend` in all layers; harmless when repeated.

    Without a sparse cache it computes what it does with "sdpa". UnsupportedLayer where a model's attention cannot be
    replaced, or is not of the kind that sdpa computes.
    """
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    kind = type(model).__name__
    changes = getattr(model, "set_attn_implementation", None)
    if changes is None or not getattr(model, "_supports_sdpa", False):
        raise UnsupportedLayer(
            f"{kind}: sparse attention needs a transformers model that supports sdpa attention"
        )
    if model._can_set_attn_implementation():
        changes(NAME)
    if model.config.get_text_config(decoder=True)._attn_implementation != NAME:
        raise UnsupportedLayer(
            f"{kind}: its attention cannot be replaced (it does not go through transformers' AttentionInterface), and "
            'sparse attention needs that; use attention="dense"'
        )


def carrying(keys: torch.Tensor, reader: Reader) -> torch.Tensor:
    """These keys, for `attend` to find the reader at."""
    carrier = keys[:]  # what was given stays as it is
    setattr(carrier, _READER, reader)
    return carrier


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> Output:
    """An attention function of transformers; query: (rows, query heads, tokens, head_dim)."""
    reader: Reader | None = getattr(key, _READER, None)
    scaling = query.shape[3] ** -0.5 if scaling is None else scaling
    if reader is not None:
        for name in _REFUSED:
            if more.get(name) is not None:
                raise UnsupportedLayer(
                    f'layer {reader.layer}: attention with {name}; use attention="dense"'
                )
        key, value, attention_mask = reader.read(query, attention_mask, scaling)
    done: Output = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout, scaling, **more
    )
    return done


def shares(
    query: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """What part of attention each key gets: (rows, tokens, keys) float32, mean over query heads, 1 in all.

    query: (rows, query heads, tokens, head_dim); keys: (rows, KV heads, n, head_dim); mask: as sdpa takes it.
    """
    rows, heads, tokens, head_dim = query.shape
    grouped = query.reshape(rows, keys.shape[1], -1, head_dim)
    scores = (grouped @ keys.transpose(2, 3)).float() * scaling
    scores = scores.view(rows, heads, tokens, keys.shape[2])
    if mask is not None:
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    return torch.softmax(scores, -1).nan_to_num_(0.0).mean(1)  # a row of padding sees nothing
