"""Tcl of the Zynq builds, run by tclsh with the vendor's commands recorded: nothing is left unconnected."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from overlay.estimate import units
from speckv_pynq import spec
from speckv_pynq.device import hwh
from tests.overlay.builds import ALVEO, ZYNQ, commands, dry

pytestmark = pytest.mark.requires("tclsh")

PS = {
    "kv260": "zynq_ultra_ps_e_0",
    "zcu104": "zynq_ultra_ps_e_0",
    "pynq-z2": "processing_system7_0",
}


class Design:
    """The block design that a script makes: cells, connections, properties, addresses."""

    def __init__(self, name: str, folder: Path, **asked: object) -> None:
        self.build = dry(name, folder, **asked)
        self.ps = PS[name]
        self.commands = commands(folder / "design.tcl")
        self.cells = {c[-1]: c[4] for c in self.of("create_bd_cell")}
        self.nets = [tuple(c[1:]) for c in self.of("connect_bd_net")]
        self.buses = [tuple(c[1:]) for c in self.of("connect_bd_intf_net")]
        self.properties: dict[str, dict[str, str]] = {}
        for _, *rest in self.of("set_property"):
            words = rest[1].split() if rest[0] == "-dict" else rest[:2]
            pairs = dict(zip(words[::2], words[1::2], strict=True))
            self.properties.setdefault(rest[-1], {}).update(pairs)
        engines = units(self.build.board, self.build.p.engines)
        self.units = {f"{k}_{i}": k for k, n in engines.items() for i in range(n)}

    def of(self, command: str) -> list[list[str]]:
        return [c for c in self.commands if c[0] == command]


@pytest.fixture(params=ZYNQ)
def design(request: pytest.FixtureRequest, tmp_path: Path) -> Design:
    return Design(request.param, tmp_path)


def masters(kernel: str) -> list[str]:
    return [f"m_axi_gmem_{a.name}" for a in spec.KERNELS[kernel] if a.is_pointer]


def test_every_unit_is_a_cell_of_its_ip(design: Design) -> None:
    found = {cell: vlnv for cell, vlnv in design.cells.items() if ":hls:" in vlnv}
    assert found == {unit: hwh.vlnv(kernel) for unit, kernel in design.units.items()}


def test_every_unit_has_clock_reset_and_an_interrupt_of_its_own(design: Design) -> None:
    ends = Counter(end for _, end in design.nets)
    source = {end: start for start, end in design.nets}
    assert set(ends.values()) == {1}, "a pin is driven twice"
    clock = source["reset/slowest_sync_clk"]
    assert clock.startswith(design.ps)
    inputs = set()
    for unit in design.units:
        assert source[f"{unit}/ap_clk"] == clock
        assert source[f"{unit}/ap_rst_n"] == "reset/peripheral_aresetn"
        inputs.add(next(end for start, end in design.nets if start == f"{unit}/interrupt"))
    assert inputs == {f"interrupts/In{i}" for i in range(len(design.units))}
    assert design.properties["interrupts"]["CONFIG.NUM_PORTS"] == str(len(design.units))
    assert ("interrupts/dout", "interrupt_controller/intr") in design.nets
    assert next(e for s, e in design.nets if s == "interrupt_controller/irq").startswith(design.ps)


def test_every_interconnect_is_clocked_and_full(design: Design) -> None:
    source = {end: start for start, end in design.nets}
    for cell in (c for c, vlnv in design.cells.items() if vlnv.endswith(":smartconnect")):
        assert source[f"{cell}/aclk"] == source["reset/slowest_sync_clk"]
        assert source[f"{cell}/aresetn"] == "reset/peripheral_aresetn"
        for side, place in (("NUM_SI", 1), ("NUM_MI", 0)):
            count = int(design.properties[cell][f"CONFIG.{side}"])
            assert 1 <= count <= 16, "SmartConnect has 16 ports a side"
            used = Counter(
                b[place] for b in design.buses if b[place].startswith(f"{cell}/{side[4]}")
            )
            assert used == Counter(f"{cell}/{side[4]}{i:02d}_AXI" for i in range(count))


def test_every_axi_interface_of_every_unit_is_connected_once(design: Design) -> None:
    ends = Counter(end for pair in design.buses for end in pair)
    assert set(ends.values()) == {1}
    wanted = {f"{unit}/{m}" for unit, kernel in design.units.items() for m in masters(kernel)}
    wanted |= {f"{unit}/s_axi_control" for unit in design.units}
    assert {end for end in ends if end.split("/")[0] in design.units} == wanted


def test_memory_ports_are_enabled_clocked_and_as_wide_as_they_are(design: Design) -> None:
    properties, text = design.properties[design.ps], str(design.nets)
    zynq7 = design.build.board.family == "zynq7"
    width = "64" if zynq7 else "128"
    for port in set(design.build.board.place.values()):
        gp = f"GP{int(port[2:]) + 2}"
        use, wide = (
            (f"CONFIG.PCW_USE_S_AXI_{port}", f"CONFIG.PCW_S_AXI_{port}_DATA_WIDTH")
            if zynq7
            else (f"CONFIG.PSU__USE__S_AXI_{gp}", f"CONFIG.PSU__SAXI{gp}__DATA_WIDTH")
        )
        assert properties[use] == "1"
        assert properties[wide] == width
        clock = f"S_AXI_{port}_ACLK" if zynq7 else f"saxi{port.lower()}_fpd_aclk"
        assert f"{design.ps}/{clock}" in text


def test_every_master_sees_memory_and_registers_have_the_addresses_of_the_runtime(
    design: Design,
) -> None:
    spaces, registers = set(), {}
    for words in design.of("assign_bd_address"):
        if "-offset" in words:
            registers[words[7]] = int(words[2], 16)
            assert words[4] == "64K"
            assert words[6] == f"{design.ps}/Data"
        else:
            spaces.add(words[2])
            assert words[3].startswith(f"{design.ps}/")
    units_ = design.units.items()
    assert spaces == {f"{unit}/Data_{m}" for unit, kernel in units_ for m in masters(kernel)}
    base = 0x4000_0000 if design.build.board.family == "zynq7" else 0xA000_0000
    wanted = {
        f"{unit}/s_axi_control/Reg": base + 0x1_0000 * i for i, unit in enumerate(design.units)
    }
    wanted["interrupt_controller/S_AXI/Reg"] = base + 0x1_0000 * len(design.units)
    assert registers == wanted


def test_the_script_ends_with_the_files_that_the_manifest_names(design: Design) -> None:
    made = [Path(c[-1]) for c in design.of("file")]
    assert made == design.build.images[:-1]
    names = [c[0] for c in design.commands]
    for earlier, later in (
        ("assign_bd_address", "validate_bd_design"),
        ("validate_bd_design", "launch_runs"),
        ("launch_runs", "file"),
    ):
        assert len(names) - 1 - names[::-1].index(earlier) < names.index(later)


@pytest.mark.parametrize("name", ZYNQ)
def test_every_kernel_is_synthesised_for_the_part_and_exported_where_vivado_looks(
    name: str, tmp_path: Path
) -> None:
    made = dry(name, tmp_path)
    found = commands(tmp_path / "hls.tcl")
    tops = [c[1] for c in found if c[0] == "set_top"]
    assert tops == list(units(made.board, made.p.engines))
    by = {c[0]: c for c in found}
    assert by["set_part"][1] == made.board.device["part"]
    assert float(by["create_clock"][2]) == pytest.approx(1000 / made.p.mhz, abs=1e-3)
    assert f"-DSPECKV_LANES_A_CYCLE={made.p.lanes}" in by["add_files"][3].split()
    zips = [c[2] for c in found if c[0] == "export_design"]
    taken = [
        c[2] for c in commands(tmp_path / "design.tcl") if c[:2] == ["update_ip_catalog", "-add_ip"]
    ]
    assert zips == taken
    assert {c[0] for c in found} >= {"csynth_design", "config_interface", "exit"}


@pytest.mark.parametrize("name", ["kv260", "pynq-z2", *ALVEO[:1]])
def test_directives_name_variables_of_the_sources(name: str, tmp_path: Path) -> None:
    made = dry(name, tmp_path)
    for kernel in ("kv_compress", "kv_decompress"):
        found = commands(tmp_path / f"directives_{kernel}.tcl")
        assert ["config_interface", "-m_axi_addr64"] in found
        text = Path(f"hls/include/speckv/{kernel}.hpp")
        source = (Path(__file__).resolve().parents[2] / text).read_text()
        bound = [c for c in found if c[0] == "set_directive_bind_storage"]
        assert {c[-1] for c in bound} == {"block", "payload"}
        for *_, storage, function, variable in bound:
            assert storage == made.p.storage
            body = source.split(f"static void {function}(")[1]
            assert f", {variable});" in body


def test_the_recorder_refuses_a_pin_of_no_cell(tmp_path: Path) -> None:
    script = tmp_path / "wrong.tcl"
    script.write_text("connect_bd_net [get_bd_pins ghost/ap_clk] [get_bd_pins ghost/x]\n")
    with pytest.raises(AssertionError, match="no cell of ghost/ap_clk"):
        commands(script)
