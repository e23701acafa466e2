"""The csim overlay's description, made from spec.KERNELS: .hwh, manifest, stand-in bitstream.

PYNQ learns an overlay from the .hwh that Vivado writes beside the bitstream. For csim nobody runs
Vivado, so this module writes the same description: instances, address map, and the s_axilite
registers that Vitis HLS would lay out. The files are checked in under speckv_pynq/overlays/;
`python -m speckv_pynq.device.hwh` renders them afresh and `--check` says whether they are stale. No
pynq is needed here.

A manifest stands beside every overlay, csim or board: speckv_pynq.device.manifest.
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from speckv_pynq import spec
from speckv_pynq.device import manifest

STEM = "speckv"
VLNV = "xilinx.com:hls:{kernel}:1.0"
OVERLAY_DIR = Path(__file__).resolve().parents[1] / "overlays" / STEM
CSIM_NAME = "csim"
CSIM_ENGINES = 2  # compute units of each kernel in the shipped csim overlay
CSIM_BITFILE = f"{STEM}.bit.d/{STEM}.{CSIM_NAME}.bit"

CONTROL_BASE = 0xA000_0000  # M_AXI_HPM0_FPD of a Zynq UltraScale+
CONTROL_BYTES = 0x1_0000
FIRST_ARGUMENT = 0x10  # below it: CTRL, GIER, IP_IER, IP_ISR
PL_CLOCK_MHZ = 99.999001
_PS = "zynq_ultra_ps_e_0"
_AXI = {"VLNV": "xilinx.com:interface:aximm:1.0"}
# Regions of DDR that a master on HP0 sees: block, first address, last address.
_DDR = (
    ("HP0_DDR_LOW", 0x0000_0000, 0x7FFF_FFFF),
    ("HP0_DDR_HIGH", 0x8_0000_0000, 0xFF_FFFF_FFFF),
)


@dataclass(frozen=True)
class Register:
    """One 32-bit register; fields: name, bit offset, bits, access."""

    name: str
    offset: int
    access: str
    fields: tuple[tuple[str, int, int, str], ...] = ()


def vlnv(kernel: str) -> str:
    """What pynq binds a driver by: vendor, library, name, version of the packaged HLS kernel."""
    return VLNV.format(kernel=kernel)


def argument_registers(argument: spec.KernelArgument) -> tuple[Register, ...]:
    """An argument's registers as Vitis HLS names them: `name`; over 32 bits `name_1`, `name_2`."""
    if not argument.is_pointer and argument.bits <= 32:
        return (Register(argument.name, argument.offset, "write-only"),)
    return tuple(
        Register(f"{argument.name}_{word}", argument.offset + 4 * (word - 1), "write-only")
        for word in (1, 2)
    )


def kernel_registers(kernel: str) -> tuple[Register, ...]:
    """The s_axilite map of a kernel: the ap_ctrl_hs control block, then its arguments."""
    read, both = "read-only", "read-write"
    control = (
        Register(
            "CTRL",
            0x00,
            both,
            (
                ("AP_START", 0, 1, both),
                ("AP_DONE", 1, 1, read),
                ("AP_IDLE", 2, 1, read),
                ("AP_READY", 3, 1, read),
                ("RESERVED_1", 4, 3, read),
                ("AUTO_RESTART", 7, 1, both),
                ("RESERVED_2", 8, 1, read),
                ("INTERRUPT", 9, 1, read),
                ("RESERVED_3", 10, 22, read),
            ),
        ),
        Register("GIER", 0x04, both, (("Enable", 0, 1, both), ("RESERVED", 1, 31, read))),
        Register(
            "IP_IER",
            0x08,
            both,
            (
                ("CHAN0_INT_EN", 0, 1, both),
                ("CHAN1_INT_EN", 1, 1, both),
                ("RESERVED_0", 2, 30, read),
            ),
        ),
        Register(
            "IP_ISR",
            0x0C,
            both,
            (
                ("CHAN0_INT_ST", 0, 1, both),
                ("CHAN1_INT_ST", 1, 1, both),
                ("RESERVED_0", 2, 30, read),
            ),
        ),
    )
    arguments = (argument_registers(a) for a in spec.KERNELS[kernel])
    return control + tuple(register for group in arguments for register in group)


