"""The files that a build hands to the vendor's tools: rendered from templates, the spec and the board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from overlay.board import Board
from overlay.estimate import AXI_BITS, COSTS, Parameters, units
from speckv_pynq import spec
from speckv_pynq.device import hwh

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
INCLUDE_FOLDERS = (ROOT / "hls/include", ROOT / "hls/generated")
# Of the processing system: first address of the control port, bits of a memory port, its template.
CONTROL_BASE = {"zynqmp": hwh.CONTROL_BASE, "zynq7": 0x4000_0000}
PORT_BITS = {"zynqmp": 128, "zynq7": 64}


def defines(p: Parameters) -> dict[str, str]:
    """Macros that hls/include/speckv/config.hpp and the spec's header read."""
    return {
        "SPECKV_LANES_A_CYCLE": str(p.lanes),
        "SPECKV_MAX_BLOCK_BYTES": f"{p.max_block_bytes}u",
        "SPECKV_SCHEMES": f"{p.scheme_bits:#x}u",
    }


def render(board: Board, p: Parameters, out: Path) -> dict[str, str]:
    """File name -> text, of everything that goes into `out` before a tool runs; csim needs none."""
    if board.family == "csim":
        return {}
    ctx = _context(board, p, out)
    files = {}
    for kernel in ctx["units"]:
        function = COSTS["kernels"][kernel].get("buffers_in")
        one = {**ctx, "kernel": kernel, "function": function}
        files[f"directives_{kernel}.tcl"] = _text("directives.tcl.j2", one)
        if board.family == "alveo":
            files[f"compile_{kernel}.cfg"] = _text("alveo/compile.cfg.j2", one)
    if board.family == "alveo":
        files["link.cfg"] = _text("alveo/link.cfg.j2", ctx)
    else:
        files["hls.tcl"] = _text("zynq/hls.tcl.j2", ctx)
        files["design.tcl"] = _text("zynq/design.tcl.j2", ctx)
    return files


def source(kernel: str) -> Path:
    """The generated top of a kernel."""
    return ROOT / f"hls/generated/{kernel}.cpp"


def _context(board: Board, p: Parameters, out: Path) -> dict[str, Any]:
    counts = units(board, p.engines)
    placed = hwh.instances(counts, CONTROL_BASE.get(board.family, hwh.CONTROL_BASE))
    instances = [
        {
            "name": name,
            "kernel": kernel,
            "base": base,
            "masters": [a.name for a in spec.KERNELS[kernel] if a.is_pointer],
        }
        for name, kernel, base in placed
    ]
    return {
        "board": board,
        "p": p,
        "out": out,
        "stem": hwh.STEM,
        "units": counts,
        "instances": instances,
        "hertz": round(p.mhz * 1e6),
        "include_folders": INCLUDE_FOLDERS,
        "defines": defines(p),
        "cflags": " ".join(
            [f"-I{folder}" for folder in INCLUDE_FOLDERS]
            + [f"-D{name}={value}" for name, value in defines(p).items()]
        ),
        "sources": {kernel: source(kernel) for kernel in counts},
        "vlnv": {kernel: hwh.vlnv(kernel).split(":") for kernel in counts},
        "ip_folder": out / "ip",
        "image_folder": out / "image",
        "ports": _ports(board, instances),
        "ps": f"zynq/ps_{board.family}.tcl.j2",
        "axi_bits": AXI_BITS,
        "port_bits": PORT_BITS.get(board.family),
        "control_kib": hwh.CONTROL_BYTES // 1024,
        "intc_base": placed[-1][2] + hwh.CONTROL_BYTES,
    }


def _ports(board: Board, instances: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Memory port -> the masters that go through it, as paths of interfaces and address spaces."""
    ports: dict[str, list[dict[str, str]]] = {
        port: [] for port in sorted(set(board.place.values()))
    }
    for unit in instances:
        for argument in unit["masters"]:
            interface = f"m_axi_gmem_{argument}"
            ports[board.place[argument]].append(
                {
                    "path": f"{unit['name']}/{interface}",
                    "space": f"{unit['name']}/Data_{interface}",
                }
            )
    return ports


def _text(template: str, ctx: dict[str, Any]) -> str:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return env.get_template(template).render(**ctx)
