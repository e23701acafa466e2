"""Build sdist and wheel, look at what is in them, install the wheel where no compiler is, and use it there.

    python scripts/check_wheel.py [--wheel FILE] [--keep DIRECTORY]

The wheel is built from the sdist, so that the sdist is known to hold what a build needs. The environment that
it goes into is new, away from this tree, and finds no compiler: PATH ends at its own programs. Needs a package index
for numpy and rich, and the build tools of the dev extra. Every command has a deadline.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSUMER = ROOT / "scripts" / "wheel_consumer.py"
PACKAGE = "speckv_pynq/"
BUILD_S, INSTALL_S, RUN_S = 900, 300, 120

# What the build adds to the package.
BUILT = {
    "speckv_pynq/libspeckv.so",
    "speckv_pynq/include/speckv.h",
    "speckv_pynq/include/speckv_spec.h",
    "speckv_pynq/pkgconfig/speckv.pc",
}
# What a user cannot do without, whatever else a version ships.
NEEDED = {
    *BUILT,
    "speckv_pynq/py.typed",
    "speckv_pynq/native/examples/hello.c",
    "speckv_pynq/codebooks/smollm2-135m-layer.safetensors",
    "speckv_pynq/predictors/smollm2.safetensors",
    "speckv_pynq/overlays/speckv/speckv.bit.d/speckv.csim.bit",
    "speckv_pynq/overlays/speckv/speckv.bit.d/speckv.csim.hwh",
}
ENTRY_POINTS = ("[console_scripts]", "[pynq.lib]", "[pynq.notebooks]", "[pynq.overlays]")
JUNK_FOLDERS = {"__pycache__", ".ipynb_checkpoints", "stress", "tests", "build", "fuzz"}
JUNK_SUFFIXES = {".cpp", ".hpp", ".in", ".o", ".pyc", ".log", ".orig", ".swp", ".tmp"}


class Wrong(Exception):
    """What is wrong with the package, in a sentence."""


def is_shipped(name: str) -> bool:
    """Whether a file of the source package belongs in a wheel: all but C++ sources and their private headers."""
    path = Path(name)
    if JUNK_FOLDERS & set(path.parts) or path.suffix in JUNK_SUFFIXES:
        return False
    private_header = path.parent.name == "native" and path.suffix == ".h"
    return not private_header or path.name.startswith("speckv")


def check_files(found: Iterable[str], sources: Iterable[str], built: Iterable[str] = BUILT) -> int:
    """How many files a wheel holds; Wrong when they are not the package's own and `built`.

    found: names in the wheel; sources: names of the source tree that it was made from, "speckv_pynq/..." and
    any others.
    """
    packed = {name for name in found if ".dist-info/" not in name}
    wanted = {name for name in sources if name.startswith(PACKAGE) and is_shipped(name)} | set(
        built
    )
    if missing := sorted(wanted - packed):
        raise Wrong(f"not in the wheel: {', '.join(missing)}")
    if extra := sorted(packed - wanted):
        raise Wrong(f"in the wheel, but should not be: {', '.join(extra)}")
    if missing := sorted((NEEDED - BUILT | set(built)) - packed):
        raise Wrong(f"neither in the sources nor in the wheel: {', '.join(missing)}")
    if not any(name.startswith(f"{PACKAGE}notebooks/") for name in packed):
        raise Wrong("no notebook in the wheel")
    return len(packed)


def names_in_sdist(path: Path) -> list[str]:
    """Names relative to the source tree."""
    with tarfile.open(path) as archive:
        return [member.name.partition("/")[2] for member in archive if member.isfile()]


def check_wheel_file(wheel: Path, sources: Iterable[str]) -> int:
    """The same for a wheel file, its tag and its entry points."""
    if not wheel.name.split("-")[2:4] == ["py3", "none"]:
        raise Wrong(f"{wheel.name}: not tagged py3-none, but the library is reached through ctypes")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        lists = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        entry_points = archive.read(lists[0]).decode() if lists else ""
    for section in ENTRY_POINTS:
        if section not in entry_points:
            raise Wrong(f"{wheel.name}: entry points lack {section}")
    return check_files(names, sources)


def call(command: list[str], timeout_s: float, **options: object) -> str:
    """Standard output; Wrong with both outputs when it fails or takes longer than timeout_s."""
    try:
        done = subprocess.run(
            command,
            timeout=timeout_s,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,  # type: ignore[call-overload]
        )
    except subprocess.TimeoutExpired:
        raise Wrong(f"{' '.join(command)}: no end after {timeout_s} s") from None
    if done.returncode:
        raise Wrong(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
    return str(done.stdout)


def build(folder: Path) -> tuple[Path, Path]:
    """(sdist, wheel made from it)."""
    hook = "import sys; from scikit_build_core import build; build.build_sdist(sys.argv[1])"
    call([sys.executable, "-c", hook, str(folder)], BUILD_S, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    options = ["--no-build-isolation", "--no-deps", "--wheel-dir", str(folder)]
    call([sys.executable, "-m", "pip", "wheel", "-q", *options, str(sdist)], BUILD_S, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def clean_environment(programs: Path) -> dict[str, str]:
    """Variables for a process that finds nothing but `programs`: no compiler, none of this tree."""
    gone = ("PYTHON", "SPECKV_", "LD_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(gone)}
    return {**kept, "PATH": str(programs), "CC": "/bin/false", "CXX": "/bin/false"}


def install(wheel: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """(the environment's programs, variables for processes in it)."""
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    environment = clean_environment(programs)
    for compiler in ("cc", "c++", "gcc", "g++", "clang", "make", "cmake"):
        if shutil.which(compiler, path=environment["PATH"]):
            raise Wrong(f"{compiler} is on PATH: this is no place without a compiler")
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    call([*pip, "--only-binary", ":all:", str(wheel)], INSTALL_S, env=environment, cwd=folder)
    return programs, environment


def use(programs: Path, environment: dict[str, str], folder: Path) -> None:
    """The command line, a round trip and the types, from a folder that is not this tree."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(CONSUMER, elsewhere)
    python = str(programs / "python")
    place = call(
        [python, "-c", "import speckv_pynq; print(speckv_pynq.__file__)"],
        RUN_S,
        env=environment,
        cwd=elsewhere,
    )
    if not Path(place.strip()).is_relative_to(folder):
        raise Wrong(f"speckv_pynq comes from {place.strip()}, not from the wheel")
    last = call([str(programs / "speckv"), "doctor"], RUN_S, env=environment, cwd=elsewhere)
    print(f"  speckv doctor: {last.strip().splitlines()[-1]}")
    print(f"  {call([python, CONSUMER.name], RUN_S, env=environment, cwd=elsewhere).strip()}")
    cache = ["--cache-dir", str(folder / "mypy")]
    strict = ["--strict", "--python-executable", python, *cache, CONSUMER.name]
    said = call([sys.executable, "-m", "mypy", *strict], INSTALL_S, cwd=elsewhere)
    print(f"  mypy --strict: {said.strip()}")


def check(folder: Path, wheel: Path | None) -> None:
    """All of it in `folder`, which is there and empty; Wrong at the first thing that is."""
    if wheel is None:
        sdist, wheel = build(folder)
        count = check_wheel_file(wheel, names_in_sdist(sdist))
        print(f"  {sdist.name}; {wheel.name}: {count} files, {wheel.stat().st_size / 1e6:.1f} MB")
    use(*install(wheel.resolve(), folder), folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--wheel", type=Path, help="use this one instead of building one")
    parser.add_argument("--keep", type=Path, help="an empty directory to work in, left as it is")
    arguments = parser.parse_args()
    try:
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            check(arguments.keep.resolve(), arguments.wheel)
        else:
            with tempfile.TemporaryDirectory(prefix="speckv-wheel-") as folder:
                check(Path(folder).resolve(), arguments.wheel)
    except Wrong as wrong:
        print(f"FAIL  {wrong}")
        return 1
    print("ok    the wheel installs and runs without a compiler")
    return 0


if __name__ == "__main__":
    sys.exit(main())