def instances(
    engines: int | Mapping[str, int], control_base: int = CONTROL_BASE
) -> list[tuple[str, str, int]]:
    """(instance, kernel, base address) of every compute unit, in address order.

    engines: units of each kernel of the spec, or kernel -> units.
    """
    counts = dict.fromkeys(spec.KERNELS, engines) if isinstance(engines, int) else engines
    names = [(f"{kernel}_{i}", kernel) for kernel, count in counts.items() for i in range(count)]
    return [
        (name, kernel, control_base + i * CONTROL_BYTES) for i, (name, kernel) in enumerate(names)
    ]


def render_hwh(engines: int) -> str:
    """The hardware description of `engines` compute units of each kernel, on a Zynq UltraScale+."""
    root = ET.Element("EDKSYSTEM", EDWVERSION="1.2", VIVADOVERSION="2022.1")
    ET.SubElement(root, "SYSTEMINFO", ARCH="zynquplus", DEVICE="csim", NAME=STEM)
    ET.SubElement(root, "EXTERNALPORTS")
    ET.SubElement(root, "EXTERNALINTERFACES")
    modules = ET.SubElement(root, "MODULES")
    units = instances(engines)
    for name, kernel, _ in units:
        _add_kernel(modules, name, kernel)
    _add_processing_system(modules, units)
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def render_overlay(
    engines: int = CSIM_ENGINES, parameters: Mapping[str, object] | None = None
) -> dict[str, str]:
    """Every file of the csim overlay: its path below an overlay directory, and its text.

    parameters: what the library was built with; None: as this package builds it.
    """
    stem = CSIM_BITFILE.removesuffix(".bit")
    files = {
        CSIM_BITFILE: "The csim overlay has no bitstream: its kernels are in libspeckv.so.\n",
        f"{stem}.hwh": render_hwh(engines),
    }
    described = manifest.describe(
        target=CSIM_NAME,
        runs_on=CSIM_NAME,
        compute_units=dict.fromkeys(spec.KERNELS, engines),
        parameters=parameters or manifest.NATIVE_PARAMETERS,
        files={Path(name).name: text.encode() for name, text in files.items()},
    )
    return {**files, f"{stem}.json": manifest.to_json(described)}


def write_overlay(
    directory: Path,
    engines: int = CSIM_ENGINES,
    parameters: Mapping[str, object] | None = None,
) -> Path:
    """Writes the csim overlay below `directory`; returns the path to give to SpeckvOverlay."""
    if not 1 <= engines <= 16:
        raise ValueError(f"engines {engines} is not within 1..16")
    for name, text in render_overlay(engines, parameters).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory / CSIM_BITFILE


def stale(directory: Path = OVERLAY_DIR) -> list[str]:
    """Which checked-in files differ from what the spec gives now."""
    return [
        name
        for name, text in render_overlay().items()
        if not (directory / name).is_file()
        or (directory / name).read_text(encoding="utf-8") != text
    ]


def _add_kernel(modules: ET.Element, name: str, kernel: str) -> None:
    module = ET.SubElement(
        modules,
        "MODULE",
        FULLNAME=f"/{name}",
        HWVERSION="1.0",
        INSTANCE=name,
        IPTYPE="PERIPHERAL",
        MODTYPE=kernel,
        VLNV=vlnv(kernel),
    )
    block = ET.SubElement(
        ET.SubElement(module, "ADDRESSBLOCKS"),
        "ADDRESSBLOCK",
        ACCESS="read-write",
        INTERFACE="s_axi_control",
        NAME="Reg",
        RANGE=str(CONTROL_BYTES),
        USAGE="register",
    )
    registers = ET.SubElement(block, "REGISTERS")
    for register in kernel_registers(kernel):
        _add_register(registers, register)
    ET.SubElement(module, "PARAMETERS")
    ET.SubElement(module, "PORTS")
    interfaces = ET.SubElement(module, "BUSINTERFACES")
    ET.SubElement(interfaces, "BUSINTERFACE", _AXI, NAME="s_axi_control", TYPE="SLAVE")
    memory = ET.SubElement(module, "MEMORYMAP")
    for argument in spec.KERNELS[kernel]:
        if not argument.is_pointer:
            continue
        master = f"m_axi_gmem_{argument.name}"
        ET.SubElement(interfaces, "BUSINTERFACE", _AXI, NAME=master, TYPE="MASTER")
        for region, first, last in _DDR:
            _add_range(memory, region, first, last, _PS, (master, "S_AXI_HP0_FPD"), "MEMORY")


