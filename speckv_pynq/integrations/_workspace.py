"""The memory that attention reads: a pair of K and V tensors, one for all spans of a cache or one for each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq.tiers import StridedKV

GRAIN_TOKENS = 128  # capacities are whole multiples of this
MOST_PARTS = 1024  # views that are remembered: every layer of a step asks for the same ones


def allocate(
    rows: int, heads: int, tokens: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """(2, rows, heads, tokens, head_dim), K then V, not initialised; writable under and outside inference mode."""
    with torch.inference_mode(False):
        return torch.empty((2, rows, heads, tokens, head_dim), dtype=dtype, device=device)


class Standing(NamedTuple):
    """Decoded blocks in a workspace: (blocks,) handles, rows, first positions."""

    handles: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.uint32]
    places: npt.NDArray[np.uint32]


class Workspace:
    """K and V of one span at a time, (rows, heads, capacity, head_dim) each, of which callers read a prefix.

    members: its layers, each of which has heads / members of the heads, in order.
    private: it is one span's own, and decoded blocks may stand in it from step to step. Otherwise each span
    overwrites what the span before it left. That is safe because a model runs its layers in order and
    attention has read K and V before the next layer asks (on CUDA: both are on one stream). What keeps them longer
    is refused elsewhere: autograd, and models whose layers share K and V.

    Where the model is not on the CPU, blocks are decoded to a staging pair on the host, then copied over.
    """

    def __init__(
        self, heads: int, head_dim: int, members: int = 1, *, private: bool = False
    ) -> None:
        self._heads, self._head_dim, self._members = heads, head_dim, members
        self.private = private
        self.standing: Standing | None = None
        self._kv: torch.Tensor | None = None
        self._host: torch.Tensor | None = None
        self._target: StridedKV | None = None
        self._views: tuple[int, dict[int | None, tuple[torch.Tensor, torch.Tensor]]] = -1, {}
        self._made: tuple[tuple[int, torch.dtype, torch.device] | None, int] = None, 0
        self._parts: dict[tuple[int, int, tuple[int, int] | None, int | None], torch.Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held: the pair, and the staging pair where there is one."""
        held = [self._kv] + ([self._host] if self._host is not self._kv else [])
        return sum(t.nbytes for t in held if t is not None)

    @property
    def kv(self) -> torch.Tensor:
        """(2, rows, heads, capacity, head_dim) in the model's dtype, on its device."""
        assert self._kv is not None
        return self._kv

    @property
    def host(self) -> torch.Tensor:
        """The same on the host; the same tensor where the model is on the CPU."""
        assert self._host is not None
        return self._host

    @property
    def target(self) -> StridedKV:
        """`host` as the tiers see it."""
        assert self._target is not None
        return self._target

    def reserve(self, rows: int, tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        """Makes room for `rows` sequences of `tokens`; a shared one loses what stood there when it grows."""
        kind, capacity = self._made
        old, standing = None, None
        if kind == (rows, dtype, device):
            if capacity >= tokens:
                return
            tokens = max(tokens, capacity + capacity // 4)  # growing by steps stays linear
            if self.private:
                old, standing = self._kv, self.standing
        tokens = -(-tokens // GRAIN_TOKENS) * GRAIN_TOKENS
        self.free()
        kv = self._kv = allocate(rows, self._heads, tokens, self._head_dim, dtype, device)
        self._host = kv if device.type == "cpu" else _pinned_like(kv)
        self._target = StridedKV.of(self._host[0], self._host[1])
        self._made = (rows, dtype, device), tokens
        if old is not None:
            kv.narrow(3, 0, capacity).copy_(old)
            self.standing = standing

    def missing(self, wanted: Standing) -> npt.NDArray[np.int64]:
        """Which of the wanted blocks do not stand at their places."""
        standing, count = self.standing, len(wanted.handles)
        if standing is None:
            return np.arange(count)
        n = min(count, len(standing.handles))
        there = np.zeros(count, bool)
        there[:n] = standing.handles[:n] == wanted.handles[:n]
        there[:n] &= standing.places[:n] == wanted.places[:n]
        there[:n] &= standing.rows[:n] == wanted.rows[:n]
        return np.flatnonzero(~there)

    def read(self, tokens: int, member: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V, (rows, heads, tokens, head_dim) views of all heads, or of one member's.

        The same objects for every span of a step.
        """
        if self._views[0] != tokens:
            self._views = tokens, {}
        found = self._views[1].get(member)
        if found is None:
            whole = self._of(member).narrow(3, 0, tokens)
            found = self._views[1][member] = whole[0], whole[1]
        return found

    def part(
        self,
        start: int,
        tokens: int,
        rows: tuple[int, int] | None = None,
        member: int | None = None,
    ) -> torch.Tensor:
        """Positions [start, start + tokens) of K and V, to write to.

        rows: [first, end), None: all. member: whose heads, None: all.
        """
        key = start, tokens, rows, member
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) >= MOST_PARTS:
                self._parts.clear()
            of = self._of(member)
            of = of if rows is None else of[:, slice(*rows)]
            found = self._parts[key] = of.narrow(3, start, tokens)
        return found

    def _of(self, member: int | None) -> torch.Tensor:
        if member is None or self._members == 1:
            return self.kv
        heads = self._heads // self._members
        return self.kv.narrow(2, member * heads, heads)

    def upload(self, tokens: int) -> None:
        """Brings what was decoded to the first `tokens` positions to the model's device."""
        if self._host is not self._kv:
            self.kv.narrow(3, 0, tokens).copy_(self.host.narrow(3, 0, tokens), non_blocking=False)

    def free(self) -> None:
        """Gives the memory back; views handed out keep theirs."""
        self._kv = self._host = self._target = self.standing = None
        self._views = -1, {}
        self._made = None, 0
        self._parts.clear()


def _pinned_like(kv: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(False):
        return torch.empty(kv.shape, dtype=kv.dtype, pin_memory=torch.cuda.is_available())
