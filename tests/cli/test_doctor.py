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


def test_pools_are_listed_with_what_they_have_or_why_not(speckv):
    ran = speckv("doctor")
    pools = {pool["name"]: pool for pool in ran.figures["pools"]}
    assert pools["memory"]["usable"]
    assert pools["memory"]["nbytes"] > 0
    assert pools["fpga:host"]["usable"]
    assert {name.partition(":")[0] for name in pools} == {"memory", "numa", "dax", "file", "fpga"}
    assert all(pool["detail"] for pool in pools.values())
    assert all(name in ran.out for name in pools)


def test_pools_of_a_board_that_does_not_open_are_a_finding(monkeypatch):
    def missing(*_, **__):
        raise DependencyMissing("no such driver")

    monkeypatch.setattr(checks, "open_device", missing)
    found = [pool for pool in checks.pools(board=True) if pool.name == "fpga"]
    assert [pool.usable for pool in found] == [False, False]
    assert "device pynq: DependencyMissing: no such driver" in found[1].detail


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