def _add_register(registers: ET.Element, register: Register) -> None:
    element = ET.SubElement(registers, "REGISTER", NAME=register.name)
    for key, value in (
        ("DESCRIPTION", register.name),
        ("ADDRESS_OFFSET", str(register.offset)),
        ("SIZE", "32"),
        ("ACCESS", register.access),
        ("IS_ENABLED", "true"),
    ):
        ET.SubElement(element, "PROPERTY", NAME=key, VALUE=value)
    fields = ET.SubElement(element, "FIELDS")
    for name, offset, bits, access in register.fields:
        field = ET.SubElement(fields, "FIELD", NAME=name)
        for key, value in (
            ("BIT_OFFSET", str(offset)),
            ("BIT_WIDTH", str(bits)),
            ("ACCESS", access),
        ):
            ET.SubElement(field, "PROPERTY", NAME=key, VALUE=value)


def _add_processing_system(modules: ET.Element, units: list[tuple[str, str, int]]) -> None:
    module = ET.SubElement(
        modules,
        "MODULE",
        FULLNAME=f"/{_PS}",
        HWVERSION="3.4",
        INSTANCE=_PS,
        IS_PL="FALSE",
        MODTYPE="zynq_ultra_ps_e",
        VLNV="xilinx.com:ip:zynq_ultra_ps_e:3.4",
    )
    parameters = ET.SubElement(module, "PARAMETERS")
    for i in range(4):  # pynqmetadata reads the settings of all four PL clocks
        reference = f"PSU__CRL_APB__PL{i}_REF_CTRL__"
        for name, value in (
            (f"PSU__FPGA_PL{i}_ENABLE", str(int(i == 0))),
            (f"{reference}DIVISOR0", "10"),
            (f"{reference}DIVISOR1", "1"),
            (f"{reference}SRCSEL", "IOPLL"),
            (f"{reference}ACT_FREQMHZ", str(PL_CLOCK_MHZ)),
        ):
            ET.SubElement(parameters, "PARAMETER", NAME=name, VALUE=value)
    ET.SubElement(module, "PORTS")
    interfaces = ET.SubElement(module, "BUSINTERFACES")
    ET.SubElement(interfaces, "BUSINTERFACE", _AXI, NAME="M_AXI_HPM0_FPD", TYPE="MASTER")
    memory = ET.SubElement(module, "MEMORYMAP")
    for name, _, base in units:
        ports = ("M_AXI_HPM0_FPD", "s_axi_control")
        _add_range(memory, "Reg", base, base + CONTROL_BYTES - 1, name, ports, "REGISTER")


def _add_range(
    memory: ET.Element,
    block: str,
    first: int,
    last: int,
    instance: str,
    ports: tuple[str, str],
    kind: str,
) -> None:
    ET.SubElement(
        memory,
        "MEMRANGE",
        ADDRESSBLOCK=block,
        BASEVALUE=f"0x{first:08X}",
        HIGHVALUE=f"0x{last:08X}",
        INSTANCE=instance,
        MASTERBUSINTERFACE=ports[0],
        MEMTYPE=kind,
        SLAVEBUSINTERFACE=ports[1],
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m speckv_pynq.device.hwh", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the files are stale")
    parser.add_argument("--out", type=Path, default=OVERLAY_DIR, help="overlay directory")
    options = parser.parse_args(arguments)
    if not options.check:
        print(write_overlay(options.out))
        return 0
    for name in (names := stale(options.out)):
        print(f"{name} is stale: run python -m speckv_pynq.device.hwh", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
