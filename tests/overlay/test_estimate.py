"""The estimate: its memory is the sources' own, and what is derived is the most that fits."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hls.report import multipliers
from overlay import board as boards
from overlay.estimate import (
    COSTS,
    KERNEL_SPEC,
    Asked,
    Parameters,
    derive,
    estimate,
    excess,
    report,
    total,
)
from speckv_pynq import spec
from tests.overlay.builds import ALVEO, BOARDS

ROOT = Path(__file__).resolve().parents[2]
SIZES = """
#include <cstdio>
#include "speckv/codecs.hpp"
using namespace speckv;
int main() {
  std::printf("%zu %zu %zu %zu %zu %zu\\n", sizeof(Int4Groups), sizeof(Int4Scales), sizeof(LosslessEncodeWork),
              sizeof(LosslessDecodeWork), sizeof(KltEncodeWork), sizeof(KltDecodeWork));
}
"""
NAMES = [(s, d) for s in ("int4", "lossless", "klt") for d in ("encode", "decode")]


def sizes(folder: Path, max_block_bytes: int) -> list[int]:
    """Bytes of the work buffers that synthesis sees, in the order of NAMES."""
    source, program = folder / "sizes.cpp", folder / f"sizes{max_block_bytes}"
    source.write_text(SIZES)
    include = [ROOT / "hls" / folder for folder in ("include", "generated", "csim/shim")]
    options = [
        "-std=c++17",
        "-w",
        "-D__SYNTHESIS__",
        f"-DSPECKV_MAX_BLOCK_BYTES={max_block_bytes}u",
    ]
    subprocess.run(
        ["g++", *options, *(f"-I{f}" for f in include), str(source), "-o", str(program)], check=True
    )
    return [
        int(n) for n in subprocess.run([program], capture_output=True, check=True).stdout.split()
    ]


@pytest.mark.requires("g++")
def test_work_buffers_are_as_large_as_the_sources_make_them(tmp_path: Path) -> None:
    for block in (8192, 131072):
        for (scheme, side), size in zip(NAMES, sizes(tmp_path, block), strict=True):
            part = COSTS["schemes"][scheme][side]
            said = part["bytes"] + part["bytes_per_block_byte"] * block
            assert said == pytest.approx(size, rel=0.02), f"{scheme} {side} of {block}"


def test_banks_of_the_buffers_by_hand() -> None:
    """KV260: 8 lanes, blocks of 32 KiB: 8 banks of 16 x 2052 and 16 of 8 x 2056, each twice."""
    b = boards.load("kv260")
    p = Parameters(1, 32768, ("raw",), 8, 200.0, "bram")
    assert estimate(b, p)["kv_compress x 1"]["bram36"] == (2 * 8 * 3 + 2 * 16 * 2) // 2
    assert estimate(b, replace(p, storage="uram"))["kv_compress x 1"]["uram"] == 2 * 8 + 2 * 16
    lutram = estimate(b, replace(p, storage="lutram"))["kv_compress x 1"]["lutram"]
    assert lutram == 33 * 64 * (2 * 8 * 16 + 2 * 16 * 8) // 64


def test_klt_takes_the_multipliers_that_its_design_says() -> None:
    b = boards.load("u55c")
    p = Parameters(1, 32768, ("raw", "int4"), 32, 300.0, "bram")
    without = estimate(b, p)["kv_compress x 1"]["dsp"]
    with_klt = estimate(b, replace(p, schemes=("raw", "int4", "klt")))["kv_compress x 1"]["dsp"]
    assert with_klt - without == 2 * sum(multipliers(KERNEL_SPEC).values())


@pytest.mark.parametrize("name", BOARDS)
def test_what_is_derived_fits_and_no_more_would(name: str) -> None:
    b = boards.load(name)
    p = derive(b, Asked())
    assert excess(b, p) == []
    assert p.max_block_bytes >= b.kernel["least_block_bytes"]
    assert {"raw", "int4"} <= set(p.schemes), "the fast default goes everywhere"
    larger = [replace(p, engines=p.engines + 1), replace(p, max_block_bytes=2 * p.max_block_bytes)]
    for more in larger:
        outside = (
            more.engines > b.kernel["most_engines"] or more.max_block_bytes > spec.MAX_BLOCK_BYTES
        )
        assert outside or all(
            excess(b, replace(more, storage=storage)) for storage in b.kernel["storage"]
        )


@pytest.mark.parametrize("name", ALVEO)
def test_cards_have_every_scheme(name: str) -> None:
    assert len(derive(boards.load(name), Asked()).schemes) == len(spec.Scheme)


def test_fewer_lanes_take_less_of_everything_that_lanes_cost() -> None:
    b = boards.load("pynq-z2")
    p = derive(b, Asked())
    assert p.lanes == 4
    wide, narrow = total(estimate(b, replace(p, lanes=32))), total(estimate(b, p))
    assert all(narrow[r] < wide[r] for r in ("lut", "dsp", "bram36"))


@pytest.mark.parametrize("name", BOARDS)
def test_the_report_calls_itself_an_estimate_and_shows_both_sides(name: str) -> None:
    b = boards.load(name)
    p = derive(b, Asked())
    text = report(b, p)
    assert "ESTIMATE" in text
    assert "no synthesis tool" in text
    for resource, used in total(estimate(b, p)).items():
        assert str(used) in text
        assert str(b.fabric[resource]) in text
        assert str(b.budget(resource)) in text
    for scheme in {s.name.lower() for s in spec.Scheme} - set(p.schemes):
        assert f"without {scheme}: " in text


@pytest.mark.parametrize("name", BOARDS)
def test_the_page_on_boards_says_what_the_estimate_says(name: str) -> None:
    b = boards.load(name)
    p = derive(b, Asked())
    used = total(estimate(b, p))
    row = next(
        line
        for line in (ROOT / "docs/boards.md").read_text().splitlines()
        if line.startswith(f"| `{name}` | {p.engines} |")
    )
    assert f"| {p.max_block_bytes} |" in row
    for resource in ("lut", "dsp", "bram36"):
        assert f"{used[resource]} of {b.budget(resource)}" in row
    every = len(p.schemes) == len(spec.Scheme)
    assert ("all" if every else ", ".join(f"`{s}`" for s in p.schemes)) in row
