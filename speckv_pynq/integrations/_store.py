"""What the layers of a cache share, what a span holds, and the exact tensors it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq.errors import ConfigError, SpeckvError
from speckv_pynq.integrations._layout import Layout
from speckv_pynq.integrations._prompt import Prompt
from speckv_pynq.integrations._workspace import Workspace, allocate
from speckv_pynq.tiers import TierManager
from speckv_pynq.tiers.sharing import PrefixKeys

if TYPE_CHECKING:
    from speckv_pynq.integrations._sparse import Sparse

__all__ = ["Handles", "State", "Store", "allocate", "fitted", "selected"]

Handles = npt.NDArray[np.uint64]
_SEQUENCES = itertools.count()
EXACT_GRAIN = 4  # tokens; capacities of the exact tensors are whole multiples of this


@dataclass
class Store:
    """What the layers of one cache share.

    workspaces: one for all spans, or one for each of them. standing_hits: blocks that stood in one when wanted.
    span_layers: layers of a span, whose blocks share records; heads: KV heads of one layer. recent: newest tokens that
    are not coded yet. dtype: of the model; exact_dtype: of the tokens held uncoded. padding: left padding of each row,
    for the next first tokens. lengths: tokens that each layer has been given. sparse: of a cache with sparse attention.
    sequence: what the tiers know the cache by when they look ahead.
    prompt: the tokens that were told to come first. running: the forward pass that has reached some layers of a span,
    not all.
    """

    tiers: TierManager
    workspaces: list[Workspace]
    layers: int
    span_layers: int
    heads: int
    head_dim: int
    block_tokens: int
    sinks: int
    recent: int
    dtype: torch.dtype
    exact_dtype: torch.dtype
    padding: tuple[int, ...] | None
    prefix_keys: PrefixKeys
    broken: str | None = None
    closed: bool = False
    standing_hits: int = 0
    sparse: Sparse | None = None
    sequence: int = field(default_factory=lambda: next(_SEQUENCES))

    def __post_init__(self) -> None:
        self.lengths = [0] * self.layers
        self.running: object | None = None
        self.prompt = Prompt(self.prefix_keys, self.block_tokens)
        self._empty: Layout | None = None

    def empty(self, rows: int) -> Layout:
        """The layout before the first token, one object for all layers; beams of a row share its padding."""
        padding = self.padding or (0,) * rows
        if rows % len(padding):
            raise ConfigError(f"attention_mask has {len(padding)} rows, the model runs {rows}")
        padding = tuple(np.repeat(padding, rows // len(padding)).tolist())
        if self._empty is None or self._empty.padding != padding:
            self._empty = Layout.empty(rows, self.block_tokens, self.sinks, self.recent, padding)
        return self._empty

    def workspace_of(self, layer: int) -> Workspace:
        """Where a layer is assembled for attention."""
        return self.workspaces[layer // self.span_layers % len(self.workspaces)]

    def check(self) -> None:
        """Raises SpeckvError when an earlier failure left layers that do not fit together, or nothing is left."""
        if self.closed:
            raise SpeckvError("the cache is closed")
        if self.broken:
            raise SpeckvError(f"the cache is unusable, call reset(): {self.broken}")


class State(NamedTuple):
    """A span's contents, replaced as a whole. exact tensors: (2, rows, heads, capacity, head_dim).

    kept: tokens that are never coded, each row's in order. open: positions from layout.open_base on.
    origin: the transition that led here; holding it lets the next layers find it.
    """

    layout: Layout
    handles: Handles
    kept: torch.Tensor
    open: torch.Tensor
    origin: Any = None


def fitted(exact: torch.Tensor, tokens: int, used: int) -> torch.Tensor:
    """`exact` itself where it has room for `tokens`, else a larger one with a copy of the first `used`."""
    rows, heads, capacity, head_dim = exact.shape[1:]
    if capacity >= tokens:
        return exact
    capacity = -(-tokens // EXACT_GRAIN) * EXACT_GRAIN
    larger = allocate(rows, heads, capacity, head_dim, exact.dtype, exact.device)
    larger.narrow(3, 0, used).copy_(exact.narrow(3, 0, used))
    return larger


def selected(exact: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """A new tensor whose row i is row rows[i]."""
    _, heads, capacity, head_dim = exact.shape[1:]
    chosen = allocate(len(rows), heads, capacity, head_dim, exact.dtype, exact.device)
    with torch.no_grad():
        chosen.copy_(exact[:, list(rows)])
    return chosen
