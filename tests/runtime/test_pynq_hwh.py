"""The csim overlay's files: fresh, and a register map that agrees with the spec. No pynq needed."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from speckv_pynq import spec
from speckv_pynq.device import hwh


def test_the_checked_in_files_are_fresh():
    assert hwh.stale() == [], "run python -m speckv_pynq.device.hwh"


def test_check_names_a_stale_file(tmp_path, capsys):
    hwh.write_overlay(tmp_path)
    assert hwh.main(["--check", "--out", str(tmp_path)]) == 0
    (tmp_path / hwh.CSIM_BITFILE).with_suffix(".json").write_text("{}")
    assert hwh.main(["--check", "--out", str(tmp_path)]) == 1
    assert "speckv.csim.json is stale" in capsys.readouterr().err


def _registers(text: str, instance: str) -> dict[str, int]:
    module = next(m for m in ET.fromstring(text).iter("MODULE") if m.get("INSTANCE") == instance)
    out = {}
    for register in module.iter("REGISTER"):
        properties = {p.get("NAME"): p.get("VALUE") for p in register.findall("PROPERTY")}
        assert properties["SIZE"] == "32"
        out[register.get("NAME")] = int(properties["ADDRESS_OFFSET"])
    return out


@pytest.mark.parametrize("kernel", spec.KERNELS)
def test_registers_are_where_the_spec_puts_the_arguments(kernel):
    registers = _registers(hwh.render_hwh(1), f"{kernel}_0")
    assert [registers.pop(name) for name in ("CTRL", "GIER", "IP_IER", "IP_ISR")] == [0, 4, 8, 12]
    for argument in spec.KERNELS[kernel]:
        if argument.bits > 32:
            assert registers.pop(f"{argument.name}_1") == argument.offset
            assert registers.pop(f"{argument.name}_2") == argument.offset + 4
        else:
            assert registers.pop(argument.name) == argument.offset
    assert not registers


def test_a_board_says_how_many_of_each_and_where():
    units = hwh.instances({"kv_compress": 2, "kv_prefetch": 1}, 0x4000_0000)
    assert units == [
        ("kv_compress_0", "kv_compress", 0x4000_0000),
        ("kv_compress_1", "kv_compress", 0x4001_0000),
        ("kv_prefetch_0", "kv_prefetch", 0x4002_0000),
    ]


def test_compute_units_do_not_share_addresses():
    units = hwh.instances(4)
    assert len({base for _, _, base in units}) == len(units) == 4 * len(spec.KERNELS)


@pytest.mark.parametrize("engines", [0, 17])
def test_engines_have_a_range(tmp_path, engines):
    with pytest.raises(ValueError, match=rf"engines {engines} is not within 1\.\.16"):
        hwh.write_overlay(tmp_path, engines)
