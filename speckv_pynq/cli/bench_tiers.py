"""`speckv bench tiers`: look-ups, hits, and blocks from L3 to L1."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import machine, tiers
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "tiers"

DESCRIPTION = """\
The memory system without a model, on one core: look-ups in the page table in batches, hits from C and from Python, and
misses that decode a block of 8 KV heads of 128 (int4) from L3 into L1, beside what the codec alone does. Rounds are
interleaved; medians.
"""
EPILOG = """\
examples:
  speckv bench tiers
  speckv bench tiers --repeats 15 --json tiers.json

JSON keys: lookups_per_s, access_hit_us (from Python, a cursor's read), access_view_us (access, array, release),
access_hit_c_us (access and release), fetch_gb_s, codec_gb_s.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="look-ups, hits and fetches of the tiers", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(parser, ("repeats", 7, "rounds"), ("blocks", 256, "to fetch in a round"))
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    repeats, blocks = arguments.repeats, max(2, arguments.blocks)
    with output.progress("measuring tiers", (repeats + 1) * tiers.CASES) as advance:
        figures = tiers.measure(repeats, blocks, advance)
    rows = [
        ("blocks looked up, in batches", f"{figures.lookups_per_s / 1e6:.1f} million/s"),
        ("hit from C: access, release", f"{figures.access_hit_c_us:.3f} us"),
        ("hit from Python: a cursor's read", f"{figures.access_hit_us:.2f} us"),
        ("hit from Python: access, array, release", f"{figures.access_view_us:.2f} us"),
        ("miss: L3 to L1, int4", f"{figures.fetch_gb_s:.2f} GB/s"),
        ("the codec alone", f"{figures.codec_gb_s:.2f} GB/s"),
    ]
    output.table(f"one core; medians of {repeats} rounds", ("", ""), rows)
    output.note(machine.one_line(machine.describe()))
    return {**asdict(figures), "repeats": repeats}
