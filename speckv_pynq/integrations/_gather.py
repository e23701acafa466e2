"""What one token attends to, brought together: kept tokens, chosen blocks, the open run, the token itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from speckv_pynq.integrations._layout import Index, Layout
from speckv_pynq.integrations._store import State
from speckv_pynq.integrations._workspace import Workspace
from speckv_pynq.tiers import TierManager


class Gathered(NamedTuple):
    """K and V, (rows, heads, width, head_dim) views of a workspace, and the position of each place.

    positions: (rows, width) int64, -1 where nothing stands: K and V are 0 there.
    """

    keys: torch.Tensor
    values: torch.Tensor
    positions: Index


class Places(NamedTuple):
    """Where tokens stand in the workspace, in all rows: kept ones from 0, blocks from `blocks`, open ones from `open`.

    block_rows, block_places: (n,) of the chosen blocks.
    """

    blocks: int
    open: int
    width: int
    block_rows: Index
    block_places: Index


def gather(
    before: State, chosen: Index, new: torch.Tensor, workspace: Workspace, tiers: TierManager
) -> Gathered:
    """Fetches the chosen blocks, and only them, and puts them in order between what is held exact.

    before: the state before the new token. chosen: (n,) places of coded blocks, by row, then by position.
    new: (2, rows, heads, 1, head_dim), K and V of the new token.
    """
    layout = before.layout
    places = _places(layout, chosen)
    workspace.reserve(layout.rows, places.width, new.dtype, new.device)
    if len(chosen):
        tiers.get(before.handles[chosen], places.block_rows, places.block_places, workspace.target)
        workspace.upload(places.open)
    if places.blocks:
        workspace.part(0, places.blocks).copy_(before.kept.narrow(3, 0, places.blocks))
    for group in layout.groups:
        rows = (group.first_row, group.end_row)
        tokens = layout.length - group.open_start
        opened = before.open[:, slice(*rows)].narrow(3, group.open_start - layout.open_base, tokens)
        workspace.part(places.open, tokens, rows).copy_(opened)
        workspace.part(places.open + tokens, 1, rows).copy_(new[:, slice(*rows)])
    positions = _positions(layout, chosen, places)
    keys, values = workspace.read(places.width)
    empty = positions < 0
    if empty.any():
        holes = torch.from_numpy(empty)[:, None, :, None].to(new.device)
        keys.masked_fill_(holes, 0)
        values.masked_fill_(holes, 0)
    return Gathered(keys, values, positions)


def _places(layout: Layout, chosen: Index) -> Places:
    rows = layout.block_rows[chosen]
    counts = np.bincount(rows, minlength=layout.rows)
    rank = np.arange(len(chosen)) - (np.cumsum(counts) - counts)[rows]
    first = layout.kept_tokens
    opened = first + int(counts.max()) * layout.block_tokens
    width = opened + layout.length + 1 - int(layout.open_start.min())
    return Places(first, opened, width, rows, first + rank * layout.block_tokens)


def _positions(layout: Layout, chosen: Index, places: Places) -> Index:
    positions = np.full((layout.rows, places.width), -1, np.int64)
    for group in layout.groups:
        rows, at = slice(group.first_row, group.end_row), 0
        for start, tokens in group.kept:
            positions[rows, at : at + tokens] = np.arange(start, start + tokens)
            at += tokens
        tokens = layout.length + 1 - group.open_start
        positions[rows, places.open : places.open + tokens] = group.open_start + np.arange(tokens)
    inside = np.arange(layout.block_tokens)
    held = layout.block_starts[chosen, None] + inside
    held = np.where(inside < layout.block_valid[chosen, None], held, -1)
    positions[places.block_rows[:, None], places.block_places[:, None] + inside] = held
    return positions
