"""The demo's picture: where the cache's bytes are while tokens are generated, and bytes a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speckv_pynq.bench.demo import Coded, Result
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
SCHEMES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")


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
            f"{loaded.name}: {result.settings.prompt_tokens} prompt tokens, then {len(result.exact.tokens)} generated; "
            f"L1 of {result.settings.l1_share:.0%} of the cache",
            fontsize=10,
        )
        _occupancy(left, result.coded[0])
        _layers(right, result)
        try:
            figure.savefig(path, dpi=130)
        finally:
            pyplot.close(figure)


def _occupancy(axes: Any, result: Coded) -> None:
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
    axes.set(
        xlabel="tokens generated",
        ylabel="MB",
        title=f"{result.config.scheme}: what is held, and where",
    )
    axes.set_xlim(0, len(result.timeline) - 1)
    axes.set_ylim(0, 1.32 * max(full))
    axes.grid(color=GRID, lw=0.6)
    axes.legend(ncols=3, loc="upper left", fontsize=7.5, frameon=False)


def _layers(axes: Any, result: Result) -> None:
    """Record bytes of each layer, of every coded cache, beside what the blocks take in FP16."""
    count = len(result.coded)
    width, titles, full = 0.9 / count, [], 0.0
    for i, coded in enumerate(result.coded):
        tiers, scheme = coded.stats.tiers, coded.config.scheme
        records = _by_layer(tiers.record_bytes_by_layer)
        at = [layer + (i - (count - 1) / 2) * width for layer in range(len(records))]
        colour = SCHEMES[i % len(SCHEMES)]
        axes.bar(at, records, width, color=colour, alpha=0.85, label=f"records, {scheme}")
        titles.append(f"{scheme} {coded.stats.ratio_records:.2f}x")
        full = tiers.block_fp16_bytes / len(records) / MB
    axes.axhline(full, color=INK, lw=1.8, label="the same blocks in FP16")
    axes.set(xlabel="layer", ylabel="MB", title=f"Bytes a layer: {', '.join(titles)} smaller")
    axes.set_ylim(0, 1.32 * full)
    axes.grid(color=GRID, lw=0.6, axis="y")
    axes.legend(loc="upper left", fontsize=7.5, frameon=False)


def _by_layer(record_bytes: tuple[int, ...]) -> list[float]:
    """MB of each layer; what a record holds of several layers, counted with the first, is spread over them."""
    firsts = [layer for layer, n in enumerate(record_bytes) if n]
    each = len(record_bytes) // max(1, len(firsts))
    return [record_bytes[layer - layer % each] / each / MB for layer in range(len(record_bytes))]
