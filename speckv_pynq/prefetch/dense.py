"""Dense attention's demand is known: every block of every layer, in layer order, each step.

The planner keeps that order and says what lies ahead, within a budget of slots. It moves nothing itself: whoever asks
leaves out what is up already or on its way. So nothing has to be undone when a prediction turns out wrong: blocks of a
sequence that ended or was cropped stand in no later answer, and what had come up for it ages out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import ConfigError

Blocks = npt.NDArray[np.uint64]

_NONE = np.empty(0, np.uint64)


@dataclass(eq=False)
class _Sequence:
    """What a sequence reads in a step: blocks of each layer; when each layer, by number, was asked last."""

    blocks: dict[int, Blocks] = field(default_factory=dict)
    asked: dict[int, int] = field(default_factory=dict)
    layer: int = -1
    last: int = 0


class DensePlanner:
    """Which blocks come next. Not safe from several threads at once.

    slots: blocks that may be up ahead of their layer, of all sequences together. depth: the most of one sequence; None:
    as many as there are slots; 0: none. It may be changed at any time: a smaller one takes nothing back that is up.
    """

    def __init__(self, slots: int, depth: int | None = None) -> None:
        if slots < 0:
            raise ConfigError(f"slots {slots} < 0")
        self.slots = slots
        self.depth = depth
        self._sequences: dict[int, _Sequence] = {}
        self._asks = 0

    @property
    def depth(self) -> int | None:
        return self._depth

    @depth.setter
    def depth(self, depth: int | None) -> None:
        if depth is not None and depth < 0:
            raise ConfigError(f"depth {depth} < 0")
        self._depth = depth

    def expect(self, sequence: int, layer: int, blocks: npt.ArrayLike) -> None:
        """A layer of a sequence reads these each step, (n,) in this order, instead of what was said before.

        A sequence none of whose layers reads anything is forgotten.
        """
        given = np.array(blocks, np.uint64).reshape(-1)
        if np.array_equal(given, self.expected(sequence, layer)):
            return  # as in most steps
        first = np.unique(given, return_index=True)[1]
        if len(first) != len(given):
            given = given[np.sort(first)]
        known = self._sequences.setdefault(sequence, _Sequence())
        known.blocks[layer] = given
        if not len(given):
            del known.blocks[layer]
            if not known.blocks:
                self.forget(sequence)

    def expected(self, sequence: int, layer: int) -> Blocks:
        """What a layer of a sequence reads each step, (n,)."""
        known = self._sequences.get(sequence)
        return _NONE if known is None else known.blocks.get(layer, _NONE)

    def asked(self, sequence: int, layer: int) -> None:
        """The layer has read its blocks: what follows lies ahead; nothing, where the sequence reads nothing."""
        known = self._sequences.get(sequence)
        if known is None:
            return
        self._asks += 1
        known.asked[layer] = known.last = self._asks
        known.layer = layer

    def ahead(self, sequence: int) -> Blocks:
        """The next blocks of a sequence, (n,) in the order of their demand: later layers, then the next step's.

        No more than its share of the slots, or than its depth; none before a layer asked.
        """
        known = self._sequences.get(sequence)
        if known is None or not known.asked:
            return _NONE
        room = self.slots // self._sharing(known)
        room = room if self.depth is None else min(room, self.depth)
        layers = after(known.blocks, known.layer)
        found, count = [], 0
        for layer in layers:
            if count >= room:
                break
            found.append(known.blocks[layer][: room - count])
            count += len(found[-1])
        return np.concatenate(found) if found else _NONE

    def forget(self, sequence: int) -> None:
        """The sequence has ended."""
        self._sequences.pop(sequence, None)

    def drop(self, blocks: npt.ArrayLike) -> None:
        """Nobody reads these any more, whatever was said."""
        gone = np.array(blocks, np.uint64).reshape(-1)
        for sequence, known in list(self._sequences.items()):
            for layer, there in list(known.blocks.items()):
                left = ~np.isin(there, gone)
                if not left.all():
                    self.expect(sequence, layer, there[left])

    def _sharing(self, known: _Sequence) -> int:
        """Sequences that take turns: those that have asked since this one asked for the same layer before."""
        since = min(known.asked.values())
        return sum(one is known or one.last >= since for one in self._sequences.values())


def after(layers: Iterable[int], layer: int) -> list[int]:
    """These layers in the order in which they are read once `layer` has been: it comes last, in the next step."""
    order = sorted(layers)
    return [one for one in order if one > layer] + [one for one in order if one <= layer]


class ByteBudget:
    """Bytes a second that may be asked for; what is not used is kept for burst_s, no longer.

    bytes_per_s None: no limit. Times are any clock's seconds, never falling.
    """

    def __init__(self, bytes_per_s: float | None = None, burst_s: float = 0.01) -> None:
        if bytes_per_s is not None and not bytes_per_s > 0:
            raise ConfigError(f"bytes_per_s {bytes_per_s} is not above 0")
        if not burst_s > 0:
            raise ConfigError(f"burst_s {burst_s} is not above 0")
        self._bytes_per_s, self._burst_s = bytes_per_s, burst_s
        self._left = 0.0 if bytes_per_s is None else bytes_per_s * burst_s
        self._at: float | None = None

    def take(self, sizes: npt.NDArray[np.integer], now_s: float) -> int:
        """How many of these, (n,) bytes, may be asked for now, from the first on; they count as asked for.

        The last one may overdraw, by less than its size: so one that is larger than a burst still comes.
        """
        if self._bytes_per_s is None or not len(sizes):
            return len(sizes)
        passed = 0.0 if self._at is None else max(0.0, now_s - self._at)
        self._at = now_s
        full = self._bytes_per_s * self._burst_s
        self._left = min(full, self._left + passed * self._bytes_per_s)
        before = np.cumsum(sizes, dtype=np.float64) - sizes
        count = int(np.searchsorted(before, max(0.0, self._left), side="left"))
        if self._left <= 0:
            return 0
        self._left -= float(np.sum(sizes[:count], dtype=np.float64))
        return count
