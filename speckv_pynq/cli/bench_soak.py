"""`speckv bench soak`: is the memory system sound over a long run?"""

from __future__ import annotations

import argparse
from typing import Any

from speckv_pynq.bench import machine, soak
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb

NAME = "soak"

DESCRIPTION = """\
Many sequences that come, fork, share prefixes, are overwritten, evicted from small tiers, refused by a full pool, and
go. At every step all accounts are compared with an independent model: bytes of records, references, blocks, leases,
budgets, tables; every block read is compared with what was written, or with what the reference decodes of it. Anything
wrong is an error. Engines: the C library (records raw and int4 mixed), and CXLSpecKVSystem (int4, then raw).
"""
EPILOG = """\
examples:
  speckv bench soak --seconds 10
  speckv bench soak --seconds 600 --engine c --json soak.json

JSON: results, one a run: case, steps, operations, blocks_written, blocks_overwritten, blocks_read, evictions, forks,
shared_blocks, freed_sequences, pool_full, seconds, rss_start, rss_warm, rss_most, held_most (bytes), beyond_growth
(bytes that RSS grew by beyond what the system says that it holds), beyond_slope_per_hour.
"""
ENGINES = {"c": soak.CASES[:1], "python": soak.CASES[1:], "both": soak.CASES}
ROWS = (
    ("steps, all accounts compared after each", "steps"),
    ("operations", "operations"),
    ("blocks written", "blocks_written"),
    ("blocks overwritten", "blocks_overwritten"),
    ("blocks read and compared", "blocks_read"),
    ("evictions", "evictions"),
    ("forks", "forks"),
    ("blocks shared instead of stored", "shared_blocks"),
    ("sequences freed", "freed_sequences"),
    ("calls refused: pool full", "pool_full"),
    ("blocks held, most", "blocks_most"),
)


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME,
        help="a long run with every account checked (not part of all)",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="for each engine; default: 60"
    )
    parser.add_argument(
        "--sequences", type=options.positive, default=1000, metavar="N", help="alive; default: 1000"
    )
    parser.add_argument(
        "--engine", choices=tuple(ENGINES), default="both", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    """CheckFailed, and with it an exit code that is not 0, at the first thing that is wrong."""
    cases = ENGINES[arguments.engine]
    runs = []
    for case in cases:
        halves = sum(other.split()[0] == case.split()[0] for other in cases)
        settings = soak.Settings(
            case, arguments.seconds / halves, arguments.sequences, arguments.seed
        )
        with output.progress(f"soak: {case}", settings.seconds) as advance:
            runs.append(soak.Soak(settings).run(advance))
    rows = [(what, *(f"{getattr(one, name):,}" for one in runs)) for what, name in ROWS]
    rows += [
        ("sequences alive", *(f"{r.sequences_least}..{r.sequences_most}" for r in runs)),
        ("seconds", *(f"{r.seconds:.0f}" for r in runs)),
        ("resident at the start", *(mb(r.rss_start) for r in runs)),
        ("resident after the warm-up", *(mb(r.rss_warm) for r in runs)),
        ("resident, most", *(mb(r.rss_most) for r in runs)),
        ("held by tiers and tables, most", *(mb(r.held_most) for r in runs)),
        ("growth beyond what is held", *(f"{r.beyond_growth / 1e3:.0f} kB" for r in runs)),
        ("  slope", *(f"{r.beyond_slope_per_hour / 1e6:+.2f} MB/h" for r in runs)),
    ]
    output.table(
        f"{arguments.sequences} sequences: no wrong byte, no account off", ("", *cases), rows
    )
    output.note(machine.one_line(machine.describe()))
    return {"sequences": arguments.sequences, "results": [one.report() for one in runs]}
