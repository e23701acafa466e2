"""The picture of an evaluation: how much smaller a cache gets, and what that costs in perplexity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INK, GRID = "#222222", "#dddddd"
OURS = ("#222222", "#0072b2", "#009e73", "#cc79a7", "#56b4e9")
RIVAL = ("#d55e00", "#e69f00", "#7f7f7f", "#8c564b")
LINEAR_PERCENT = 0.1  # the axis is linear below, logarithmic above
BOUND_PERCENT = 0.5
TICKS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
OFFSETS = [
    (a * x, b * y) for y in (7, 18, 30, 42) for x in (7, 1) for b in (1, -1) for a in (1, -1)
]


@dataclass(frozen=True)
class Point:
    """One cache. family: points of one share a colour, and a line if joined; label: what stands beside the point.

    ratio: FP16 bytes of coded blocks over bytes of their records; dppl and its 95 % interval in percent.
    """

    family: str
    label: str
    ours: bool
    joined: bool
    ratio: float
    dppl: float
    low: float
    high: float


def save(points: Sequence[Point], title: str, path: Path) -> None:
    """Writes a PNG: ratio (logarithmic) against rise of perplexity, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {"axes.edgecolor": INK, "text.color": INK, "font.size": 9, "axes.axisbelow": True}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(9, 5.6), layout="constrained")
        try:
            _draw(axes, points)
            axes.set_title(title, fontsize=10)
            figure.canvas.draw()  # labels go where the final layout leaves room
            _label(figure, axes, points)
            figure.savefig(path, dpi=140)
        finally:
            pyplot.close(figure)


def _draw(axes: Any, points: Sequence[Point]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=LINEAR_PERCENT, linscale=0.7)
    colours = _colours(points)
    for family, members in _families(points):
        ratios = [p.ratio for p in members]
        errors = [
            [0 if math.isnan(e) else max(0, e) for e in side]
            for side in (
                [p.dppl - p.low for p in members],
                [p.high - p.dppl for p in members],
            )
        ]
        axes.errorbar(
            ratios,
            [p.dppl for p in members],
            errors,
            marker="o" if members[0].ours else "s",
            ms=5.5 if members[0].ours else 5,
            lw=1.6 if members[0].ours else 1,
            ls=("-" if members[0].ours else "--") if members[0].joined else "none",
            elinewidth=1,
            capsize=2.5,
            color=colours[family],
            label=family,
        )
    axes.axhline(0, color=INK, lw=0.8)
    axes.axhline(BOUND_PERCENT, color=INK, lw=0.8, ls=":")
    _axes(axes, points)
    axes.legend(loc="upper left", fontsize=8, frameon=False)


def _axes(axes: Any, points: Sequence[Point]) -> None:
    ratios = [p.ratio for p in points]
    axes.set_xlim(0.9 * min(ratios), 1.25 * max(ratios))
    shown = [t for t in TICKS if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
    axes.set_xticks(shown, [f"{t:g}x" for t in shown])
    axes.set_xticks([], minor=True)
    ends = [e for p in points for e in (p.low, p.high, p.dppl) if not math.isnan(e)]
    low, high = min(0, *ends), max(1, *ends)
    marks = [0, *(s * m * 10**e for s in (1, -1) for e in range(-1, 5) for m in (1, 2, 5))]
    marks = [m for m in sorted(marks) if 1.5 * low - 0.05 <= m <= 3 * high]
    axes.set_ylim(min(-0.04, 1.5 * low), 3 * high)
    axes.set_yticks(marks, [f"{m:+g} %" if m else "0" for m in marks])
    axes.set_yticks([], minor=True)
    axes.grid(color=GRID, lw=0.6)
    axes.set(
        xlabel="FP16 bytes of coded blocks / bytes of their records (further right is smaller)",
        ylabel="rise of perplexity, 95 % interval (lower is closer)",
    )


def _label(figure: Any, axes: Any, points: Sequence[Point]) -> None:
    """Each label at the nearest offset where it covers no other label and no point."""
    renderer = figure.canvas.get_renderer()
    colours = _colours(points)
    places = [axes.transData.transform((p.ratio, p.dppl)) for p in points]
    taken: list[Any] = [_box(x, y, 4) for x, y in places]
    frame = axes.get_window_extent(renderer)
    for point in points:
        choices: list[tuple[int, int, Any]] = []
        for dx, dy in OFFSETS:
            text = axes.annotate(
                point.label,
                (point.ratio, point.dppl),
                xytext=(dx, dy),
                textcoords="offset points",
                ha="left" if dx > 0 else "right",
                va="bottom" if dy > 0 else "top",
                fontsize=8,
                color=colours[point.family],
            )
            box = text.get_window_extent(renderer)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0
            choices.append((sum(map(box.overlaps, taken)) + 9 * (not inside), len(choices), text))
            if choices[-1][0] == 0:
                break
        best = min(choices, key=lambda choice: choice[:2])[2]
        for *_, text in choices:
            if text is not best:
                text.remove()
        taken.append(best.get_window_extent(renderer))


def _box(x: float, y: float, half: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(x - half, y - half, x + half, y + half)


def _families(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """In order of appearance, each by rising ratio."""
    names = dict.fromkeys(p.family for p in points)
    members = ([p for p in points if p.family == name] for name in names)
    return [
        (name, sorted(m, key=lambda p: p.ratio)) for name, m in zip(names, members, strict=True)
    ]


def _colours(points: Sequence[Point]) -> dict[str, str]:
    ours, rivals = itertools.cycle(OURS), itertools.cycle(RIVAL)
    out: dict[str, str] = {}
    for p in points:
        if p.family not in out:
            out[p.family] = next(ours) if p.ours else next(rivals)
    return out
