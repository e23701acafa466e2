"""Proves the assertions of a module with Yosys's SAT solver, by induction over clock cycles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rtl.simulate import ROOT, RTL

PACKAGE = ROOT / "hls" / "generated" / "speckv_pkg.sv"
PROOFS = Path(__file__).parent / "proofs"
RUN = "import sys; from pyosys import libyosys as y; d = y.Design()\nfor c in sys.argv[1:]: y.run_pass(c, d)"


def proven(
    top: str,
    sources: Sequence[Path],
    *,
    parameters: Mapping[str, int] | None = None,
    registers: bool = True,
    timeout_s: float = 60,
) -> bool:
    """Whether every assertion of `top` holds in every cycle after a reset, whatever the inputs; a module without
    registers: for every input that its assumptions allow. RuntimeError where it can't be told."""
    given = " ".join(f"-G {name}={value}" for name, value in (parameters or {}).items())
    files = " ".join(str(path) for path in (PACKAGE, *sources))
    # Induction begins in any state at all: what holds must follow from the assertions in the cycle before.
    method = "-tempinduct -maxsteps 1 -seq 1 -set-at 1 rst_i 1" if registers else ""
    commands = [
        f"read_slang --top {top} {given} {files}",
        f"hierarchy -check -top {top}",
        "proc; flatten; opt -full; memory -nordff; opt -full; async2sync; dffunmap; opt -full",
        f"sat -prove-asserts -set-assumes {method} -verify",
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *commands],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode == 0:
        return True
    if "proof did fail" not in done.stdout + done.stderr:
        raise RuntimeError(f"{top}: {(done.stdout + done.stderr)[-3000:]}")
    return False


def rtl(*names: str) -> list[Path]:
    return [RTL / f"{name}.sv" for name in names]
