"""`speckv doctor`: finds csim usable here, and says so when it is not."""

from __future__ import annotations

import json

import pytest

from speckv_pynq.cli import app, checks
from speckv_pynq.cli.options import SCHEMES
from speckv_pynq.errors import DependencyMissing

pytestmark = pytest.mark.requires("libspeckv")


def test_csim_is_usable_and_every_scheme_is_tested(speckv):
    ran = speckv("doctor")
    assert (ran.code, ran.err) == (0, "")
    found = {check["name"]: check for check in ran.figures["checks"]}
    assert ran.figures["usable"] is True
    assert {f"csim {scheme}" for scheme in SCHEMES} <= set(found)
    assert {"python", "numpy", "torch", "pynq", "boards", "gpu", "hugepages"} <= set(found)
    assert "abi 0x" in found["csim library"]["detail"]
    assert all(check["detail"] for check in found.values())
    assert all(check["state"] in (checks.OK, checks.ABSENT) for check in found.values())
    assert all(name in ran.out for name in found)


def test_json_to_stdout_is_json_alone(capsys):
    assert app.main(["doctor", "--json", "-"]) == 0
    text = capsys.readouterr()
    assert json.loads(text.out)["command"] == "doctor"
    assert "csim is usable" in text.err


def test_without_the_library_it_fails_and_advises(speckv, monkeypatch):
    def missing(*_, **__):
        raise DependencyMissing("libspeckv.so not found")

    monkeypatch.setattr(checks.library, "load", missing)
    monkeypatch.setattr(checks, "open_device", missing)
    ran = speckv("doctor")
    assert ran.code == 1
    assert ran.figures["usable"] is False
    assert "bad" in ran.out
    assert "make native" in ran.out


def test_a_kernel_that_answers_wrongly_is_found(speckv, monkeypatch):
    def broken(self):
        raise ValueError("bytes differ")

    monkeypatch.setattr(checks.Codec, "self_test", broken)
    ran = speckv("doctor")
    assert ran.code == 1
    assert "ValueError: bytes differ" in ran.out


def test_a_missing_package_is_no_failure(monkeypatch):
    def missing(name):
        raise checks.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checks.metadata, "version", missing)
    check = checks._package("lz4", "bench", "bench codec")
    assert (check.state, check.advice) == (
        checks.ABSENT,
        "pip install 'speckv-pynq[bench]'  (bench codec)",
    )
