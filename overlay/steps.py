"""The commands of a build, in order, and the tools that they need."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from overlay.board import Board
from overlay.estimate import Parameters, units
from overlay.files import ROOT, defines, source
from speckv_pynq.device import hwh
from speckv_pynq.errors import DependencyMissing

# Program -> what to install for it.
TOOLS = {
    "v++": "AMD Vitis 2022.1 or newer with the card's development platform; source its settings64.sh",
    "vitis_hls": "AMD Vitis HLS 2022.1 or newer; source its settings64.sh (from 2024.2 on it is called vitis-run)",
    "vivado": "AMD Vivado, the same release as Vitis HLS, with the board's files; source its settings64.sh",
    "cmake": "pip install cmake",
    "ninja": "pip install ninja",
}
# Newer releases replace a program by another: program -> (replacement, its arguments before ours).
SUCCESSORS = {"vitis_hls": ("vitis-run", ["--mode", "hls", "--tcl"])}


@dataclass(frozen=True)
class Step:
    """One command; cwd is the build's folder."""

    what: str
    command: tuple[str, ...]


def steps(board: Board, p: Parameters, out: Path, native: Path | None) -> list[Step]:
    """The commands of a build in `out`. native: where csim's library is built; None: into the source package."""
    if board.family == "csim":
        return _csim(p, native)
    if board.family == "alveo":
        return _alveo(board, p, out)
    return [
        Step("kernels to packaged IP", ("vitis_hls", "-f", str(out / "hls.tcl"))),
        Step(
            "block design to bitstream and .hwh",
            ("vivado", "-mode", "batch", "-nojournal", "-source", str(out / "design.tcl")),
        ),
    ]


def images(board: Board) -> tuple[str, ...]:
    """What the tools leave in out/image, and the manifest names; the loader is given the first."""
    if board.family == "alveo":
        return (f"{hwh.STEM}.xclbin",)
    return (f"{hwh.STEM}.bit", f"{hwh.STEM}.hwh")


def present(planned: list[Step]) -> list[Step]:
    """The steps with the programs that this machine has. DependencyMissing names those that it lacks."""
    missing, out = [], []
    for step in planned:
        program, *rest = step.command
        if shutil.which(program):
            out.append(step)
            continue
        other, before = SUCCESSORS.get(program, ("", []))
        if other and shutil.which(other):
            out.append(Step(step.what, (other, *before, *rest[1:])))  # without -f
        elif program not in missing:
            missing.append(program)
    if missing:
        wanted = "; ".join(f"{program}: {TOOLS[program]}" for program in missing)
        raise DependencyMissing(
            f"not on PATH: {wanted}. --dry-run shows the commands, with --out it writes their files"
        )
    return out


def _alveo(board: Board, p: Parameters, out: Path) -> list[Step]:
    planned = []
    for kernel in units(board, p.engines):
        config, xo = out / f"compile_{kernel}.cfg", out / f"{kernel}.xo"
        options = ("-c", "-k", kernel, "--config", str(config), "-o", str(xo), str(source(kernel)))
        planned.append(Step(f"{kernel} to {kernel}.xo", ("v++", *options)))
    objects = [str(out / f"{kernel}.xo") for kernel in units(board, p.engines)]
    image = str(out / "image" / images(board)[0])
    link = ("-l", "--config", str(out / "link.cfg"), "-o", image, *objects)
    return [*planned, Step("compute units to a device image", ("v++", *link))]


def _csim(p: Parameters, native: Path | None) -> list[Step]:
    folder = ROOT / "build/native" if native is None else native
    options = ["-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
    if native is None:
        options.append("-DSPECKV_IN_PLACE=ON")
    else:
        flags = " ".join(f"-D{name}={value}" for name, value in defines(p).items())
        options += ["-DSPECKV_IN_PLACE=OFF", f"-DCMAKE_CXX_FLAGS={flags}"]
    target = ("--target", "speckv")
    return [
        Step("configure the native library", ("cmake", *options)),
        Step("kernels to libspeckv.so", ("cmake", "--build", str(folder), *target)),
    ]
