"""`speckv bench`: what can be measured of speed and memory; one module a measurement."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from speckv_pynq.cli import (
    bench_ablation,
    bench_codec,
    bench_faults,
    bench_fragmentation,
    bench_generate,
    bench_lossless,
    bench_memory,
    bench_policies,
    bench_predictor,
    bench_prefetch,
    bench_returns,
    bench_rtl,
    bench_sharing,
    bench_soak,
    bench_sparse,
    bench_tiers,
    options,
)
from speckv_pynq.cli.output import Output

BENCHES = (
    bench_codec, bench_generate, bench_lossless, bench_memory, bench_tiers, bench_prefetch,
)  # fmt: skip
# Not part of `all`: minutes, or texts and a GPU; the last three check more than they measure.
ON_REQUEST = (
    bench_ablation, bench_policies, bench_predictor, bench_returns, bench_sparse, bench_sharing, bench_soak,
    bench_fragmentation, bench_faults, bench_rtl,
)  # fmt: skip

DESCRIPTION = """\
Measurements on this machine. Figures that are compared with one another come from the same run, interleaved, as
medians. Without a name all of them run, but ablation, policies, predictor, returns, sparse, sharing, soak,
fragmentation, faults and rtl.
"""
EPILOG = """\
examples:
  speckv bench codec --json codec.json
  speckv bench                                     all of them
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "bench", help="speed and memory on this machine", description=DESCRIPTION, epilog=EPILOG
    )
    benches = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    for bench in (*BENCHES, *ON_REQUEST):
        bench.register(benches)
    everything = benches.add_parser("all", help="all of these, with their defaults")
    options.add_json(everything)
    everything.set_defaults(run=_run_all, names=[bench.NAME for bench in BENCHES], parser=parser)


def completed(argv: Sequence[str]) -> list[str]:
    """The command line, with `all` where `bench` came without a name."""
    out = list(argv)
    if out[:1] == ["bench"] and (len(out) == 1 or out[1].startswith("--json")):
        out.insert(1, "all")
    return out


def _run_all(arguments: argparse.Namespace, output: Output) -> int:
    figures = {}
    for bench in BENCHES:
        each = arguments.parser.parse_args([bench.NAME])
        figures[bench.NAME] = bench.measure(each, output)
    output.json("bench", figures)
    return 0
