"""The same tests on the other supported pynq: 3.1.2, the last one for Zynq-7000 boards."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What pynq 3.1.2 needs of its neighbours, and what these tests import.
NEIGHBOURS = ("numpy<2", "setuptools<81", "pycparser<3", "pytest", "pytest-timeout", "hypothesis")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="pynq ends at Python 3.12")
def test_pynq_312_runs_the_same_tests(tmp_path):
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "pynq==3.1.2", *NEIGHBOURS], check=True, timeout=600)
    version = "import importlib.metadata as m; print(m.version('pynq'))"
    found = subprocess.run([python, "-c", version], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "3.1.2"
    tests = sorted(Path(__file__).parent.glob("test_pynq_*.py"))
    tests.remove(Path(__file__))
    result = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "SPECKV_REQUIRE"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
