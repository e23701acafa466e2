"""Where the tokens of a cached batch lie: coded blocks, kept exact runs, the open run. Pure arithmetic, no tensors.

A row, from its first position to its last, is a sequence of
- coded blocks: one record each, the first `tokens` of its positions valid (fewer than a block's after a crop);
- kept runs: exact tokens that are never coded: the sinks, what stands between padding blocks and sinks, and the
  decoded rest of a block of which a crop left little;
- the open run at its end: exact tokens that are coded once they fill a block.

A `Layout` never changes. Its transitions (`append`, `crop`, `select`) are remembered while somebody holds their
result, so that the layers of a model, which go through the same ones, compute each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
Index32 = npt.NDArray[np.uint32]
Run = tuple[int, int]  # first position, tokens
T = TypeVar("T")


def _index(values: Sequence[int] = ()) -> Index:
    return np.array(values, dtype=np.int64)


@dataclass(frozen=True)
class Group:
    """Consecutive rows [first_row, end_row) of the same structure."""

    first_row: int
    end_row: int
    kept: tuple[Run, ...]
    open_start: int


@dataclass(frozen=True)
class Cut:
    """A block of which only the first `tokens` count; it is fetched to `scratch`, behind the sequence."""

    row: int
    start: int
    tokens: int
    scratch: int


@dataclass(frozen=True)
class KeepCopy:
    """Tokens [start, start + tokens) of rows [first_row, end_row) move to the kept buffer at `index`."""

    first_row: int
    end_row: int
    start: int
    tokens: int
    index: int


@dataclass(frozen=True)
class Append:
    """What an append does: blocks to code (rows, first positions in the batch), exact tokens to keep."""

    after: Layout
    rows: Index
    starts: Index
    keeps: tuple[KeepCopy, ...]


@dataclass(frozen=True)
class Crop:
    """What a crop does: blocks that stay or go (indices into the blocks), blocks whose rest becomes exact."""

    after: Layout
    stay: Index
    go: Index
    freeze: Index
    keeps: tuple[KeepCopy, ...]


@dataclass(frozen=True)
class Select:
    """What a selection of rows does: the old blocks that the new rows are made of, in order."""

    after: Layout
    blocks: Index
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """The structure of `rows` sequences of `length` tokens each, left padding included.

    block_rows, block_starts, block_valid: (blocks,) int64: row, first position and valid tokens of each coded block.
    kept: per row, its runs in order. open_start: (rows,) int64: where each row's open run begins.
    open_base: the position that the open buffer begins with, at most the least of open_start.
    look_back: tokens at the end that are not coded yet although they would fill a block: the recent window, or the
    longest crop seen, up to a block, where that is more; assisted decoding takes a few tokens back at each step and
    should not cut records.
    """

    rows: int
    block_tokens: int
    sinks: int
    padding: tuple[int, ...]
    length: int = 0
    look_back: int = 0
    kept: tuple[tuple[Run, ...], ...] = ()
    open_start: Index = field(default_factory=_index)
    open_base: int = 0
    block_rows: Index = field(default_factory=_index)
    block_starts: Index = field(default_factory=_index)
    block_valid: Index = field(default_factory=_index)
    _known: WeakValueDictionary[Any, Any] = field(default_factory=WeakValueDictionary, repr=False)

    @staticmethod
    def empty(
        rows: int, block_tokens: int, sinks: int, recent: int = 0, padding: Sequence[int] = ()
    ) -> Layout:
        """No tokens yet; recent: the least look_back; padding: left padding of each row (none: no row has any)."""
        pads = tuple(padding) or (0,) * rows
        none = ((),) * rows
        start = _index([0] * rows)
        return Layout(
            rows, block_tokens, sinks, pads, look_back=recent, kept=none, open_start=start
        )

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        found: T | None = self._known.get(key)
        if found is None:
            self._known[key] = found = make()
        return found

    # ---- what a reader of the cache needs

    @cached_property
    def kept_tokens(self) -> int:
        """Tokens that the kept buffer holds, of the row with most of them."""
        return max(sum(tokens for _, tokens in runs) for runs in self.kept)

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """Cut blocks, each with a place of its own behind the sequence of its row."""
        places = [self.length] * self.rows
        cuts = []
        for i in np.flatnonzero(self.block_valid < self.block_tokens):
            row = int(self.block_rows[i])
            cut = Cut(row, int(self.block_starts[i]), int(self.block_valid[i]), places[row])
            cuts.append(cut)
            places[row] += self.block_tokens
        return tuple(cuts)

    @cached_property
    def fetch_places(self) -> tuple[Index32, Index32]:
        """(blocks,) uint32 twice: the rows and positions that blocks are fetched to."""
        places = self.block_starts.copy()
        if self.cuts:
            places[self.block_valid < self.block_tokens] = [cut.scratch for cut in self.cuts]
        return self.block_rows.astype(np.uint32), places.astype(np.uint32)

    @cached_property
    def capacity(self) -> int:
        """Positions that reading needs: the sequence and the scratch behind it."""
        return max([self.length, *(cut.scratch + self.block_tokens for cut in self.cuts)])

    @cached_property
    def coded_end(self) -> int:
        """One past the last position that a coded block gives; 0 without blocks."""
        return int((self.block_starts + self.block_valid).max()) if len(self.block_rows) else 0

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that describe rows and blocks."""
        blocks = (self.block_rows, self.block_starts, self.block_valid)
        return sum(a.nbytes for a in (*blocks, *self.fetch_places, self.open_start))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The rows, grouped where neighbours have the same structure."""
        groups: list[Group] = []
        for row in range(self.rows):
            kept, start = self.kept[row], int(self.open_start[row])
            if groups and (groups[-1].kept, groups[-1].open_start) == (kept, start):
                groups[-1] = replace(groups[-1], end_row=row + 1)
            else:
                groups.append(Group(row, row + 1, kept, start))
        return tuple(groups)

    # ---- transitions

    def append(self, tokens: int) -> Append:
        """`tokens` more tokens in every row."""
        return self._once(("append", tokens), lambda: self._append(tokens))

    def crop(self, tokens: int) -> Crop:
        """Without the last `tokens` tokens, 0 < tokens < length."""
        return self._once(("crop", tokens), lambda: self._crop(tokens))

    def select(self, rows: Sequence[int]) -> Select:
        """Row i becomes what row rows[i] is now."""
        chosen = tuple(rows)
        return self._once(("select", chosen), lambda: self._select(chosen))

    def _append(self, tokens: int) -> Append:
        length = self.length + tokens
        rows: list[int] = []
        starts: list[int] = []
        keeps: list[KeepCopy] = []
        kept = list(self.kept)
        open_start = self.open_start.copy()
        plans: dict[tuple[int, int], tuple[list[int], list[Run], int]] = {}
        for row in range(self.rows):
            at = (int(open_start[row]), self.padding[row])
            if at not in plans:
                plans[at] = self._plan(*at, length)
            blocks, runs, open_start[row] = plans[at]
            rows += [row] * len(blocks)
            starts += blocks
            for run in runs:
                keeps.append(KeepCopy(row, row + 1, *run, sum(n for _, n in kept[row])))
                kept[row] = _with_run(kept[row], run)
        if not starts:
            after = replace(self, length=length, _known=WeakValueDictionary())
            return Append(after, _index(), _index(), ())
        new_rows, new_starts = _index(rows), _index(starts)
        after = replace(
            self,
            length=length,
            kept=tuple(kept),
            open_start=open_start,
            open_base=int(open_start.min()),
            block_rows=np.concatenate([self.block_rows, new_rows]),
            block_starts=np.concatenate([self.block_starts, new_starts]),
            block_valid=np.concatenate([self.block_valid, np.full(len(starts), self.block_tokens)]),
            _known=WeakValueDictionary(),
        )
        return Append(after, new_rows, new_starts, _joined(keeps))

    def _plan(self, at: int, padding: int, length: int) -> tuple[list[int], list[Run], int]:
        """Of a row that is open from `at`: the starts of blocks to code, runs to keep, where it is open then.

        Blocks follow each other from `at`; none crosses from the padding into the sinks or holds a sink.
        """
        blocks: list[int] = []
        runs: list[Run] = []
        head_end = padding + self.sinks
        ahead = self.block_tokens + self.look_back
        while length - at >= ahead:
            if at >= head_end or at + self.block_tokens <= padding:
                blocks.append(at)
                at += self.block_tokens
            elif length - head_end >= ahead:
                runs.append((at, head_end - at))
                at = head_end
            else:
                break
        return blocks, runs, at

    def _crop(self, tokens: int) -> Crop:
        length = self.length - tokens
        look_back = max(self.look_back, min(tokens, self.block_tokens))
        valid = np.minimum(self.block_valid, length - self.block_starts)
        # A record is kept for at least a quarter of a block: fewer tokens cost less as they are, and however often
        # blocks are cut, records take at most four times what whole ones would.
        freeze = np.flatnonzero(
            (valid > 0) & (valid < self.block_valid) & (4 * valid < self.block_tokens)
        )
        kept = [_cropped(runs, length) for runs in self.kept]
        keeps: list[KeepCopy] = []
        for i in freeze:
            row, run = int(self.block_rows[i]), (int(self.block_starts[i]), int(valid[i]))
            keeps.append(KeepCopy(row, row + 1, *run, sum(n for _, n in kept[row])))
            kept[row] = _with_run(kept[row], run)
        stays = valid > 0
        stays[freeze] = False
        stay = np.flatnonzero(stays)
        after = replace(
            self,
            length=length,
            look_back=look_back,
            kept=tuple(kept),
            open_start=np.minimum(self.open_start, length),
            open_base=min(self.open_base, length),
            block_rows=self.block_rows[stay],
            block_starts=self.block_starts[stay],
            block_valid=valid[stay],
            _known=WeakValueDictionary(),
        )
        return Crop(after, stay, np.flatnonzero(~stays), freeze, tuple(keeps))

    def _select(self, rows: tuple[int, ...]) -> Select:
        order = np.argsort(self.block_rows, kind="stable")
        bounds = np.searchsorted(self.block_rows[order], np.arange(self.rows + 1))
        parts = [order[bounds[row] : bounds[row + 1]] for row in rows]
        blocks = np.concatenate(parts)
        after = replace(
            self,
            rows=len(rows),
            padding=tuple(self.padding[row] for row in rows),
            kept=tuple(self.kept[row] for row in rows),
            open_start=self.open_start[list(rows)],
            block_rows=np.repeat(np.arange(len(rows)), [len(part) for part in parts]),
            block_starts=self.block_starts[blocks],
            block_valid=self.block_valid[blocks],
            _known=WeakValueDictionary(),
        )
        return Select(after, blocks, rows)


def _with_run(runs: tuple[Run, ...], run: Run) -> tuple[Run, ...]:
    """The runs and one more at their end, joined where it continues the last."""
    if runs and sum(runs[-1]) == run[0]:
        return (*runs[:-1], (runs[-1][0], runs[-1][1] + run[1]))
    return (*runs, run)


def _cropped(runs: tuple[Run, ...], length: int) -> tuple[Run, ...]:
    return tuple((start, min(n, length - start)) for start, n in runs if start < length)


def _joined(keeps: Sequence[KeepCopy]) -> tuple[KeepCopy, ...]:
    """Copies of neighbouring rows that are the same otherwise, as one."""
    joined: list[KeepCopy] = []
    for keep in keeps:
        last = joined[-1] if joined else None
        if (
            last
            and last.end_row == keep.first_row
            and replace(last, end_row=keep.end_row) == replace(keep, first_row=last.first_row)
        ):
            joined[-1] = replace(last, end_row=keep.end_row)
        else:
            joined.append(keep)
    return tuple(joined)
