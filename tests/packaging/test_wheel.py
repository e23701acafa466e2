"""Sdist and wheel: what is in them; notebooks reach a board; the wheel runs where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scripts import check_wheel
from speckv_pynq.device import library

ROOT = Path(__file__).resolve().parents[2]
BUILD = (
    "import sys; from scikit_build_core import build;"
    "build.build_sdist(sys.argv[1]); build.build_wheel(sys.argv[1], {'wheel.cmake': 'false'})"
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """(names in the sdist, a wheel without what CMake adds): seconds instead of a build."""
    pytest.importorskip("scikit_build_core")
    folder = tmp_path_factory.mktemp("packed")
    command = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60, capture_output=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return check_wheel.names_in_sdist(sdist), wheel


def test_wheel_holds_the_package_and_no_junk(packed):
    sources, wheel = packed
    names = zipfile.ZipFile(wheel).namelist()
    assert check_wheel.check_files(names, sources, built=()) > 200


def test_sdist_holds_what_a_build_reads(packed):
    sources, _ = packed
    for name in ("CMakeLists.txt", "hls/csim/speckv_csim.cpp", "speckv_pynq/native/speckv.pc.in"):
        assert name in sources
    assert not [name for name in sources if "__pycache__" in name or name.endswith((".so", ".o"))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda names: names - {"speckv_pynq/py.typed"}, "not in the wheel: speckv_pynq/py.typed"),
        (lambda names: names | {"speckv_pynq/native/core.cpp"}, "should not be: .*core.cpp"),
        (lambda names: names | {"tests/conftest.py"}, "should not be: tests/conftest.py"),
    ],
)
def test_a_wrong_list_is_refused(packed, change, said):
    sources, wheel = packed
    names = set(zipfile.ZipFile(wheel).namelist())
    with pytest.raises(check_wheel.Wrong, match=said):
        check_wheel.check_files(change(names), sources, built=())


@pytest.mark.requires("pynq", "libspeckv")
def test_pynq_delivers_the_notebooks(packed, tmp_path):
    """`pynq get-notebooks`, from a wheel that is unpacked on the path, as installed."""
    _, wheel = packed
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "SPECKV_LIBRARY": str(library.find()),  # the one in use: this wheel has none
        "SPECKV_DEVICE": "csim",
    }
    script = "import sys; from pynq._cli.get_notebooks import main; sys.exit(main())"
    arguments = ["--path", str(tmp_path / "jupyter"), "--ignore-overlays", "speckv"]
    command = [sys.executable, "-c", script, *arguments]
    subprocess.run(
        command, env=environment, cwd=tmp_path, check=True, timeout=60, capture_output=True
    )
    wanted = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
    delivered = tmp_path / "jupyter" / "speckv"
    assert {path.name: path.read_bytes() for path in delivered.iterdir()} == wanted != {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.requires("g++", "cmake", "ninja")
def test_wheel_runs_without_a_compiler():
    command = [sys.executable, "scripts/check_wheel.py"]
    done = subprocess.run(
        command, cwd=ROOT, timeout=1700, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "csim is usable" in done.stdout
    assert "no issues found" in done.stdout
