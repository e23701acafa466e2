"""`speckv bench policies`: what each policy of L1 finds there, on traces."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.config import POLICIES
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.bench.policy_traces import Trace

NAME = "policies"
HIT_BLOCKS = 32  # of one get, where hits are timed

DESCRIPTION = """\
The share of blocks that a get finds in L1, by policy, with L1 an eighth, a quarter and half of a trace's blocks: the
policies of this package on their own core, ARC and S3-FIFO to compare, and the optimum that knows the future. Traces:
attention, recorded from the model (at each of the last tokens of a text, in each layer, the blocks with the most
attention: what sparse attention would read); conversations and scans, synthetic.
"""
EPILOG = """\
examples:
  speckv bench policies
  speckv bench policies --text book.txt --budget 0.125 --json policies.json

JSON: `results`, a list of {trace, synthetic, blocks, uses, share, slots, hit_ratios}; hit_us: look-up and policy, us a
block of a get that finds all 32.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="what stays in L1, by policy", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(
        parser,
        ("tokens", 2560, "of the text"),
        ("steps", 512, "of them decoded, the last ones"),
        ("turns", 4000, "of the synthetic conversations, and gets of the scans"),
    )
    parser.add_argument(
        "--text", type=options.existing_file, metavar="FILE", help="default: Python's own documentation"
    )  # fmt: skip
    options.add_block_tokens(parser)
    parser.add_argument(
        "--budget",
        type=float,
        default=0.25,
        metavar="X",
        help="share of a layer's blocks that a token reads; default: %(default)s",
    )
    options.add_model(parser)
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import machine, policies

    _check(arguments)
    started = time.perf_counter()
    with output.stages() as stage:
        traces = _traces(arguments, stage)
        total = len(traces) * len(policies.SHARES) * len(policies.NAMES)
        found = policies.measure(traces, advance=stage("replaying", total))
    hit_us = {name: policies.hit_us(name, HIT_BLOCKS) for name in POLICIES}
    rows: list[tuple[str, ...]] = []
    for figures in found:
        if figures.share == policies.SHARES[0]:
            kind = "synthetic" if figures.synthetic else f"{Path(arguments.model).name}, recorded"
            rows.append((f"{figures.trace} ({kind}): {figures.uses:,} uses of {figures.blocks:,}",))
        ratios = (f"{figures.hit_ratios[name]:.3f}" for name in policies.NAMES)
        rows.append((f"1/{1 / figures.share:.0f}", *ratios))
    output.table("blocks found in L1, of those asked for", ("L1", *policies.NAMES), rows)
    times = ", ".join(f"{name} {us:.3f}" for name, us in hit_us.items())
    output.note(
        f"look-up and policy, us of CPU time a block of a get that finds all {HIT_BLOCKS}: {times}"
    )
    output.note(f"{time.perf_counter() - started:.0f} s; {machine.one_line(machine.describe())}")
    return {
        "model": arguments.model,
        "tokens": arguments.tokens,
        "steps": arguments.steps,
        "block_tokens": arguments.block_tokens,
        "budget": arguments.budget,
        "hit_us": hit_us,
        "results": [asdict(figures) for figures in found],
    }


def _check(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.budget <= 1:
        raise ConfigError(f"--budget {arguments.budget} is not within 0..1")
    most = arguments.tokens - arguments.block_tokens
    if arguments.steps > most:
        raise ConfigError(
            f"--steps {arguments.steps} > {most}: --tokens {arguments.tokens} less one block"
        )


def _traces(
    arguments: argparse.Namespace, stage: Callable[[str, float], Callable[..., None]]
) -> list[Trace]:
    from speckv_pynq.bench import models, policy_traces

    advance = stage("recording attention", arguments.tokens)
    loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    ids = models.text_ids(loaded, arguments.text, arguments.tokens)
    return [
        policy_traces.attention(
            loaded.model, ids, arguments.steps, arguments.block_tokens, arguments.budget, advance
        ),
        policy_traces.conversations(arguments.turns, sessions=200),
        policy_traces.scans(arguments.turns),
    ]
