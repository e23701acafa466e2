"""`speckv bench faults`: what the memory system makes of damaged records, a full pool and a failing device."""

from __future__ import annotations

import argparse
import faulthandler
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import faults, machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "faults"
WATCHDOG_S = 900.0

DESCRIPTION = """\
Faults put into the C library and into CXLSpecKVSystem, one after the other: flipped bits, truncated and swapped
records, full pools, device errors, wrong completions, runs past their deadline, refused allocations. Each must be
refused with its own error; then it is taken out, and what is held must come back byte for byte, with no block,
reference, lease, byte or buffer left over. Anything else is an exit code of 1.
"""
EPILOG = """\
examples:
  speckv bench faults
  speckv bench faults --count 1000000 --json faults.json

JSON: injected (by kind), count, wrong, leaks, hangs, seconds, slowest_s.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME,
        help="faults by the hundred thousand (not part of all)",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--count", type=options.positive, default=100_000, metavar="N", help="default: 100000"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, output: Output) -> int:
    # A call that never returns ends the process with the stacks of all threads, not the user's patience.
    limit_s = WATCHDOG_S + arguments.count / 200
    faulthandler.dump_traceback_later(limit_s, exit=True, file=2)
    try:
        with output.progress("faults", arguments.count) as advance:
            tally = faults.run(arguments.count, arguments.seed, advance)
    finally:
        faulthandler.cancel_dump_traceback_later()
    output.json(f"bench {NAME}", show(tally, output))
    for wrong in tally.wrong:
        output.fail(f"bench {NAME}: {wrong}")
    return 0 if tally.sound else 1


def show(tally: faults.Tally, output: Output) -> dict[str, Any]:
    count = sum(tally.injected.values())
    rows = [(kind, f"{number:,}") for kind, number in tally.injected.items()]
    output.table(f"{count:,} faults in {tally.seconds:.0f} s", ("", "injected"), rows)
    output.say(
        f"wrong bytes {len(tally.wrong)}, leaks {tally.leaks}, hangs {tally.hangs}; "
        f"slowest fault {1e3 * tally.slowest_s:.0f} ms"
    )
    output.note(machine.one_line(machine.describe()))
    return {**asdict(tally), "count": count}
