"""Builds of tests: dry runs into a folder, and Tcl scripts run with recorded vendor commands."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import Any

from overlay import build

HERE = Path(__file__).resolve().parent
BOARDS = [name for name in build.boards.names() if name != "csim"]
ALVEO = [name for name in BOARDS if build.boards.load(name).family == "alveo"]
ZYNQ = [name for name in BOARDS if name not in ALVEO]


def dry(name: str, out: Path, **asked: Any) -> build.Build:
    """A dry run with its files written."""
    options: dict[str, Any] = dict.fromkeys(("engines", "max_block_bytes", "schemes", "clock_mhz"))
    made = build.plan(argparse.Namespace(target=name, out=out, **{**options, **asked}))
    made.write()
    return made


def commands(script: Path) -> list[list[str]]:
    """What a Tcl script tells the vendor's tool, command by command."""
    done = subprocess.run(
        ["tclsh", str(HERE / "vendor.tcl"), str(script)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert not done.returncode, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]
