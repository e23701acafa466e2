"""One attention layer of a SpecKV cache, as transformers sees it; what it holds is its span's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import CacheLayerMixin

from speckv_pynq.errors import ConfigError, ShapeError, SpeckvError, UnsupportedLayer
from speckv_pynq.integrations._model import DTYPES
from speckv_pynq.integrations._span import Span
from speckv_pynq.integrations._store import State, Store
from speckv_pynq.spec import DType


class SpecKVLayer(CacheLayerMixin):
    """A full-attention layer whose full blocks are coded, maybe together with those of its neighbours.

    Operations on a whole cache ask each layer in turn: of the layers of a span, the last one acts for all.
    """

    is_sliding = False
    is_croppable = True
    is_compileable = False

    def __init__(self, index: int, store: Store, span: Span) -> None:
        super().__init__()
        self.index = index
        self._store, self._span = store, span
        self._member = index - span.first
        self._acts = self._member == span.count - 1

    # ---- the interface of transformers

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = (self._store.heads, self._store.head_dim)
        for name, states in (("keys", key_states), ("values", value_states)):
            if (states.shape[1], states.shape[3]) != shape:
                raise UnsupportedLayer(
                    f"layer {self.index}: {name} have {states.shape[1]} heads of {states.shape[3]}, "
                    f"the cache was made for {shape[0]} heads of {shape[1]}, the same for keys and values"
                )
        block_dtype = self._store.tiers.shape.dtype
        fits = block_dtype in (DType.FP32, DTYPES.get(key_states.dtype))
        if key_states.dtype != self._store.dtype and not fits:
            raise ConfigError(
                f"layer {self.index} gives {key_states.dtype}, the cache was made for a model of {self._store.dtype} "
                f"with {block_dtype.name.lower()} blocks: make it for the model itself, or state block_dtype"
            )
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (rows, heads, tokens, head_dim) K and V; returns those of the whole sequence.

        The first tokens come back as they are. Later results are views of a workspace: they hold until the
        span's next forward pass, or any other span's where the workspace is shared.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._check_input(key_states, value_states)
        return self._span.update(self._member, key_states, value_states)

    def get_seq_length(self) -> int:
        return self._store.lengths[self.index]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        """Drops everything; the next update is a first one."""
        self.is_initialized = False
        if self._acts:
            self._span.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove tokens; a positive number is the length to keep, as before 5.20."""
        if self._acts:
            self._span.crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.Tensor | Sequence[int]) -> None:
        """Row i becomes what row beam_idx[i] is. Records stay where they are: only references move."""
        if self._acts:
            rows = beam_idx.tolist() if isinstance(beam_idx, torch.Tensor) else list(beam_idx)
            self._span.select(rows)

    def batch_select_indices(self, indices: Any) -> None:
        if self.state is not None:
            self.reorder_cache(torch.arange(self.state.layout.rows)[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.state is not None:
            rows = torch.arange(self.state.layout.rows)
            self.reorder_cache(rows.repeat_interleave(repeats))

    # ---- for the cache around it

    @property
    def state(self) -> State | None:
        """What its span holds."""
        return self._span.state

    def fork_of(self, other: SpecKVLayer) -> None:
        """Takes over what `other` holds."""
        if other.state is None:
            return
        self.is_initialized, self.dtype, self.device = True, other.dtype, other.device
        if self._acts:
            self._span.fork_of(other._span)

    # ---- inside

    def _check_input(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows = self._span.rows
        rows = key_states.shape[0] if rows is None else rows
        shape = (rows, self._store.heads, key_states.shape[2], self._store.head_dim)
        for states in (key_states, value_states):
            if states.shape != shape or states.dtype != self.dtype or states.device != self.device:
                raise ShapeError(
                    f"layer {self.index}: K or V is {tuple(states.shape)} {states.dtype} on {states.device}; the "
                    f"cache holds {shape} {self.dtype} on {self.device}"
                )
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            raise SpeckvError("the cache cannot be trained through: use torch.no_grad()")
