"""Alveo: v++ configuration names every port of every compute unit once, in memory that exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from overlay.board import expand
from overlay.estimate import units
from speckv_pynq import spec
from tests.overlay.builds import ALVEO, dry

# What the platforms have, written apart from the board files.
MEMORY = {
    "u55c": {f"HBM[{i}]" for i in range(32)},
    "u280": {f"HBM[{i}]" for i in range(32)} | {"DDR[0]", "DDR[1]"},
    "u250": {f"DDR[{i}]" for i in range(4)},
}


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", ALVEO)
def test_every_port_has_one_place_that_exists(name: str, tmp_path: Path) -> None:
    made = dry(name, tmp_path)
    text = (tmp_path / "link.cfg").read_text()
    wanted = Counter(
        f"{kernel}_{i}.{a.name}"
        for kernel, count in units(made.board, made.p.engines).items()
        for i in range(count)
        for a in spec.KERNELS[kernel]
        if a.is_pointer
    )
    lines = [line.split(":", 1) for line in values(text, "sp")]
    assert Counter(port for port, _ in lines) == wanted
    assert sum(wanted.values()) >= 15
    for port, place in lines:
        assert set(expand(place)) <= MEMORY[name], f"{port} in {place}"


@pytest.mark.parametrize("name", ALVEO)
def test_an_argument_lies_in_one_place_for_all_kernels(name: str, tmp_path: Path) -> None:
    """kv_decompress reads the records that kv_compress wrote: the same buffer."""
    dry(name, tmp_path)
    places: dict[str, set[str]] = {}
    for line in values((tmp_path / "link.cfg").read_text(), "sp"):
        port, place = line.split(":", 1)
        places.setdefault(port.split(".")[1], set()).add(place)
    assert {argument: len(found) for argument, found in places.items()} == dict.fromkeys(places, 1)


@pytest.mark.parametrize("name", ALVEO)
def test_units_are_named_as_the_runtime_counts_them(name: str, tmp_path: Path) -> None:
    made = dry(name, tmp_path)
    text = (tmp_path / "link.cfg").read_text()
    kernels = {}
    for line in values(text, "nk"):
        kernel, count, names = line.split(":")
        assert names.split(".") == [f"{kernel}_{i}" for i in range(int(count))]
        kernels[kernel] = int(count)
    assert kernels == units(made.board, made.p.engines)
    clocked = values(text, "freqHz")[0].split(":")
    assert clocked[0] == "300000000"
    assert len(clocked[1].split(",")) == sum(kernels.values())


@pytest.mark.parametrize("name", ALVEO)
def test_kernels_are_compiled_with_the_boards_parameters(name: str, tmp_path: Path) -> None:
    made = dry(name, tmp_path)
    for kernel in units(made.board, made.p.engines):
        text = (tmp_path / f"compile_{kernel}.cfg").read_text()
        assert f"SPECKV_MAX_BLOCK_BYTES={made.p.max_block_bytes}u" in values(text, "define")
        assert f"SPECKV_SCHEMES={made.p.scheme_bits:#x}u" in values(text, "define")
        assert values(text, "platform") == [made.board.device["platform"]]
        assert all((Path(folder)).is_dir() for folder in values(text, "include"))
        assert (tmp_path / f"directives_{kernel}.tcl").samefile(values(text, "pre_tcl")[0])
