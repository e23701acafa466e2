"""Which coded blocks of a layer a decoding step reads: a ranker of blocks, and a cache's layout as it sees it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from speckv_pynq.integrations._layout import Index, Layout
from speckv_pynq.prefetch.ranking import Ranker

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass
class Lane:
    """Rows whose blocks begin at the same positions, and their ranker.

    first: the position of their first token. The ranker has blocks of its own for the sinks, the first of them filled
    up with `fill` copies of the first key: so the blocks behind are those that are coded.
    """

    rows: Index
    first: int
    fill: int
    ranker: Ranker

    @property
    def offset(self) -> int:
        """The position that a ranker's block 0 would begin at."""
        return self.first - self.fill


class Chooser:
    """Rankers for the rows of a batch, of which those with equal padding share one.

    A coded block is the ranker's block that holds its middle: they are the same but behind a crop into the middle of
    one.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_dim: int,
        block_tokens: int,
        recent: int,
        budget: float,
        least_blocks: int,
        fit_layers: bool,
    ) -> None:
        self._shape = layers, heads, head_dim
        self._block_tokens, self._budget, self._least = block_tokens, budget, least_blocks
        self._fit_layers = fit_layers
        # With the newest token, the open run has at most so many: they are read exact, whatever is chosen.
        self._recent_blocks = -(-(recent + block_tokens) // block_tokens)
        self._lanes: list[Lane] = []
        self._lengths = [0] * layers  # positions whose keys are known
        self._spread: dict[int, Floats] = {}  # by layer, until all are seen: as in `fit`
        self._factors: Floats | None = (
            None  # (layers, rows): what a layer may read, 1: its even share
        )
        self._spots: tuple[Layout | None, Index, Index] = None, np.empty(0, int), np.empty(0, int)

    # ---- what the sequences are

    def begin(self, layout: Layout, first: Index) -> None:
        """Forgets all and begins with sequences of this padding. first: (rows,) each row's first position that counts.

        Padding that the layout was not told of is behind `first` all the same: its blocks are chosen last.
        """
        layers, size = self._shape[0], self._block_tokens
        self._lanes, self._lengths, self._factors = [], [0] * layers, None
        pads, fill = np.array(layout.padding), -layout.sinks % size
        for pad in np.unique(pads).tolist():
            rows = np.flatnonzero(pads == pad)
            untold = np.where(first[rows] > pad, first[rows] - pad + fill, 0)
            ranker = Ranker(
                layers,
                len(rows),
                *self._shape[1:],
                block_tokens=size,
                sink_blocks=-(-layout.sinks // size),
                recent_blocks=self._recent_blocks,
                padding=untold,
            )
            self._lanes.append(Lane(rows, pad, fill, ranker))

    @property
    def begun(self) -> bool:
        """Whether it knows of any sequence."""
        return bool(self._lanes)

    @property
    def nbytes(self) -> int:
        """Bytes that the rankers hold."""
        return sum(lane.ranker.nbytes for lane in self._lanes)

    def known(self, layer: int) -> int:
        """Positions whose keys this layer's rankers have seen."""
        return self._lengths[layer] if self._lanes else 0

    def extend(self, layer: int, keys: Floats) -> None:
        """Appends (rows, heads, tokens, head_dim) keys as attention uses them, behind the known ones."""
        at, end = self._lengths[layer], self._lengths[layer] + keys.shape[2]
        for lane in self._lanes:
            new = keys[lane.rows][:, :, max(0, lane.first - at) :]
            if at <= lane.first < end:
                new = np.concatenate((new[:, :, :1].repeat(lane.fill, axis=2), new), axis=2)
            lane.ranker.extend(layer, new)
        self._lengths[layer] = end

    def crop(self, length: int) -> None:
        """Keeps the first `length` positions."""
        for lane in self._lanes:
            lane.ranker.crop(length - lane.offset if length > lane.first else 0)
        self._lengths = [min(length, known) for known in self._lengths]

    def select(self, rows: Sequence[int]) -> None:
        """Row i becomes what row rows[i] is."""
        lanes = []
        chosen = np.array(rows)
        for lane in self._lanes:
            now = np.flatnonzero(np.isin(chosen, lane.rows))
            if len(now):
                lane.ranker.select(np.searchsorted(lane.rows, chosen[now]))
                lanes.append(replace(lane, rows=now))
        self._lanes = lanes
        if self._factors is not None:
            self._factors = self._factors[:, chosen]

    def forget(self) -> None:
        """Of sequences that are gone."""
        self._lanes = []

    def same_as(self, other: Chooser) -> None:
        """Takes over what `other` knows, as a copy."""
        self._lanes, self._lengths = copy.deepcopy(other._lanes), list(other._lengths)
        self._factors = other._factors

    # ---- what is read

    def choose(self, layer: int, query: Floats, layout: Layout) -> Index:
        """The coded blocks to read: places in the layout's arrays, by row, then by position.

        query: (rows, query heads, head_dim). layout: without the newest token, whose key the rankers know.
        """
        return self._coded(
            layer, layout, [self._choice(layer, lane, query[lane.rows]) for lane in self._lanes]
        )

    def ahead(self, layer: int, layout: Layout) -> Index:
        """As `choose`, before the query is there: by what is known of the steps before."""
        found = []
        for lane in self._lanes:
            blocks = lane.ranker.ahead(layer, int(self._budgets(layer, lane).min()))
            found.append((blocks, np.ones(blocks.shape, bool)))
        return self._coded(layer, layout, found)

    def observe(self, layer: int, positions: Index, mass: Floats) -> None:
        """Learns from attention: (rows, n) positions read, -1 for none, and the share that each got, 1 in all."""
        for lane in self._lanes:
            if lane.ranker.blocks(layer):
                self._tell(layer, lane.ranker, *self._by_block(layer, lane, positions, mass))

    def fit(self, layer: int, mass: Floats) -> None:
        """Once it has been told of each layer, layers whose attention is spread wider may read more, others less.

        mass: (rows, positions), the attention of some tokens. What a row reads of all layers together stays the same:
        the blocks with the most attention, whichever layer's, but each layer at least half of its even share.
        """
        if not self._fit_layers:
            return
        positions = np.broadcast_to(np.arange(mass.shape[1]), mass.shape)
        most = max(lane.ranker.blocks(layer) for lane in self._lanes)
        spread = np.full((len(mass), most), -1, np.float32)  # less than any block has
        for lane in self._lanes:
            shares = np.sort(self._by_block(layer, lane, positions, mass)[1], 1)[:, ::-1]
            spread[lane.rows, : shares.shape[1]] = shares
        self._spread[layer] = spread
        if len(self._spread) == self._shape[0]:
            self._factors = self._fitted(np.stack([self._spread[i] for i in sorted(self._spread)]))
            self._spread = {}

    # ---- inside

    def _fitted(self, spread: Floats) -> Floats:
        """(layers, rows): parts of the even share. spread: (layers, rows, blocks), the largest first."""
        layers, rows, blocks = spread.shape
        factors = np.ones((layers, rows), np.float32)
        for lane in self._lanes:
            even = self._even(0, lane)
            least = even // 2
            if even >= lane.ranker.blocks(0):
                continue
            for row in lane.rows:
                rest = spread[:, row, least:].ravel()
                best = np.argsort(-rest, kind="stable")[: layers * (even - least)]
                extra = np.bincount(best // (blocks - least), minlength=layers)
                factors[:, row] = (least + extra) / even
        return factors

    def _by_block(
        self, layer: int, lane: Lane, positions: Index, mass: Floats
    ) -> tuple[Flags, Floats]:
        """(rows of the lane, its ranker's blocks) twice: which have a position, and the sum of their shares."""
        count = lane.ranker.blocks(layer)
        spots = (positions[lane.rows] - lane.offset) // self._block_tokens
        read = positions[lane.rows] >= lane.first
        spots = np.where(read, np.minimum(spots, count - 1), count)
        at = np.arange(len(spots))[:, None] * (count + 1) + spots
        flat = np.bincount(at.ravel(), mass[lane.rows].ravel(), len(spots) * (count + 1))
        seen = np.bincount(at.ravel(), minlength=len(flat)).reshape(len(spots), -1)[:, :-1] > 0
        return seen, flat.reshape(len(spots), -1)[:, :-1].astype(np.float32)

    def _choice(self, layer: int, lane: Lane, query: Floats) -> tuple[Index, Flags]:
        """A lane's best blocks, (rows, n), and which of them are within each row's budget."""
        ranker, budgets = lane.ranker, self._budgets(layer, lane)
        most = int(budgets.max())
        if (budgets == most).all():
            blocks = ranker.choose(layer, query, most)
            return blocks, np.ones(blocks.shape, bool)
        scores = ranker.scores(layer, query)
        blocks = ranker.choose(layer, query, most)
        scores = np.take_along_axis(scores, blocks, 1)
        scores[blocks >= ranker.blocks(layer) - ranker.recent_blocks] = np.inf
        scores[blocks < ranker.sink_blocks] = np.inf
        rank = np.argsort(np.argsort(-scores, 1, kind="stable"), 1, kind="stable")
        return blocks, rank < budgets[:, None]

    def _tell(self, layer: int, ranker: Ranker, seen: Flags, shares: Floats) -> None:
        """A ranker takes as many blocks of each row: what a row has read less of is a block it has read, again."""
        counts = seen.sum(1)
        if not counts.min():
            return
        order = np.argsort(~seen, axis=1, kind="stable")[:, : counts.max()]
        spare = np.arange(order.shape[1]) >= counts[:, None]
        order = np.where(spare, order[:, :1], order)
        ranker.observe(layer, order, np.take_along_axis(shares, order, 1))

    def _even(self, layer: int, lane: Lane) -> int:
        """How many of a ranker's blocks a step may read in a layer, of all layers' mean."""
        share = math.floor(self._budget * lane.ranker.blocks(layer))
        return max(share, self._least, lane.ranker.forced(layer))

    def _budgets(self, layer: int, lane: Lane) -> Index:
        """The same in this layer, (rows of the lane,)."""
        even, count = self._even(layer, lane), lane.ranker.blocks(layer)
        if self._factors is None or even >= count:
            return np.full(len(lane.rows), even)
        share = np.rint(even * self._factors[layer, lane.rows]).astype(np.int64)
        return np.clip(share, lane.ranker.forced(layer), count)

    def _coded(self, layer: int, layout: Layout, chosen: list[tuple[Index, Flags]]) -> Index:
        order, spots = self._spots_of(layout)
        count = max(lane.ranker.blocks(layer) for lane in self._lanes)
        wanted = np.zeros((layout.rows, count + 1), bool)
        for lane, (blocks, within) in zip(self._lanes, chosen, strict=True):
            wanted[lane.rows[:, None], blocks] = within
        wanted[:, count] = False
        return order[wanted[layout.block_rows[order], np.minimum(spots, count)]]

    def _spots_of(self, layout: Layout) -> tuple[Index, Index]:
        """The blocks of a layout in reading order, and of each the ranker's block; past all for padding."""
        known, order, spots = self._spots
        if known is not layout:
            order = np.lexsort((layout.block_starts, layout.block_rows))
            first, offset = np.zeros((2, layout.rows), np.int64)
            for lane in self._lanes:
                first[lane.rows], offset[lane.rows] = lane.first, lane.offset
            rows, middle = layout.block_rows, layout.block_starts + layout.block_valid // 2
            spots = (middle - offset[rows]) // self._block_tokens
            spots = np.where(middle < first[rows], np.iinfo(np.int64).max, spots)[order]
            self._spots = layout, order, spots
        return order, spots
