"""The demo's picture: where the cache's bytes are while tokens are generated, and bytes a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speckv_pynq.bench.demo import Result
from speckv_pynq.bench.models import Loaded

MB = 1e6
INK, GRID = "#222222", "#dddddd"
COLOURS = {
    "L3 records": "#0072b2",
    "exact tokens": "#e69f00",
    "page tables": "#999999",
    "L1 decoded": "#56b4e9",
    "L2 staging": "#009e73",
    "workspace": "#cc79a7",
}


def save(result: Result, loaded: Loaded, path: Path) -> None:
    """Writes a PNG of two panels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {"axes.edgecolor": INK, "text.color": INK, "font.size": 9, "axes.axisbelow": True}
    with pyplot.rc_context(style):
        figure, (left, right) = pyplot.subplots(
            1, 2, figsize=(11, 4.4), width_ratios=(3, 2), layout="constrained"
        )
        figure.suptitle(
            f"{loaded.name}, {result.config.scheme}: {result.settings.prompt_tokens} prompt tokens, then "
            f"{len(result.coded.tokens)} generated; L1 of {result.settings.l1_share:.0%} of the cache",
            fontsize=10,
        )
        _occupancy(left, result)
        _layers(right, result)
        try:
            figure.savefig(path, dpi=130)
        finally:
            pyplot.close(figure)


def _occupancy(axes: Any, result: Result) -> None:
    """Held bytes over steps as a stack, what they stand for as a line, copies for speed as lines of their own."""
    steps = range(len(result.timeline))
    held = {
        "L3 records": [s.tiers.l3_bytes / MB for s in result.timeline],
        "exact tokens": [s.exact_bytes / MB for s in result.timeline],
        "page tables": [
            (s.held_bytes - s.tiers.l3_bytes - s.exact_bytes) / MB for s in result.timeline
        ],
    }
    copies = {
        "L1 decoded": [s.tiers.l1_bytes / MB for s in result.timeline],
        "L2 staging": [s.tiers.l2_bytes / MB for s in result.timeline],
        "workspace": [s.workspace_bytes / MB for s in result.timeline],
    }
    axes.stackplot(
        steps,
        *held.values(),
        labels=list(held),
        colors=[COLOURS[name] for name in held],
        alpha=0.85,
    )
    for name, values in copies.items():
        axes.plot(steps, values, color=COLOURS[name], lw=1.8, ls="--", label=f"{name} (a copy)")
    full = [s.fp16_bytes / MB for s in result.timeline]
    axes.plot(steps, full, color=INK, lw=1.8, label="the same cache in FP16")
    axes.set(xlabel="tokens generated", ylabel="MB", title="What is held, and where")
    axes.set_xlim(0, len(result.timeline) - 1)
    axes.set_ylim(0, 1.32 * max(full))
    axes.grid(color=GRID, lw=0.6)
    axes.legend(ncols=3, loc="upper left", fontsize=7.5, frameon=False)


def _layers(axes: Any, result: Result) -> None:
    """Record bytes of each layer beside what its coded blocks take in FP16."""
    tiers = result.stats.tiers
    records = [n / MB for n in tiers.record_bytes_by_layer]
    layers = range(len(records))
    full = tiers.block_fp16_bytes / len(records) / MB
    axes.bar(layers, records, color=COLOURS["L3 records"], alpha=0.85, label="records")
    axes.axhline(full, color=INK, lw=1.8, label="the same blocks in FP16")
    axes.set(
        xlabel="layer",
        ylabel="MB",
        title=f"Bytes a layer: {result.stats.ratio_records:.2f}x smaller",
    )
    axes.set_ylim(0, 1.32 * full)
    axes.grid(color=GRID, lw=0.6, axis="y")
    axes.legend(loc="upper left", fontsize=7.5, frameon=False)
