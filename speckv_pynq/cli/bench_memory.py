"""`speckv bench memory`: memory of a process beside what the cache says it holds."""

from __future__ import annotations

import argparse
from typing import Any

from speckv_pynq.bench import machine, memory
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "memory"

DESCRIPTION = """\
Fills a cache of SmolLM2's shape (30 layers, 3 KV heads of 64, FP16) with synthetic values in fresh processes, no model
in them, and compares the growth of their proportional set size (/proc/self/smaps_rollup) with what the cache's own
accounting says: L1, L2, L3, tables, exact tokens and workspace.
"""
EPILOG = """\
examples:
  speckv bench memory
  speckv bench memory --scheme raw --tokens 16384 --json memory.json

JSON keys: pss_mb, accounted_mb, difference_percent (of the process in the middle), l1_mb, l2_mb, l3_mb, metadata_mb,
exact_mb, workspace_mb, fp16_mb; `results`: all processes.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="memory measured beside memory counted", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_scheme(parser, calibrated=False)
    options.add_counts(
        parser,
        ("tokens", 32768, "of the cache"),
        ("layers", 30, "of the model"),
        ("heads", 3, "for keys and values"),
        ("head-dim", 64, "elements of a head"),
        ("processes", 3, "to measure, one after the other"),
    )
    parser.add_argument(
        "--l1-layers",
        type=float,
        default=1.0,
        metavar="X",
        help="L1's budget, in layers; default: %(default)s",
    )
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    settings = memory.Settings(
        scheme=arguments.scheme,
        tokens=arguments.tokens,
        layers=arguments.layers,
        heads=arguments.heads,
        head_dim=arguments.head_dim,
        l1_layers=arguments.l1_layers,
    )
    what = f"filling {settings.tokens} tokens in {arguments.processes} processes"
    with output.progress(what, arguments.processes) as advance:
        figures = memory.measure(settings, arguments.processes, advance)
    chosen = memory.median(figures)
    report = chosen.report()
    names = ("l1", "l2", "l3", "metadata", "exact", "workspace", "accounted", "pss")
    output.table(
        f"{settings.scheme}: {settings.tokens} tokens x {settings.layers} layers x {settings.heads} heads x "
        f"{settings.head_dim}; {report['fp16_mb']:.1f} MB in FP16; process in the middle of {len(figures)}",
        ("", "MB"),
        [
            *((name, f"{report[f'{name}_mb']:.1f}") for name in names),
            ("difference", f"{chosen.difference_percent:+.1f} %"),
        ],
    )
    output.note(machine.one_line(machine.describe()))
    return {**report, "processes": len(figures), "results": [m.report() for m in figures]}
