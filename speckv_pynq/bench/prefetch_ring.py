"""Blocks from pinned host memory to a GPU, in the planner's order: the dense prefetch without csim and codec.

L3 is raw FP16 in host memory, L1 a fixed share of each layer on the GPU, L2 a ring of slots there. Copies go over a
lane (on CUDA a stream beside that of the computation), runs of neighbouring blocks in one copy.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch

from speckv_pynq.errors import ConfigError
from speckv_pynq.prefetch.dense import DensePlanner

COPY_BYTES: Final = (
    32 << 20
)  # of one copy at most: more than a layer streams, so that calls are few
_SEQUENCE: Final = 0


class Lane(Protocol):
    """Copies in the order in which they were asked for, beside the computation."""

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Any) -> Any:
        """Begins a copy, not before `after` (an event or None) has come; the event of its end."""
        ...

    def mark(self) -> Any:
        """The event of all that was given to the computation so far."""
        ...

    def need(self, event: Any) -> None:
        """What is given to the computation from now on waits for the event; the caller does not."""
        ...

    def done(self, event: Any) -> bool:
        """Whether the event has come, at this instant."""
        ...


class CudaLane:
    """A stream of its own for copies; the computation runs on the current one."""

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    def copy(self, target: torch.Tensor, source: torch.Tensor, after: Any) -> Any:
        with torch.cuda.stream(self.stream):
            if after is not None:
                self.stream.wait_event(after)
            target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self.stream)
        return event

    def mark(self) -> Any:
        event = torch.cuda.Event()
        event.record()
        return event

    def need(self, event: Any) -> None:
        torch.cuda.current_stream().wait_event(event)

    def done(self, event: Any) -> bool:
        return bool(event.query())


@dataclass(frozen=True)
class Copy:
    """Blocks first..first + count - 1, as numbers in L3, in the ring's slots from `slot` on."""

    first: int
    count: int
    slot: int
    event: Any


class Ring:
    """The three tiers of one sequence. source: (layers, blocks, *block) in host memory, pinned for CUDA.

    l1_blocks: of each layer, its first ones, on the GPU from the start. slots: of L2, for blocks on their way or there;
    they are filled and read in the same order.
    """

    def __init__(
        self, source: torch.Tensor, l1_blocks: int, slots: int, lane: Lane, device: torch.device
    ) -> None:
        self.layers, self.blocks = source.shape[:2]
        self.streamed = self.blocks - l1_blocks
        if slots < self.streamed:
            raise ConfigError(f"slots {slots} < {self.streamed}, what one layer streams")
        self.l1 = source[:, :l1_blocks].to(device)
        self.l2 = torch.empty((slots, *source.shape[2:]), dtype=source.dtype, device=device)
        self.planner = DensePlanner(slots)
        self.copied = self.read = 0  # blocks
        self._source = source.reshape(-1, *source.shape[2:])
        self._lane = lane
        self._most = max(1, COPY_BYTES // (self._source[0].nbytes or 1))
        self._copies: deque[Copy] = deque()  # in the ring, oldest first
        self._up = np.zeros(self.layers * self.blocks, bool)  # which blocks are in the ring
        self._slot, self._used = 0, 0
        self._freed: Any = None  # the computation has read what the free slots held
        for layer in range(self.layers):
            self.planner.expect(_SEQUENCE, layer, self._numbers(layer))

    def on_time(self, layer: int) -> int:
        """How many blocks of a layer are there at this instant, of self.blocks."""
        there = self.blocks - self.streamed
        for copy in self._copies:
            if copy.first // self.blocks != layer:
                break
            there += copy.count if self._lane.done(copy.event) else 0
        return there

    def get(self, layer: int, target: torch.Tensor) -> None:
        """A layer's blocks to `target`, (kinds, heads, tokens, head_dim), for the computation that follows.

        What is not on its way is copied now. The blocks leave the ring.
        """
        numbers = self._numbers(layer)
        self._start(numbers[~self._up[numbers]])
        at = self._unpack(target, 0, self.l1[layer])
        while self._copies and self._copies[0].first // self.blocks == layer:
            copy = self._copies.popleft()
            self._lane.need(copy.event)
            at = self._unpack(target, at, self.l2[copy.slot : copy.slot + copy.count])
            self._used -= copy.count
            self.read += copy.count
            self._up[copy.first : copy.first + copy.count] = False
        self._freed = self._lane.mark()
        self.planner.asked(_SEQUENCE, layer)

    def feed(self) -> None:
        """Begins to copy what the planner says comes next."""
        ahead = self.planner.ahead(_SEQUENCE).astype(np.int64)
        self._start(ahead[~self._up[ahead]][: len(self.l2) - self._used])

    def _numbers(self, layer: int) -> np.ndarray:
        return np.arange((layer + 1) * self.blocks - self.streamed, (layer + 1) * self.blocks)

    def _start(self, numbers: np.ndarray) -> None:
        """Copies blocks, neighbours together, to the ring's next slots, which are free."""
        apart = numbers[1:] != numbers[:-1] + 1
        apart |= numbers[1:] % self.blocks == 0
        at = 0
        for end in [*(np.flatnonzero(apart) + 1).tolist(), len(numbers)]:
            while at < end:
                count = min(self._most, len(self.l2) - self._slot, end - at)
                self._copy(int(numbers[at]), count)
                at += count

    def _copy(self, first: int, count: int) -> None:
        slots = self.l2[self._slot : self._slot + count]
        event = self._lane.copy(slots, self._source[first : first + count], self._freed)
        self._copies.append(Copy(first, count, self._slot, event))
        self._up[first : first + count] = True
        self._slot = (self._slot + count) % len(self.l2)
        self._used += count
        self.copied += count

    @staticmethod
    def _unpack(target: torch.Tensor, at: int, blocks: torch.Tensor) -> int:
        """Blocks, (n, kinds, heads, tokens, head_dim), to tokens `at` and following; the token behind them."""
        count, tokens = blocks.shape[0], blocks.shape[3]
        if count:
            part = target.narrow(2, at, count * tokens).unflatten(2, (count, tokens))
            part.copy_(blocks.permute(1, 2, 0, 3, 4))
        return at + count * tokens
