"""Sparse attention of a cache: who stands behind the keys of a layer, and what they do once the query is there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from speckv_pynq.errors import UnsupportedLayer
from speckv_pynq.integrations._attention import NAME, shares
from speckv_pynq.integrations._choice import Chooser
from speckv_pynq.integrations._gather import gather
from speckv_pynq.integrations._layout import Index, Layout
from speckv_pynq.integrations._store import State
from speckv_pynq.integrations._workspace import Workspace
from speckv_pynq.tiers import TierManager

HISTORY_TOKENS = (
    32  # of a pass of several tokens: the last ones, whose attention is a history to begin with
)

Read = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


@dataclass(frozen=True)
class SparseStats:
    """Blocks, counted in each pass of one token and each layer.

    held: coded blocks that there were, all of which dense attention reads; read: those that were chosen, the only ones
    that were asked of the tiers. ahead: those begun to be brought up before their query was there.
    """

    held: int
    read: int
    ahead: int


@dataclass
class Sparse:
    """What the layers of a cache with sparse attention share.

    ahead: whether the next layer's blocks are brought up early. states: what each layer holds.
    unread: the layer that took a token and has not been asked what to attend to.
    """

    chooser: Chooser
    tiers: TierManager
    workspace: Workspace
    ahead: bool
    states: list[State | None]
    unread: int | None = None
    counts: SparseStats = field(default_factory=lambda: SparseStats(0, 0, 0))

    def ready(self, layer: int, state: State | None) -> bool:
        """Whether a token can be given some blocks only: there are some, and all that precede it were seen."""
        if state is None or not len(state.handles):
            return False
        return self.chooser.known(layer) == state.layout.length

    def crop(self, length: int) -> None:
        """Keeps the first `length` tokens."""
        self.unread = None
        self.chooser.crop(length)

    def reset(self) -> None:
        self.unread = None
        self.chooser.forget()

    def check_read(self) -> None:
        """UnsupportedLayer where the model went on without having asked what to attend to."""
        if self.unread is not None:
            raise UnsupportedLayer(
                f"layer {self.unread}: its attention did not ask the cache which blocks to read, its result is void; "
                f'the model must run with attention "{NAME}" (SpecKVCache.for_model sets it) and hand on the keys of '
                "Cache.update as they are; crop() or reset() the cache"
            )

    def count(self, held: int, read: int, ahead: int) -> None:
        was = self.counts
        self.counts = SparseStats(was.held + held, was.read + read, was.ahead + ahead)

    def bring_ahead(self, layer: int) -> int:
        """Begins to bring up what a layer will likely choose; how many blocks."""
        state = self.states[layer]
        if not self.ahead or state is None or not self.ready(layer, state):
            return 0
        likely = self.chooser.ahead(layer, state.layout)
        return self.tiers.prefetch(state.handles[likely]) if len(likely) else 0


@dataclass(frozen=True)
class StepReader:
    """Behind one new token of a layer. before: the state without it; new: (2, rows, heads, 1, head_dim), its K, V."""

    layer: int
    before: State
    new: torch.Tensor
    sparse: Sparse

    def read(self, query: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> Read:
        sparse, chooser, layer = self.sparse, self.sparse.chooser, self.layer
        sparse.unread = None
        chooser.extend(layer, _array(self.new[0]))
        chosen = chooser.choose(layer, _array(query[:, :, 0]), self.before.layout)
        got = gather(self.before, chosen, self.new, sparse.workspace, sparse.tiers)
        mask = _of_positions(mask, got.positions, query.device)
        share = shares(query, got.keys, mask, scaling)
        chooser.observe(layer, got.positions, _array(share[:, 0]))
        begun = sparse.bring_ahead((layer + 1) % len(sparse.states))
        sparse.count(len(self.before.handles), len(chosen), begun)
        return got.keys, got.values, mask


@dataclass(frozen=True)
class WholeReader:
    """Behind a pass that reads everything: it learns which blocks matter. keys, values: of the whole sequence."""

    layer: int
    keys: torch.Tensor
    values: torch.Tensor
    layout: Layout
    sparse: Sparse

    def read(self, query: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> Read:
        chooser, layer, length = self.sparse.chooser, self.layer, self.keys.shape[2]
        if not chooser.begun:
            chooser.begin(self.layout, _first_seen(mask, len(self.keys)))
        known = chooser.known(layer)
        if known < length:
            chooser.extend(layer, _array(self.keys[:, :, known:]))
        last = query[:, :, -HISTORY_TOKENS:]
        count = last.shape[2]
        seen = mask[:, :, -count:] if mask is not None else _causal(count, length, query.device)
        history = _array(shares(last, self.keys, seen, scaling))
        everything = np.broadcast_to(np.arange(length), (len(self.keys), length))
        for i in range(count):
            chooser.observe(layer, everything, history[:, i])
        if count == HISTORY_TOKENS:
            chooser.fit(layer, history.mean(1))
        return self.keys, self.values, mask


def placeholder(keys: torch.Tensor, length: int) -> torch.Tensor:
    """What stands for the keys or values of `length` tokens where attention has yet to ask for some of them.

    No number: attention that does not ask must not go unnoticed.
    """
    rows, heads, _, head_dim = keys.shape
    return keys.new_full((1, 1, 1, 1), torch.nan).expand(rows, heads, length, head_dim)


def _array(states: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return states.float().cpu().numpy()


def _causal(tokens: int, length: int, device: torch.device) -> torch.Tensor:
    return torch.ones(tokens, length, dtype=torch.bool, device=device).tril(length - tokens)


def _of_positions(
    mask: torch.Tensor | None, positions: Index, device: torch.device
) -> torch.Tensor | None:
    """The mask of these positions, (rows, heads or 1, 1, width); None where all may be seen."""
    stands = positions >= 0
    if mask is None and stands.all():
        return None
    if mask is None:
        return torch.from_numpy(stands)[:, None, None].to(device)
    places = torch.from_numpy(np.maximum(positions, 0)).to(mask.device)[:, None, None]
    there = torch.from_numpy(stands).to(mask.device)[:, None, None]
    mask = mask.expand(len(positions), -1, -1, -1)
    picked = torch.gather(mask, 3, places.expand(-1, mask.shape[1], -1, -1))
    if mask.dtype == torch.bool:
        return picked & there
    return picked.masked_fill(~there, torch.finfo(mask.dtype).min)


def _first_seen(mask: torch.Tensor | None, rows: int) -> Index:
    """(rows,) the first position that the last token sees."""
    if mask is None:
        return np.zeros(rows, np.int64)
    last = mask[:, 0, -1]
    seen = last if mask.dtype == torch.bool else last > torch.finfo(mask.dtype).min / 2
    return seen.expand(rows, -1).int().argmax(1).cpu().numpy().astype(np.int64)
