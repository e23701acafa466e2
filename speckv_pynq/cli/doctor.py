"""`speckv doctor`: what is installed and usable here, and whether blocks come back from the kernels."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.markup import escape

from speckv_pynq.bench import machine
from speckv_pynq.cli import checks, options
from speckv_pynq.cli.output import Output

DESCRIPTION = """\
Looks at the interpreter, the packages, the native library, boards, GPUs and pools of memory, and codes, reads back
and compares a block with every scheme on csim. Changes nothing; with --board it loads the overlay and tests the
kernels there too.
"""
EPILOG = """\
examples:
  speckv doctor
  speckv doctor --json doctor.json
  speckv doctor --board                            on a PYNQ board: programs its logic

Exit code 1 when csim is not usable or its self-test fails, else 0. JSON: `usable`, `checks`, a list of
{name, state, detail, advice} with state ok, absent (optional) or bad, and `pools`, a list of
{name, usable, nbytes, detail}: the name is what l3_pool takes, nbytes what is free (0: not known).
"""
MARKS = {checks.OK: ("green", "ok"), checks.ABSENT: ("yellow", "--"), checks.BAD: ("red", "bad")}


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "doctor", help="what is installed and usable here", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "--board", action="store_true", help="load the overlay and test the board's kernels"
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def _show(output: Output, state: str, name: str, detail: str) -> None:
    mark, word = MARKS[state]
    line = f"  [{mark}]{word:<3}[/] [bold]{escape(name)}[/]  {escape(detail)}"
    output.console.print(line, highlight=False, soft_wrap=True)


def run(arguments: argparse.Namespace, output: Output) -> int:
    with output.waiting("looking around"):
        found = checks.run_all(board=arguments.board)
        pools = checks.pools(board=arguments.board)
    output.say(f"SpecKV {machine.version()} on {machine.cpu_model()}")
    width = max(len(check.name) for check in found)
    for check in found:
        _show(output, check.state, f"{check.name:<{width}}", check.detail)
    output.say("Pools, memory that L3 may live in (docs/pools.md):")
    width = max(len(pool.name) for pool in pools)
    for pool in pools:
        state = checks.OK if pool.usable else checks.ABSENT
        _show(output, state, f"{pool.name:<{width}}", pool.detail)
    advice = [check for check in found if check.advice]
    if advice:
        output.say("To get more:")
    for check in advice:
        output.console.print(
            f"  {escape(check.name)}: {escape(check.advice)}", highlight=False, soft_wrap=True
        )
    usable = not any(check.state == checks.BAD for check in found)
    output.say(
        "csim is usable: every scheme gave its blocks back"
        if usable
        else "not usable: see 'bad' above"
    )
    figures = {
        "usable": usable,
        "checks": [asdict(check) for check in found],
        "pools": [asdict(pool) for pool in pools],
    }
    output.json("doctor", figures)
    return 0 if usable else 1
