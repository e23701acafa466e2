"""open_device and the search for libspeckv.so: every way that it can be missing or wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import speckv_pynq
from speckv_pynq import spec
from speckv_pynq.device import library, open_device
from speckv_pynq.errors import AbiMismatch, ConfigError, DependencyMissing


def compile_library(folder: Path, source: str) -> Path:
    """A shared library from C source."""
    code, path = folder / "stub.c", folder / "libspeckv.so"
    code.write_text(source)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(path), str(code)], check=True)
    return path


@pytest.mark.requires("libspeckv")
def test_csim_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECKV_DEVICE", raising=False)
    with open_device() as device:
        assert device.name == "csim"
        assert device.abi_id == spec.ABI_ID
        assert device.num_engines in (1, 2)
    with open_device("csim", 3) as device:
        assert device.num_engines == 3


@pytest.mark.requires("libspeckv")
def test_the_library_is_loaded_once() -> None:
    assert library.load() is library.load()
    assert library.load().abi_id == spec.ABI_ID
    assert library.load().build_info


def test_an_unknown_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'gpu' is not one of csim, pynq"):
        open_device("gpu")
    monkeypatch.setenv("SPECKV_DEVICE", "fpga")
    with pytest.raises(ConfigError, match="'fpga' is not"):
        open_device()


@pytest.mark.parametrize("name", ["csim", "pynq"])
def test_num_engines_below_one(name: str) -> None:
    with pytest.raises(ConfigError, match="num_engines 0 < 1"):
        open_device(name, 0)


def test_pynq_is_opened_by_its_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("speckv_pynq.device.pynq_overlay")
    module.PynqDevice = SimpleNamespace(open=lambda num_engines: ("pynq", num_engines))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert open_device("pynq", 2) == ("pynq", 2)
    monkeypatch.setenv("SPECKV_DEVICE", "pynq")
    assert open_device() == ("pynq", None)


def test_without_pynq_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'pynq'", name="pynq")

    monkeypatch.setattr("speckv_pynq.device.importlib.import_module", missing)
    with pytest.raises(DependencyMissing, match=r"'pynq': pip install 'speckv-pynq\[pynq\]'"):
        open_device("pynq")


def test_no_library_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPECKV_LIBRARY", raising=False)
    monkeypatch.setattr(speckv_pynq, "__path__", [str(tmp_path)])
    with pytest.raises(DependencyMissing, match=r"looked for .*pip install -e \."):
        open_device("csim")


def test_the_second_package_directory_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPECKV_LIBRARY", raising=False)
    built = tmp_path / "built"
    built.mkdir()
    (built / library.LIBRARY_NAME).touch()
    monkeypatch.setattr(speckv_pynq, "__path__", [str(tmp_path), str(built)])
    assert library.find() == (built / library.LIBRARY_NAME).resolve()


def test_the_environment_names_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECKV_LIBRARY", str(tmp_path / "nowhere.so"))
    with pytest.raises(DependencyMissing, match=r"SPECKV_LIBRARY=.*nowhere\.so: no such file"):
        open_device("csim")


def test_the_environment_names_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.so"
    path.write_text("not a library")
    monkeypatch.setenv("SPECKV_LIBRARY", str(path))
    with pytest.raises(DependencyMissing, match="does not load"):
        open_device("csim")


@pytest.mark.requires("gcc")
def test_another_abi_is_refused_with_both_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "unsigned long long speckv_csim_abi_id(void) { return 0x1234ull; }"
    monkeypatch.setenv("SPECKV_LIBRARY", str(compile_library(tmp_path, source)))
    with pytest.raises(AbiMismatch) as caught:
        open_device("csim")
    assert "0x0000000000001234" in str(caught.value)
    assert f"{spec.ABI_ID:#018x}" in str(caught.value)


@pytest.mark.requires("gcc")
def test_another_record_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        f"unsigned long long speckv_csim_abi_id(void) {{ return {spec.ABI_ID:#x}ull; }}\n"
        "unsigned speckv_csim_format_version(void) { return 999; }\n"
    )
    monkeypatch.setenv("SPECKV_LIBRARY", str(compile_library(tmp_path, source)))
    with pytest.raises(AbiMismatch, match=f"record format 999, .* {spec.FORMAT_VERSION}"):
        open_device("csim")


@pytest.mark.requires("gcc")
def test_a_library_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compile_library(tmp_path, "int nothing;")
    monkeypatch.setenv("SPECKV_LIBRARY", str(path))
    with pytest.raises(DependencyMissing, match=r"is not libspeckv\.so"):
        open_device("csim")
