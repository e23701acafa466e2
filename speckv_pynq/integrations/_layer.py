"""One attention layer of a SpecKV cache: coded blocks in the tiers, exact tokens in two small tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import CacheLayerMixin

from speckv_pynq.errors import ConfigError, ShapeError, SpeckvError, UnsupportedLayer
from speckv_pynq.integrations._layout import Append, Crop
from speckv_pynq.integrations._model import DTYPES
from speckv_pynq.integrations._store import Handles, State, Store, allocate, fitted, selected
from speckv_pynq.integrations._workspace import Standing
from speckv_pynq.spec import DType
from speckv_pynq.tiers import StridedKV


class SpecKVLayer(CacheLayerMixin):
    """A full-attention layer whose full blocks are coded; see `Layout` for what stands where."""

    is_sliding = False
    is_croppable = True
    is_compileable = False

    def __init__(self, index: int, store: Store) -> None:
        super().__init__()
        self.index = index
        self._store = store
        self._workspace = store.workspace_of(index)
        self._state: State | None = None

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
        next update, of any layer where the workspace is shared.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._check_input(key_states, value_states)
        state, tokens = self._state, key_states.shape[2]
        self._check_turn(tokens)
        if state is None:
            if tokens:
                origin = self._store.empty(key_states.shape[0]).append(tokens)
                self._store_blocks(origin, key_states, value_states, None)
            return key_states, value_states
        origin, old = state.layout.append(tokens), state.layout.length
        workspace = self._workspace
        self._read(state, tokens)
        workspace.part(old, tokens)[0].copy_(key_states)
        workspace.part(old, tokens)[1].copy_(value_states)
        keys, values = workspace.read(old + tokens)
        if len(origin.rows):
            self._store_blocks(origin, keys, values, state)
        else:
            self._set(self._extended(state, origin, key_states, value_states))
        return keys, values

    def get_seq_length(self) -> int:
        return 0 if self._state is None else self._state.layout.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        """Drops everything; the next update is a first one."""
        state = self._state
        self._set(None)
        if self._workspace.private:
            self._workspace.free()
        self.is_initialized = False
        if state is not None and len(state.handles):
            self._store.tiers.release(state.handles)

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove tokens; a positive number is the length to keep, as before 5.20."""
        state = self._state
        if state is None or tokens_to_remove == 0:
            return
        length = state.layout.length
        tokens = length - tokens_to_remove if tokens_to_remove > 0 else -tokens_to_remove
        if tokens <= 0:
            return
        if tokens >= length:
            self.reset()
            return
        plan = state.layout.crop(tokens)
        kept = self._frozen(state, plan) if len(plan.freeze) else state.kept
        self._set(State(plan.after, state.handles[plan.stay], kept, state.open, plan))
        if len(plan.go):
            self._store.tiers.release(state.handles[plan.go])

    def reorder_cache(self, beam_idx: torch.Tensor | Sequence[int]) -> None:
        """Row i becomes what row beam_idx[i] is. Records stay where they are: only references move."""
        state = self._state
        if state is None:
            return
        rows = beam_idx.tolist() if isinstance(beam_idx, torch.Tensor) else list(beam_idx)
        count = state.layout.rows
        if rows == list(range(count)):
            return
        if not rows or min(rows) < 0 or max(rows) >= count:
            raise ConfigError(f"rows {rows} to keep: none, or not within 0..{count - 1}")
        plan = state.layout.select(rows)
        handles = state.handles[plan.blocks]
        kept, opened = selected(state.kept, rows), selected(state.open, rows)
        if len(handles):
            self._store.tiers.retain(handles)
        self._set(State(plan.after, handles, kept, opened, plan))
        if len(state.handles):
            self._store.tiers.release(state.handles)

    def batch_select_indices(self, indices: Any) -> None:
        if self._state is not None:
            self.reorder_cache(torch.arange(self._state.layout.rows)[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self._state is not None:
            self.reorder_cache(torch.arange(self._state.layout.rows).repeat_interleave(repeats))

    # ---- for the cache around it

    @property
    def state(self) -> State | None:
        return self._state

    def fork_of(self, other: SpecKVLayer) -> None:
        """Takes over what `other` holds: its records by reference, its exact tokens as a copy."""
        state = other._state
        if state is None:
            return
        kept, opened = state.kept.clone(), state.open.clone()
        if len(state.handles):
            self._store.tiers.retain(state.handles)
        self.is_initialized, self.dtype, self.device = True, other.dtype, other.device
        self._set(state._replace(kept=kept, open=opened))

    # ---- inside

    def _set(self, state: State | None) -> None:
        self._state = state
        self._store.lengths[self.index] = 0 if state is None else state.layout.length

    def _check_input(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows = key_states.shape[0] if self._state is None else self._state.layout.rows
        shape = (rows, self._store.heads, key_states.shape[2], self._store.head_dim)
        for states in (key_states, value_states):
            if states.shape != shape or states.dtype != self.dtype or states.device != self.device:
                raise ShapeError(
                    f"layer {self.index}: K or V is {tuple(states.shape)} {states.dtype} on {states.device}; the "
                    f"cache holds {shape} {self.dtype} on {self.device}"
                )
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            raise SpeckvError("the cache cannot be trained through: use torch.no_grad()")

    def _check_turn(self, tokens: int) -> None:
        store = self._store
        store.check()
        if self.index:
            before, now = store.lengths[self.index - 1], store.lengths[self.index]
            if before not in (now, now + tokens):
                raise SpeckvError(
                    f"layer {self.index} holds {now} tokens and layer {self.index - 1} already {before}: an earlier "
                    f"forward pass stopped half-way; crop({min(store.lengths)}) or reset() the cache"
                )

    def _read(self, state: State, extra: int) -> None:
        """Fills the workspace with the sequence; `extra` positions behind it are the caller's."""
        layout, workspace = state.layout, self._workspace
        room = max(layout.length + extra, layout.capacity)
        workspace.reserve(layout.rows, room, self.dtype, self.device)
        if len(state.handles):
            self._fetch(state)
            for cut in layout.cuts:
                row = workspace.host[:, cut.row]
                part = row.narrow(2, cut.scratch, cut.tokens)
                row.narrow(2, cut.start, cut.tokens).copy_(part)
            workspace.upload(layout.coded_end)
        groups = layout.groups
        for group in groups:
            kept, opened, rows = state.kept, state.open, None
            if len(groups) > 1:
                rows = group.first_row, group.end_row
                kept, opened = kept[:, slice(*rows)], opened[:, slice(*rows)]
            index = 0
            for start, tokens in group.kept:
                part = kept if kept.shape[3] == tokens else kept.narrow(3, index, tokens)
                workspace.part(start, tokens, rows).copy_(part)
                index += tokens
            start, tokens = group.open_start, layout.length - group.open_start
            if tokens:
                part = opened.narrow(3, start - layout.open_base, tokens)
                workspace.part(start, tokens, rows).copy_(part)

    def _fetch(self, state: State) -> None:
        """Brings the coded blocks to the workspace, but those that stand in it already. A cut one never stays."""
        layout, store, workspace = state.layout, self._store, self._workspace
        if not workspace.private:
            store.tiers.get(state.handles, *layout.fetch_places, workspace.target)
            return
        standing = workspace.standing
        if standing is not None and standing.handles is state.handles and not layout.cuts:
            store.standing_hits += len(state.handles)  # most steps: only the open run has grown
            return
        wanted = Standing(state.handles, *layout.fetch_places)
        missing = workspace.missing(wanted)
        if layout.cuts:
            cut = np.flatnonzero(layout.block_valid < layout.block_tokens)
            missing = np.union1d(missing, cut)
        workspace.standing = None
        if len(missing):
            handles, rows, places = (part[missing] for part in wanted)
            store.tiers.get(handles, rows, places, workspace.target)
        workspace.standing = wanted
        store.standing_hits += len(state.handles) - len(missing)

    def _extended(
        self, state: State, origin: Append, keys: torch.Tensor, values: torch.Tensor
    ) -> State:
        """The state with more open tokens. They are written behind the old ones, which stay as they are."""
        layout = state.layout
        at, tokens = layout.length - layout.open_base, keys.shape[2]
        opened = fitted(state.open, at + tokens, used=at)
        new_keys, new_values = opened.narrow(3, at, tokens).unbind(0)
        self._keep(new_keys, keys)
        self._keep(new_values, values)
        return State(origin.after, state.handles, state.kept, opened, origin)

    def _store_blocks(
        self, origin: Append, keys: torch.Tensor, values: torch.Tensor, state: State | None
    ) -> None:
        """Codes the blocks that an append filled; keys, values: the whole sequence, exact where it is open.

        What the old state holds is not written to, so a failure leaves the layer as it was.
        """
        after, store = origin.after, self._store
        nothing = allocate(
            after.rows, store.heads, 0, store.head_dim, store.exact_dtype, self.device
        )
        kept, handles = nothing, np.empty(0, np.uint64)
        if state is not None:
            kept, handles = state.kept, state.handles
        kept = fitted(kept, after.kept_tokens, used=kept.shape[3])
        opened = fitted(nothing, after.length - after.open_base, used=0)
        for kind, states in enumerate((keys, values)):
            for keep in origin.keeps:
                rows = slice(keep.first_row, keep.end_row)
                part = states[rows].narrow(2, keep.start, keep.tokens)
                self._keep(kept[kind, rows].narrow(2, keep.index, keep.tokens), part)
            part = states.narrow(2, after.open_base, after.length - after.open_base)
            self._keep(opened[kind].narrow(2, 0, part.shape[2]), part)
        if len(origin.rows):
            handles = np.concatenate([handles, self._put(origin, keys, values)])
        self._set(State(after, handles, kept, opened, origin))

    def _put(self, origin: Append, keys: torch.Tensor, values: torch.Tensor) -> Handles:
        """Codes the blocks that an append filled, all or none."""
        starts = origin.starts
        if keys.device.type != "cpu":
            first, end = int(starts.min()), int(starts.max()) + self._store.block_tokens
            keys, values = keys[:, :, first:end].cpu(), values[:, :, first:end].cpu()
            starts = starts - first
        padding = np.array(origin.after.padding)[origin.rows]
        # A row's own positions, as its RoPE has them; those of padding mean nothing.
        positions = np.maximum(origin.starts - padding, 0).astype(np.uint32)
        tiers = self._store.tiers
        before = tiers.stats().overflows
        handles = tiers.put(self.index, positions, origin.rows, starts, StridedKV.of(keys, values))
        if tiers.stats().overflows != before:
            tiers.release(handles)
            raise ConfigError(self._overflow(keys, values))
        return handles

    def _keep(self, exact: torch.Tensor, states: torch.Tensor) -> None:
        """Copies tokens to where they are held uncoded; ConfigError when a finite value does not fit there."""
        exact.copy_(states)
        if exact.dtype == states.dtype or not states.numel():
            return
        if float(torch.linalg.vector_norm(states, math.inf)) < torch.finfo(exact.dtype).max:
            return
        if bool((exact.isinf() & states.isfinite()).any()):
            raise ConfigError(self._overflow(states))

    def _overflow(self, *tensors: torch.Tensor) -> str:
        largest = max(states[states.isfinite()].abs().max().item() for states in tensors)
        return (
            f"layer {self.index}: a value of magnitude {largest:g} is too large for "
            f'{self._store.tiers.shape.dtype.name.lower()} blocks; use block_dtype="bf16"'
        )

    def _frozen(self, state: State, plan: Crop) -> torch.Tensor:
        """The kept tokens, with the decoded rest of the blocks of which a crop leaves little."""
        workspace, layout = self._workspace, state.layout
        rows, starts = layout.block_rows[plan.freeze], layout.block_starts[plan.freeze]
        room = int(starts.max()) + layout.block_tokens
        workspace.reserve(layout.rows, room, self.dtype, self.device)
        self._store.tiers.get(state.handles[plan.freeze], rows, starts, workspace.target)
        kept = fitted(state.kept, plan.after.kept_tokens, used=state.kept.shape[3])
        for keep in plan.keeps:
            part = workspace.host[:, keep.first_row].narrow(2, keep.start, keep.tokens)
            kept[:, keep.first_row].narrow(2, keep.index, keep.tokens).copy_(part)
        return kept
