"""The C example from an installed, moved prefix: plain cc, pkg-config, no Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from speckv_pynq.device import library

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "speckv_pynq/native/examples/hello.c"

pytestmark = pytest.mark.requires("libspeckv", "cmake", "ninja", "pkg-config", "cc", "g++")


def output_of(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `cmake --install` puts in a prefix, with the library that is there already, then moved."""
    folder = tmp_path_factory.mktemp("install")
    build, first, moved = folder / "build", folder / "first", folder / "moved"
    output_of(
        "cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", "-DCMAKE_INSTALL_LIBDIR=lib"
    )
    output_of(
        "cmake", "--install", str(build), "--component", "development", "--prefix", str(first)
    )
    first.rename(moved)
    shutil.copy(library.find(), moved / "lib")
    return moved


@pytest.mark.parametrize("standard", ["c99", "c11"])
def test_the_example_builds_and_runs(prefix: Path, tmp_path: Path, standard: str) -> None:
    found = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = output_of("pkg-config", "--cflags", "--libs", "speckv", **found).split()
    assert not [flag for flag in flags if "first" in flag]
    program = str(tmp_path / "hello")
    strict = (f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    output_of("cc", *strict, str(EXAMPLE), *flags, "-o", program)
    said = output_of(program, LD_LIBRARY_PATH=str(prefix / "lib"))
    assert said == "4 blocks, 32768 B in L1, 53248 B in L3, 4 written back\n"


def test_pkg_config_tells_the_version_of_the_package(prefix: Path) -> None:
    found = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    version = output_of("pkg-config", "--modversion", "speckv", **found).strip()
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()


def test_the_header_is_good_cpp(prefix: Path, tmp_path: Path) -> None:
    source = tmp_path / "user.cpp"
    source.write_text("#include <speckv.h>\nint main() { speckv_shutdown(nullptr); }\n")
    strict = ("-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
    output_of("g++", *strict, f"-I{prefix / 'include'}", str(source))
