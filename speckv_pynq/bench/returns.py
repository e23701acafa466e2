"""How much of the gap between LRU and the optimum predicted returns close, and what bringing up ahead is worth."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from speckv_pynq.bench import returns_tier as tier
from speckv_pynq.bench.policy_rivals import RIVALS
from speckv_pynq.bench.returns_rivals import LfuAged, Lru, found, most
from speckv_pynq.bench.returns_traces import RequestTrace
from speckv_pynq.prefetch.ahead import ReturnsAhead
from speckv_pynq.prefetch.returns import ReturnPredictor

OTHERS: Final = {"lru": Lru, "lfu-da": LfuAged, **RIVALS}
LABELS: Final = {"unlabelled": tier.nothing, "returns": tier.kind, "informed": tier.informed}
COLD: Final = "cold"  # the predictor with labels, nothing learned before
OPTIMUM: Final = "optimum"
NAMES: Final = (*OTHERS, COLD, *LABELS, OPTIMUM)
AHEAD_SHARE: Final = 1 / 8  # of the tier: what is brought up ahead has that much room beside it
# 25 GB/s for blocks of 512 tokens at 128 KiB a token, an 8B model's FP16 cache.
LINK_BLOCKS_S: Final = 400.0
_T95: Final = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


@dataclass(frozen=True)
class Interval:
    """A mean over traces, and its 95 % interval (Student's; NaN of one trace)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        mean = statistics.fmean(values)
        if len(values) < 2:
            return cls(mean, math.nan, math.nan)
        half = _T95.get(len(values) - 1, 1.96) * statistics.stdev(values) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Kept:
    """Of traces of one kind, with a tier of `share` of the blocks of each that are to be read again, on average.

    hit_share: of all blocks read, found in the tier; equal blocks, so of bytes too. most: what was read before.
    closed: of the gap between LRU and the optimum. margin: hit_share of returns less that of LRU.
    """

    trace: str
    share: float
    slots: float  # mean
    requests: float
    uses: float
    most: float
    hit_share: dict[str, Interval]
    closed: dict[str, Interval]
    margin: Interval


@dataclass(frozen=True)
class Ahead:
    """Blocks brought up ahead beside a tier kept by LRU, or by returns, as shares; traces of one kind taken together.

    fetched, gained: of blocks read; gained are those found that were in neither tier else. on_time: of those that a
    request wanted. wasted: of those fetched, those that no request read.
    """

    trace: str
    share: float
    kept_by: str
    window_s: float
    fetched: float
    gained: float
    on_time: float
    wasted: float


def keep(
    name: str,
    traces: Sequence[RequestTrace],
    training: Sequence[RequestTrace],
    share: float,
    advance: Callable[[], None] = lambda: None,
) -> Kept:
    """Every policy on every trace, from empty; advance: called len(NAMES) times a trace.

    training: what the predictor learned from before, none of `traces`.
    """
    shares: dict[str, list[float]] = {policy: [] for policy in NAMES}
    learned = {policy: _learned(training, label) for policy, label in LABELS.items()}
    for trace in traces:
        slots = _slots(trace, share)
        for policy in NAMES:
            shares[policy].append(_hits(policy, trace, learned, slots) / trace.uses)
            advance()
    closed = {
        policy: [
            (x - low) / (high - low) if high > low else 1.0
            for x, low, high in zip(found, shares["lru"], shares[OPTIMUM], strict=True)
        ]
        for policy, found in shares.items()
    }
    gains = [x - low for x, low in zip(shares["returns"], shares["lru"], strict=True)]
    return Kept(
        trace=name,
        share=share,
        slots=statistics.fmean(_slots(trace, share) for trace in traces),
        requests=statistics.fmean(len(trace.requests) for trace in traces),
        uses=statistics.fmean(trace.uses for trace in traces),
        most=statistics.fmean(1 - trace.blocks / trace.uses for trace in traces),
        hit_share={policy: Interval.of(found) for policy, found in shares.items()},
        closed={policy: Interval.of(found) for policy, found in closed.items()},
        margin=Interval.of(gains),
    )


def ahead(
    name: str,
    traces: Sequence[RequestTrace],
    training: Sequence[RequestTrace],
    share: float,
    kept_by: str,
    window_s: float,
) -> Ahead:
    """What ReturnsAhead brings up, with room of AHEAD_SHARE of the tier beside it; kept_by: "lru" or "returns"."""
    learned = _learned(training, kind=tier.LatestFirst if kept_by == "lru" else ReturnPredictor)
    fetched = gained = late = 0
    for trace in traces:
        predictor, slots = copy.deepcopy(learned), _slots(trace, share)
        replay = tier.AheadTier(
            trace, slots, ReturnsAhead(predictor, window_s), predictor,
            max(1, round(AHEAD_SHARE * slots)), LINK_BLOCKS_S,
        )  # fmt: skip
        replay.run()
        fetched, gained, late = (
            fetched + replay.fetched,
            gained + replay.on_time,
            late + replay.late,
        )
    uses = sum(trace.uses for trace in traces)
    return Ahead(
        name, share, kept_by, window_s, fetched / uses, gained / uses,
        gained / max(1, gained + late), 1 - (gained + late) / fetched if fetched else 0.0,
    )  # fmt: skip


def decision_us(units: int = 1000, repeats: int = 200) -> tuple[float, float]:
    """us of CPU time: of one turn (began, ended), and of ranking `units` idle units, a unit."""
    predictor, trace_s = ReturnPredictor(), 0.0
    for unit in range(units):
        for _ in range(3):
            trace_s += 1.0
            predictor.began(unit, trace_s)
            predictor.ended(unit, trace_s)
    everything, turns, ranks = list(range(units)), [], []
    for i in range(repeats):
        start = time.thread_time()
        for unit in range(64):
            predictor.began(unit, trace_s + i)
            predictor.ended(unit, trace_s + i)
        turns.append((time.thread_time() - start) / 64)
        start = time.thread_time()
        predictor.worth(everything, trace_s + i)
        ranks.append((time.thread_time() - start) / units)
    return 1e6 * statistics.median(turns), 1e6 * statistics.median(ranks)


def _slots(trace: RequestTrace, share: float) -> int:
    return max(1, round(share * trace.live()))


def _hits(policy: str, trace: RequestTrace, learned: dict[str, ReturnPredictor], slots: int) -> int:
    if policy == OPTIMUM:
        return most(trace, slots)
    if policy in OTHERS:
        return found(OTHERS[policy](slots), trace)
    if policy == COLD:
        return tier.Tier(trace, slots, ReturnPredictor()).run()
    return tier.Tier(trace, slots, copy.deepcopy(learned[policy]), LABELS[policy]).run()


def _learned(
    training: Sequence[RequestTrace],
    label: tier.Label = tier.kind,
    kind: type[ReturnPredictor] = ReturnPredictor,
) -> ReturnPredictor:
    predictor = kind()
    for trace in training:
        tier.Tier(trace, trace.blocks, predictor, label).run()  # room for all: nothing to decide
        predictor.forget_all()
    return predictor
