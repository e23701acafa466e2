"""A prefetch for sparse attention, replayed: what it brings in time, and what it brings for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from speckv_pynq.bench.sparse_guesses import Guess
from speckv_pynq.bench.sparse_replay import RECENT_BLOCKS, SINK_BLOCKS, Scene, points, replay
from speckv_pynq.prefetch.bounds import Floats, Index
from speckv_pynq.prefetch.history import History
from speckv_pynq.prefetch.pointers import Pointers, following
from speckv_pynq.prefetch.ranking import DEFAULT, best, combined

ROOM = 1.5  # budgets of blocks that L1 holds, the last ones used
AHEAD = 1.1
# Budgets that are named before each step, and fetched where they are missing; with a guess, AHEAD only.
FETCHED = (0.0, 1.0, AHEAD, 1.2)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Waste:
    """L1 holds ROOM budgets, the last ones used; before each step, the best `ahead` budgets by `Ranker.ahead` are used.

    new: share of the blocks a step reads that the one before did not. in_time: share of these that are in L1; with
    ahead 0 nothing is prefetched. wasted: blocks fetched and dropped unread, or unread at the end, of all that were
    fetched, on demand too.
    """

    guess: str
    ahead: float
    new: float
    in_time: float
    wasted: float


def waste(
    scene: Scene, share: float, pointing: list[Floats], predictors: Mapping[str, Guess]
) -> list[Waste]:
    """Without a predictor of the token between the steps, and with each; `pointing` is what the choice goes by."""
    out = _replayed(scene, share, pointing, "none", None, FETCHED)
    for name, guess in predictors.items():
        ahead = points(scene, partial(_after_guess, guess))
        out += _replayed(scene, share, pointing, name, ahead, (AHEAD,))
    return out


def _after_guess(guess: Guess, tokens: Index) -> Pointers:
    """For the step to come, whose token is not known yet."""
    return following(tokens, *guess(tokens))


def _replayed(
    scene: Scene,
    share: float,
    pointing: list[Floats],
    name: str,
    ahead: list[Floats] | None,
    fetched: tuple[float, ...],
) -> list[Waste]:
    named: list[list[Index]] = []  # after each step, for each of `fetched`
    first = np.zeros(scene.rows, np.int64)

    def visit(step: int, history: History) -> None:
        there = ahead[step] if ahead else None
        scores = combined(DEFAULT, history, np.maximum(history.latest, 0), there)
        counts = (int(part * scene.budget(step, share)) for part in fetched)
        named.append([best(scores, n, first, SINK_BLOCKS, RECENT_BLOCKS)[:, :n] for n in counts])

    run = replay(scene, share, DEFAULT, pointing, visit=visit)
    blocks = scene.blocks(scene.steps - 1)
    chosen = [_mask(read, blocks) for read in run.chosen]
    out = []
    for i, ahead_budgets in enumerate(fetched):
        near = _Near(chosen[1])
        for step in range(2, scene.steps):  # the first one read all
            near.room = int(ROOM * scene.budget(step, share))
            near.fetch(_mask(named[step - 1][i], blocks))
            near.read(chosen[step], chosen[step - 1])
        out.append(near.waste(name, ahead_budgets))
    return out


class _Near:
    """What of (rows, blocks) is in L1: the `room` blocks used last."""

    def __init__(self, held: Mask) -> None:
        self.room = 0
        self._held, self._unread = held, np.zeros_like(held)
        self._used, self._now = held.astype(np.int64), 1
        self._read = self._new = self._in_time = self._fetched = self._wasted = 0

    def fetch(self, named: Mask) -> None:
        early = named & ~self._held
        self._unread |= early
        self._use(named)

    def read(self, chosen: Mask, before: Mask) -> None:
        """Fetches on demand what is missing."""
        new = chosen & ~before
        self._read += int(chosen.sum())
        self._new += int(new.sum())
        self._in_time += int((new & self._held).sum())
        self._unread &= ~chosen
        self._use(chosen)

    def waste(self, guess: str, ahead: float) -> Waste:
        new, wasted = max(1, self._new), self._wasted + int(self._unread.sum())
        return Waste(
            guess,
            ahead,
            new / max(1, self._read),
            self._in_time / new,
            wasted / max(1, self._fetched),
        )

    def _use(self, blocks: Mask) -> None:
        self._fetched += int((blocks & ~self._held).sum())
        self._now += 1
        self._used[blocks] = self._now
        newest = np.argsort(-self._used, axis=1, kind="stable")[:, : self.room]
        self._held = _mask(newest, blocks.shape[1]) & (self._used > 0)
        self._wasted += int((self._unread & ~self._held).sum())
        self._unread &= self._held


def _mask(chosen: Index, blocks: int) -> Mask:
    out = np.zeros((len(chosen), blocks), bool)
    np.put_along_axis(out, chosen, True, axis=1)
    return out
