"""Entropy tables that all components share, and which table each component takes in each set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq import spec
from speckv_pynq.codebook import COST_UNIT, ESCAPE_BITS, FULL, MAX_RAW_BITS, Tables

Floats = npt.NDArray[np.float64]
REACH = 1023  # values beyond are counted as +-REACH
WIDTH = 2 * REACH + 1
VALUES = np.arange(-REACH, REACH + 1)
HALVES = (0, 1, 2, 3, 5, 8, 11, 15)
# Of a table's counts, this share (and so many counts) comes from a two-sided exponential of the same mean size and
# from one four times as wide: what calibration has not seen costs a few more bits, not an escape.
TAIL_SHARE, TAIL_COUNTS = 0.004, 24.0
ROUNDS_TABLES, ROUNDS_SETS = 6, 4


@dataclass
class Fitted:
    """tables; classes: one (table sets, components) int64 a unit, of codebook.Unit."""

    tables: Tables
    classes: list[torch.Tensor]


def fit(
    symbols: list[torch.Tensor],
    block_tokens: int,
    table_sets: int,
    classes: int,
    progress: Callable[[int], None] = lambda units: None,
) -> Fitted:
    """symbols: one a unit, (tokens, components) int16 of whole blocks. Sets differ by the blocks that choose them."""
    histograms = [_histogram(q) for q in symbols]
    stacked = torch.cat(histograms)
    tables, chosen = _cluster(stacked, None, classes)
    parts = [c.repeat(table_sets, 1) for c in chosen.split([len(h) for h in histograms])]
    if table_sets == 1:
        return Fitted(tables, parts)
    cost = _values_cost(tables).to(stacked.device)
    by_set = []
    for i, q in enumerate(symbols):
        by_set.append(_split(q, block_tokens, table_sets, cost))
        progress(i)
    items = torch.cat([h.flatten(0, 1) for h in by_set])
    tables, chosen = _cluster(items, tables, classes)
    sizes = [h.shape[0] * h.shape[1] for h in by_set]
    parts = [c.view(table_sets, -1) for c in chosen.split(sizes)]
    return Fitted(tables, parts)


def record_bytes(
    q: torch.Tensor, classes: torch.Tensor, tables: Tables, block: int
) -> torch.Tensor:
    """(blocks,) int64: bytes of the records of q (blocks * block, components), each under its cheapest set."""
    cost = _values_cost(tables).to(q.device)
    by_set = torch.stack([_bits(q, c.to(q.device), cost, block) for c in classes], 1)
    lines = (by_set.amin(1) / 8 + 64 + 2 * spec.ENTROPY_LANES) / spec.LINE_BYTES
    return torch.ceil(lines).long() * spec.LINE_BYTES


def _histogram(q: torch.Tensor) -> torch.Tensor:
    """(components, WIDTH) float32 counts of the values of q (tokens, components)."""
    components = q.shape[1]
    base = torch.arange(components, device=q.device) * WIDTH + REACH
    flat = (q.long().clamp(-REACH, REACH) + base).flatten()
    counts = torch.bincount(flat, minlength=components * WIDTH)
    return counts.view(components, WIDTH).float()


def _cluster(
    items: torch.Tensor, start: Tables | None, classes: int
) -> tuple[Tables, torch.Tensor]:
    """Tables, and the class of each of items (n, WIDTH): each takes the table that codes it best, and so on."""
    size = torch.from_numpy(np.abs(VALUES)).float().to(items.device)
    if start is None:
        mean = (items @ size / items.sum(1).clamp_min(1)).clamp_min(1e-4).log2()
        low, high = mean.min(), mean.max() + 1e-3
        chosen = ((mean - low) / (high - low) * classes).long().clamp(0, classes - 1)
    else:
        chosen = (items @ _values_cost(start).to(items.device).T).argmin(1)
    for _ in range(ROUNDS_TABLES):
        tables = _tables(_sum_by(items, chosen))
        chosen = (items @ _values_cost(tables).to(items.device).T).argmin(1)
    return tables, chosen


def _sum_by(items: torch.Tensor, chosen: torch.Tensor) -> Floats:
    """(classes in use, WIDTH): sums of the items of each class."""
    _, dense = chosen.unique(return_inverse=True)
    sums = torch.zeros(int(dense.max()) + 1, WIDTH, device=items.device, dtype=torch.float64)
    for i in range(len(sums)):
        sums[i] = items[dense == i].sum(0, dtype=torch.float64)
    found: Floats = sums.cpu().numpy()
    return found


def _tables(sums: Floats) -> Tables:
    """One table for each row of counts (classes, WIDTH)."""
    rows = [_table(counts) for counts in sums]
    frequency = np.stack([row[0] for row in rows])
    raw_bits = np.array([row[1] for row in rows], np.uint8)
    half = np.array([row[2] for row in rows], np.uint8)
    return Tables(frequency, Tables.costs(frequency, raw_bits, half), raw_bits, half)


def _table(counts: Floats) -> tuple[npt.NDArray[np.uint16], int, int]:
    """Frequencies, raw_bits and half that code these counts in the fewest bits."""
    counts = _smoothed(counts)
    total = counts.sum()
    spread = np.sqrt((counts * VALUES**2).sum() / total)
    most = min(MAX_RAW_BITS, max(0, int(np.ceil(np.log2(max(spread, 1e-9) / 1.5)))))
    best: tuple[float, npt.NDArray[np.uint16], int, int] | None = None
    for raw in range(max(0, most - 2), most + 1):
        at = (VALUES >> raw) - (-REACH >> raw)
        coarse = np.bincount(at, counts).astype(np.float64)  # 0 stands at len // 2
        for half in HALVES:
            frequency = _frequencies(coarse, half)
            bits = _coded_bits(coarse, frequency, half) + raw * total
            if best is None or bits < best[0]:
                best = bits, frequency, raw, half
    assert best is not None
    return best[1:]


def _smoothed(counts: Floats) -> Floats:
    total = max(1.0, float(counts.sum()))
    size = float((counts * np.abs(VALUES)).sum()) / total
    tails = np.zeros(WIDTH)
    for wide in (1.5, 4.0):
        tail = np.exp(-np.abs(VALUES) / (wide * size + 0.15))
        tails += tail / tail.sum() / 2
    return counts + (TAIL_SHARE * total + TAIL_COUNTS) * tails


def _frequencies(coarse: Floats, half: int) -> npt.NDArray[np.uint16]:
    """(ENTROPY_SYMBOLS,): of -half..half and the escape, each at least 1, FULL together."""
    zero = len(coarse) // 2
    low, high = max(0, zero - half), min(len(coarse), zero + half + 1)
    inside = np.zeros(2 * half + 1)
    inside[low - zero + half : high - zero + half] = coarse[low:high]
    weights = np.append(inside, coarse.sum() - inside.sum())
    shares = weights / weights.sum() * (FULL - len(weights))
    frequency = 1 + np.floor(shares).astype(np.int64)
    missing = FULL - int(frequency.sum())
    frequency[np.argsort(np.floor(shares) - shares)[:missing]] += 1
    out = np.zeros(spec.ENTROPY_SYMBOLS, np.uint16)
    out[: len(frequency)] = frequency
    return out


def _coded_bits(coarse: Floats, frequency: npt.NDArray[np.uint16], half: int) -> float:
    zero = len(coarse) // 2
    at = np.arange(len(coarse)) - zero + half
    escaped = (at < 0) | (at > 2 * half)
    symbol = np.where(escaped, 2 * half + 1, at)
    bits = spec.ENTROPY_BITS - np.log2(frequency[symbol].astype(float)) + ESCAPE_BITS * escaped
    return float((coarse * bits).sum())


def _values_cost(tables: Tables) -> torch.Tensor:
    """(classes, WIDTH) float32: bits of each value."""
    rows = []
    for cost, raw, half in zip(tables.cost, tables.raw_bits, tables.half, strict=True):
        high = (VALUES >> int(raw)) + int(half)
        symbol = np.where((high < 0) | (high > 2 * int(half)), 2 * int(half) + 1, high)
        rows.append(cost[symbol] / COST_UNIT)
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def _bits(q: torch.Tensor, chosen: torch.Tensor, cost: torch.Tensor, block: int) -> torch.Tensor:
    """(blocks,): bits of each block of q (blocks * block, components) with these classes (components,)."""
    at = q.long().clamp(-REACH, REACH) + REACH + chosen * WIDTH
    return cost.flatten()[at].sum(1).view(-1, block).sum(1)


def _split(q: torch.Tensor, block: int, sets: int, cost: torch.Tensor) -> torch.Tensor:
    """(sets, components, WIDTH): counts of the blocks of each set. Sets begin as quarters by loudness."""
    loud = (q.float().abs() / q.float().abs().mean(0).clamp_min(1e-3)).sum(1).view(-1, block).sum(1)
    assigned = torch.argsort(torch.argsort(loud)) * sets // len(loud)
    whole = _histogram(q)
    blocks = q.view(-1, block, q.shape[1])
    for turn in range(ROUNDS_SETS + 1):
        counts = torch.stack([_histogram(blocks[assigned == s].flatten(0, 1)) for s in range(sets)])
        if turn == ROUNDS_SETS:
            break
        # a part of the whole in each set, so that one of few blocks stays usable
        shares = counts + 0.02 * whole
        chosen = (shares @ cost.T).argmin(2)
        assigned = torch.stack([_bits(q, c, cost, block) for c in chosen], 1).argmin(1)
    return counts + 0.02 * whole
