"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer while records, and what the predictor
reads, are damaged."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from speckv_pynq.predictor.image import image_of
from tests.codebooks import Shape, random_codebook
from tests.reference.predictors import random_predictor

HLS = Path(__file__).resolve().parents[2] / "hls"
ITERATIONS = 30000  # about three seconds
STEPS = 2000
# The kernels alone: the CMake variant (SPECKV_SANITIZE) takes three times as long to build.
COMMAND = [
    "g++",
    *("-std=c++17", "-O1", "-g1", "-w", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSPECKV_NO_DISPATCH"),
    *(f"-I{HLS / folder}" for folder in ("include", "csim", "csim/shim", "generated")),
]


def fuzz(folder: Path, sources: Iterable[Path], image_bytes: bytes, iterations: int) -> None:
    """Builds a harness with sanitizers and runs it on an image; fails where it finds anything."""
    program, image = folder / "fuzz", folder / "image"
    command = [*COMMAND, *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True, timeout=150)
    image.write_bytes(image_bytes)
    done = subprocess.run(
        [str(program), str(iterations), "1", str(image)],
        check=False,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"{iterations} iterations, no fault" in done.stdout


@pytest.mark.sanitizer
@pytest.mark.requires("g++")
def test_fuzz_decompress_finds_nothing(tmp_path: Path) -> None:
    sources = [*(HLS / "csim").glob("*.cpp"), *(HLS / "generated").glob("*.cpp")]
    sources.append(HLS / "csim/fuzz/fuzz_decompress.cpp")
    fuzz(tmp_path, sources, random_codebook(4, Shape(2, 64)).image, ITERATIONS)


@pytest.mark.sanitizer
@pytest.mark.requires("g++")
def test_fuzz_prefetch_finds_nothing(tmp_path: Path) -> None:
    names = ("csim/csim_prefetch.cpp", "generated/kv_prefetch.cpp", "csim/fuzz/fuzz_prefetch.cpp")
    image = image_of(random_predictor(64, 9, 3, always=20))
    fuzz(tmp_path, [HLS / name for name in names], image, STEPS)
