"""The memory system under sanitizers: many threads at once, and every allocation failing once."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from speckv_pynq.device import library

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "speckv_pynq/native"
SYSTEM = ["speckv", "slot_pool", "line_allocator", "page_table"]
# The system's own sources with the sanitizer; the kernels, which tests/hls looks at, from the library.
COMMAND = [
    "g++",
    *("-std=c++17", "-O0", "-g1", "-w", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"),
    *(f"-I{ROOT / folder}" for folder in ("hls/csim", "hls/generated", "speckv_pynq/native")),
    *(str(NATIVE / f"{name}.cpp") for name in SYSTEM),
    *map(str, sorted(NATIVE.glob("system*.cpp"))),
    str(NATIVE / "stress/stress_system.cpp"),
    "-pthread",
]

pytestmark = [pytest.mark.sanitizer, pytest.mark.requires("libspeckv", "g++")]


SANITIZERS = ["thread", pytest.param("address,undefined", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=SANITIZERS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("stress")
    kernels = library.find()
    link = [str(kernels), f"-Wl,-rpath,{kernels.parent}"]
    flags = [f"-fsanitize={request.param}", *link, "-o", str(folder / "stress")]
    subprocess.run([*COMMAND, *flags], check=True, timeout=150)
    return str(folder / "stress")


def said(program: str, *arguments: str) -> list[int]:
    """The numbers of what the program says when all went well."""
    done = subprocess.run(
        [program, *arguments], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "no fault" in done.stdout
    return [int(number) for number in re.findall(r"\d+", done.stdout)]


def test_threads_lose_no_write_and_see_no_torn_or_stale_block(program: str) -> None:
    writes, reads, forks, write_backs, _ = said(program, "threads", "4", "1500", "1")
    assert min(writes, reads, forks, write_backs) > 100


def test_an_allocation_that_fails_anywhere_changes_nothing(program: str) -> None:
    points, failures = said(program, "allocations")
    assert points > failures > 20


@pytest.mark.slow
def test_threads_for_longer(program: str) -> None:
    for seed in range(2, 12):
        said(program, "threads", "8", "10000", str(seed))
