"""`speckv bench prefetch`: hits beside a prefetch, and what starting one costs."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import machine, prefetch
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "prefetch"

DESCRIPTION = """\
The tier manager with 8 KV heads of 128 (int4), csim with two engines: one thread prefetches many blocks from L3 into
L2, another reads one block that is in L1, over and over. On csim the kernels take the cores that the reader runs on;
its 99th percentile shows that.
"""
EPILOG = """\
examples:
  speckv bench prefetch
  speckv bench prefetch --blocks 1000 --json prefetch.json

JSON keys: hit_idle_us, hit_us, hit_p99_us, hits, call_us_per_block, prefetch_gb_s.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="hits while blocks are prefetched", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(parser, ("repeats", 7, "prefetches"), ("blocks", 256, "in each"))
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    repeats, blocks = arguments.repeats, arguments.blocks
    with output.progress("measuring prefetch", repeats + 1) as advance:
        figures = prefetch.measure(repeats, blocks, advance)
    rows = [
        ("L1 hit, idle", f"{figures.hit_idle_us:.0f} us"),
        ("L1 hit, a prefetch under way", f"{figures.hit_us:.0f} us"),
        ("  99th percentile", f"{figures.hit_p99_us:.0f} us of {figures.hits} hits"),
        ("prefetch(), a block", f"{figures.call_us_per_block:.1f} us"),
        ("L3 to L2 in the background", f"{figures.prefetch_gb_s:.2f} GB/s"),
    ]
    output.table(f"{repeats} prefetches of {blocks} blocks", ("", ""), rows)
    output.note(machine.one_line(machine.describe()))
    return {**asdict(figures), "repeats": repeats, "blocks": blocks}
