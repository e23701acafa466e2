"""`speckv bench returns`: which idle sequences come back next, and what it is worth to know."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.bench.returns import Ahead, Kept
    from speckv_pynq.bench.returns_traces import RequestTrace

NAME = "returns"
SHARES = (1 / 4, 1 / 2, 1.0)
WINDOWS_S = (10.0, 30.0)
TRAINING = 2  # traces learned from before; their seeds begin at TRAINING_SEED
TRAINING_SEED = 1000

DESCRIPTION = """\
Blocks that requests find in a fast tier for idle sequences, with room for a quarter, half and all of the blocks that
are to be read again, on average over a trace: kept by predicted
returns (speckv_pynq.prefetch.returns), by LRU, LFU-DA (GreedyDual-Size-Frequency where blocks are of one size), S3-FIFO
and ARC, and by Belady's optimum, which knows the future; blocks are of one size, so it is exact in bytes. Traces: made
up from published figures (chats; agents with tools; these with callers of an API), an hour each, or recorded ones. What
the predictor learned before comes from other seeds, or from --train. Then: units brought up ahead of their return,
beside that tier, where at most a fifth may be in vain.
"""
EPILOG = """\
examples:
  speckv bench returns
  speckv bench returns --trace conversation_trace.jsonl --train toolagent_trace.jsonl --requests 4000

JSON: `kept`, a list of {trace, share, slots, requests, uses, most, hit_share, closed, margin}: hit_share and closed by
policy, {mean, low, high}: share of blocks read that were found; of the gap between LRU and optimum. most: what could be
found without limits. margin: of returns over LRU. Policies: lru, lfu-da, s3-fifo, arc; cold (nothing learned before),
unlabelled (not told what requests end with), returns, informed (told the scale that each gap was drawn with: what no
predictor can know; not for recorded traces), optimum. `ahead`, a list of {trace, share, kept_by, window_s, fetched,
gained, on_time, wasted}: shares of blocks read, on_time of those fetched and wanted, wasted of those fetched. turn_us,
rank_us: of one turn learned, and of ranking 1,000 idle units, a unit.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="which idle sequences come back next", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(
        parser,
        ("seeds", 5, "traces of each kind"),
        ("minutes", 30, "of each made trace"),
        ("requests", 3000, "of a recorded trace, the first ones"),
        ("sessions", 16, "at once, where a recorded trace gives sessions without times"),
    )
    parser.add_argument(
        "--trace", type=options.existing_file, metavar="FILE",
        help="a recorded one, JSON lines as of Mooncake, Qwen-Bailian or AIPerf; default: made ones",
    )  # fmt: skip
    parser.add_argument(
        "--train", type=options.existing_file, metavar="FILE",
        help="another recorded one to learn from before; default: nothing is learned before",
    )  # fmt: skip
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import machine, returns

    if arguments.train is not None and arguments.trace is None:
        raise ConfigError("--train goes with --trace")
    started = time.perf_counter()
    sets = _recorded(arguments) if arguments.trace else _made(arguments)
    kept, ahead = [], []
    with output.stages() as stage:
        for name, traces, training in sets:
            steps = len(SHARES) * (len(traces) * len(returns.NAMES) + 2 * len(WINDOWS_S))
            advance = stage(f"replaying {name}", steps)
            for share in SHARES:
                kept.append(returns.keep(name, traces, training, share, advance))
                for kept_by in ("lru", "returns"):
                    for window_s in WINDOWS_S:
                        ahead.append(
                            returns.ahead(name, traces, training, share, kept_by, window_s)
                        )
                        advance()
    turn_us, rank_us = returns.decision_us()
    _show_kept(output, kept, arguments.trace is None)
    _show_ahead(output, ahead)
    output.note(f"us of CPU time: {turn_us:.1f} a turn, {rank_us:.3f} an idle unit ranked")
    output.note(f"{time.perf_counter() - started:.0f} s; {machine.one_line(machine.describe())}")
    return {
        "kept": [asdict(figures) for figures in kept],
        "ahead": [asdict(figures) for figures in ahead],
        "turn_us": turn_us,
        "rank_us": rank_us,
        "seeds": arguments.seeds,
        "recorded": arguments.trace is not None,
    }


Sets = Sequence[tuple[str, "list[RequestTrace]", "list[RequestTrace]"]]


def _made(arguments: argparse.Namespace) -> Sets:
    from speckv_pynq.bench.returns_traces import MIXES, made

    hours = arguments.minutes / 60
    return [
        (
            name,
            [made(name, seed, hours) for seed in range(arguments.seeds)],
            [made(name, TRAINING_SEED + seed, hours) for seed in range(TRAINING)],
        )
        for name in MIXES
    ]


def _recorded(arguments: argparse.Namespace) -> Sets:
    from speckv_pynq.bench.returns_reader import read

    def first(path: Path) -> RequestTrace:
        trace = read(path, arguments.sessions).first(arguments.requests)
        if trace.blocks == trace.uses:
            raise ConfigError(f"{path}: none of {trace.uses} blocks is read again")
        return trace

    training = [] if arguments.train is None else [first(arguments.train)]
    return [(arguments.trace.stem, [first(arguments.trace)], training)]


def _show_kept(output: Output, kept: Sequence[Kept], made: bool) -> None:
    names = [name for name in kept[0].hit_share if made or name != "informed"]
    for title, pick in (
        ("blocks found, of all read", lambda figures: figures.hit_share),
        ("of the gap between LRU and the optimum", lambda figures: figures.closed),
    ):
        rows: list[tuple[str, ...]] = []
        for figures in kept:
            if figures.share == kept[0].share:
                rows.append(
                    (f"{figures.trace}: {figures.uses:,.0f} read, {figures.most:.3f} again",)
                )
            values = (_mean(pick(figures)[name]) for name in names)
            rows.append((f"1/{1 / figures.share:.0f}", *values))
        output.table(title, ("tier", *names), rows)
    margins = (f"{f.trace} 1/{1 / f.share:.0f}: {_interval(f.margin)}" for f in kept)
    output.note("returns over LRU, points: " + "; ".join(margins))


def _show_ahead(output: Output, ahead: Sequence[Ahead]) -> None:
    rows = [
        (
            f"{figures.trace} 1/{1 / figures.share:.0f}, {figures.kept_by}, {figures.window_s:.0f} s",
            *(f"{100 * x:.2f} %" for x in (figures.fetched, figures.gained)),
            *(f"{100 * x:.0f} %" for x in (figures.on_time, figures.wasted)),
        )
        for figures in ahead
        if figures.fetched
    ]
    output.table(
        "brought up ahead: tier, what keeps it, window",
        ("", "fetched", "gained", "on time", "in vain"),
        rows,
    )


def _mean(interval: Any) -> str:
    return f"{interval.mean:.3f}"


def _interval(interval: Any) -> str:
    points = [100 * x for x in (interval.mean, interval.low, interval.high)]
    if points[1] != points[1]:
        return f"{points[0]:+.1f}"
    return f"{points[0]:+.1f} ({points[1]:+.1f} to {points[2]:+.1f})"
