"""Consecutive layers whose blocks share records: one layer, or as many as a codebook joins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from speckv_pynq.errors import ConfigError, SpeckvError
from speckv_pynq.integrations._attention import carrying
from speckv_pynq.integrations._layout import Append, Crop
from speckv_pynq.integrations._sparse import Sparse, StepReader, WholeReader, placeholder
from speckv_pynq.integrations._store import Handles, State, Store, allocate, fitted, selected
from speckv_pynq.integrations._workspace import Standing
from speckv_pynq.spec import DType
from speckv_pynq.tiers import StridedKV

_NONE: Handles = np.empty(0, np.uint64)


@dataclass
class Pass:
    """A forward pass under way: what it does to the layout, and how many layers have given their K and V."""

    origin: Append
    tokens: int
    done: int = 0


class Span:
    """What `count` layers from `first` on hold together; see `Layout` for what stands where.

    Everything here has the heads of all its layers, those of the first layer first. A forward pass goes through the
    layers in order: the first one brings the sequence to the workspace, each puts its new tokens there and reads its
    own heads, and the last one moves the state on. Until then nothing that the state holds is written to, so that
    a pass which fails, or never comes back, leaves the state as it was.
    """

    def __init__(self, first: int, store: Store) -> None:
        self.first, self.count = first, store.span_layers
        self.heads = self.count * store.heads
        self.state: State | None = None
        self.dtype = store.dtype
        self.device = torch.device("cpu")
        self._store = store
        self._workspace = store.workspace_of(first)
        self._pass: Pass | None = None

    @property
    def name(self) -> str:
        """For messages."""
        last = self.first + self.count - 1
        return f"layer {last}" if self.count == 1 else f"layers {self.first}..{last}"

    @property
    def rows(self) -> int | None:
        """Rows of the batch; None before the first tokens."""
        if self._pass is not None:
            return self._pass.origin.after.rows
        return None if self.state is None else self.state.layout.rows

    # ---- a forward pass

    def update(
        self, member: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (rows, heads, tokens, head_dim) K and V of layer first + member; those of its whole sequence."""
        tokens = keys.shape[2]
        self._check_turn(member, tokens)
        if self.state is None:
            if not tokens:
                return keys, values
            if self.count == 1:  # nothing to wait for: blocks are coded from where they are
                self.dtype, self.device = keys.dtype, keys.device
                self._store_blocks(self._store.empty(keys.shape[0]).append(tokens), keys, values)
                return self._whole(keys, values)
        sparse = self._store.sparse
        if sparse is not None and tokens == 1 and sparse.ready(self.first, self.state):
            return self._step(sparse, keys, values)
        running = self._begin(keys) if member == 0 else self._pass
        assert running is not None
        workspace, length = self._workspace, running.origin.after.length
        new_keys, new_values = workspace.part(length - tokens, tokens, member=member)
        new_keys.copy_(keys)
        new_values.copy_(values)
        running.done += 1
        self._store.lengths[self.first + member] = length
        # The first tokens go back as they came.
        whole = workspace.read(length, member) if length > tokens else (keys, values)
        if running.done == self.count:
            self._finish(running)
        return self._whole(*whole)

    def _whole(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of the whole sequence; sparse attention learns from who reads them."""
        sparse = self._store.sparse
        if sparse is None or self.state is None:
            return keys, values
        reader = WholeReader(self.first, keys, values, self.state.layout, sparse)
        return carrying(keys, reader), values

    def _step(
        self, sparse: Sparse, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes one token; what is to be read of the others is decided when attention asks."""
        before, new = self.state, torch.stack((keys, values))
        assert before is not None
        layout, origin = before.layout, before.layout.append(1)
        at = layout.length - layout.open_base
        opened = fitted(before.open, at + 1, used=at)
        self._keep(opened.narrow(3, at, 1), new)
        if len(origin.rows):
            self._store_blocks(origin, opened[0], opened[1], layout.open_base)
        else:
            self._set(State(origin.after, before.handles, before.kept, opened, origin))
        sparse.unread = self.first
        stands_for = placeholder(keys, layout.length + 1)
        return carrying(stands_for, StepReader(self.first, before, new, sparse)), stands_for

    def _begin(self, keys: torch.Tensor) -> Pass:
        """The sequence in the workspace, with room for the new tokens behind it."""
        rows, tokens = keys.shape[0], keys.shape[2]
        self.dtype, self.device = keys.dtype, keys.device
        if self.state is None:
            origin = self._store.empty(rows).append(tokens)
            self._workspace.reserve(rows, tokens, self.dtype, self.device)
            self._workspace.standing = None
        else:
            origin = self.state.layout.append(tokens)
            self._read(self.state, tokens)
        self._pass = self._store.running = Pass(origin, tokens)
        return self._pass

    def _finish(self, running: Pass) -> None:
        """Moves the state on, all or nothing."""
        self._pass = self._store.running = None
        origin = running.origin
        try:
            if self.state is None or len(origin.rows):
                self._store_blocks(origin, *self._workspace.read(origin.after.length))
            else:
                self._set(self._extended(self.state, origin, running.tokens))
        except BaseException:
            self._set(self.state)
            raise

    def _drop_pass(self) -> int:
        """Forgets a pass under way; its tokens, 0 without one."""
        running, self._pass = self._pass, None
        if running is None:
            return 0
        self._store.running = None
        self._set(self.state)
        return running.tokens

    def _check_turn(self, member: int, tokens: int) -> None:
        store, index, running = self._store, self.first + member, self._pass
        store.check()
        if store.sparse is not None:
            store.sparse.check_read()
        if member:
            if running is None or (running.done, running.tokens) != (member, tokens):
                raise SpeckvError(
                    f"layer {index} is out of turn: {self.name} share records and are updated in order, with the "
                    "same number of tokens each"
                )
            return
        before = store.lengths[index - 1] if index else 0
        now = store.lengths[index]
        if store.running is not None or (index and before not in (now, now + tokens)):
            least, most = min(store.lengths), max(store.lengths)
            remedy = f"crop({least}) or reset()" if least else "reset()"
            raise SpeckvError(
                f"layer {store.lengths.index(least)} holds {least} tokens and layer {store.lengths.index(most)} "
                f"already {most}: an earlier forward pass stopped half-way; {remedy} the cache"
            )

    # ---- what a cache does between passes

    def reset(self) -> None:
        """Drops everything."""
        self._drop_pass()
        state = self.state
        self._set(None)
        if self._workspace.private:
            self._workspace.free()
        if state is not None and len(state.handles):
            self._store.tiers.release(state.handles)

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove tokens; a positive number is the length to keep, as before 5.20."""
        dropped, state = self._drop_pass(), self.state
        if state is None or tokens_to_remove == 0:
            return
        length = state.layout.length
        tokens = length - tokens_to_remove if tokens_to_remove > 0 else -tokens_to_remove - dropped
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

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row rows[i] is. Records stay where they are: only references move."""
        self._drop_pass()
        state = self.state
        if state is None:
            return
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

    def fork_of(self, other: Span) -> None:
        """Takes over what `other` holds: its records by reference, its exact tokens as a copy."""
        state = other.state
        if state is None:
            return
        kept, opened = state.kept.clone(), state.open.clone()
        if len(state.handles):
            self._store.tiers.retain(state.handles)
        self.dtype, self.device = other.dtype, other.device
        self._set(state._replace(kept=kept, open=opened))

    # ---- inside

    def _set(self, state: State | None) -> None:
        before, self.state = self.state, state
        if self._store.tiers.config.prefetch != "none" and not self._workspace.private:
            handles = _NONE if state is None else state.handles
            if before is None or handles is not before.handles:
                self._store.tiers.expect((self._store.sequence, self.first), handles)
        length = 0 if state is None else state.layout.length
        self._store.lengths[self.first : self.first + self.count] = [length] * self.count
        if self._store.sparse is not None:
            self._store.sparse.states[self.first] = state

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
            ahead = store.sequence, self.first
            at = layout.fetch_places
            store.tiers.get(state.handles, *at, workspace.target, ahead=ahead)
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

    def _extended(self, state: State, origin: Append, tokens: int) -> State:
        """The state with more open tokens. They are written behind the old ones, which stay as they are."""
        layout = state.layout
        at = layout.length - layout.open_base
        opened = fitted(state.open, at + tokens, used=at)
        self._keep(opened.narrow(3, at, tokens), self._workspace.part(layout.length, tokens))
        return State(origin.after, state.handles, state.kept, opened, origin)

    def _store_blocks(
        self, origin: Append, keys: torch.Tensor, values: torch.Tensor, base: int = 0
    ) -> None:
        """Codes the blocks that an append filled; keys, values: the sequence from position `base` on, exact where open.

        What the old state holds is not written to, so a failure leaves the span as it was.
        """
        after, store, state = origin.after, self._store, self.state
        nothing = allocate(
            after.rows, self.heads, 0, store.head_dim, store.exact_dtype, self.device
        )
        kept, handles = nothing, np.empty(0, np.uint64)
        if state is not None:
            kept, handles = state.kept, state.handles
        kept = fitted(kept, after.kept_tokens, used=kept.shape[3])
        opened = fitted(nothing, after.length - after.open_base, used=0)
        for kind, states in enumerate((keys, values)):
            for keep in origin.keeps:
                rows = slice(keep.first_row, keep.end_row)
                part = states[rows].narrow(2, keep.start - base, keep.tokens)
                self._keep(kept[kind, rows].narrow(2, keep.index, keep.tokens), part)
            part = states.narrow(2, after.open_base - base, after.length - after.open_base)
            self._keep(opened[kind].narrow(2, 0, part.shape[2]), part)
        if len(origin.rows):
            handles = np.concatenate([handles, self._put(origin, keys, values, base)])
        self._set(State(after, handles, kept, opened, origin))

    def _put(self, origin: Append, keys: torch.Tensor, values: torch.Tensor, base: int) -> Handles:
        """Codes the blocks that an append filled, all or none."""
        starts, store = origin.starts - base, self._store
        padding = np.array(origin.after.padding)[origin.rows]
        named = store.prompt.block_keys(self.first, origin.rows, origin.starts, padding)
        if keys.device.type != "cpu":
            first, end = int(starts.min()), int(starts.max()) + store.block_tokens
            keys, values = keys[:, :, first:end].cpu(), values[:, :, first:end].cpu()
            starts = starts - first
        # A row's own positions, as its RoPE has them; those of padding mean nothing.
        positions = np.maximum(origin.starts - padding, 0).astype(np.uint32)
        tiers, source = store.tiers, StridedKV.of(keys, values)
        before = tiers.overflows
        handles = tiers.put(self.first, positions, origin.rows, starts, source, named)
        if tiers.overflows != before:
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
        dtype: DType = self._store.tiers.shape.dtype
        return (
            f"{self.name}: a value of magnitude {largest:g} is too large for "
            f'{dtype.name.lower()} blocks; use block_dtype="bf16"'
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
