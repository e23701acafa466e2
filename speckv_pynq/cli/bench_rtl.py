"""`speckv bench rtl`: cycles, size and clock of the RTL modules."""

from __future__ import annotations

import argparse
from typing import Any

from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import SpeckvError

NAME = "rtl"

DESCRIPTION = """\
Figures of the modules in overlay/rtl. Cycles come from simulation (Verilator, the benches of tests/rtl). LUT (logic,
memory and shift registers), FF, DSP, BRAM (36 Kb) and URAM are pyosys' estimates for UltraScale+, not Vivado's. The
clock is nextpnr's after place and route on an ECP5 (speed grade 6), between the registers of a scan wrapper: to see
regressions by, never that of an Alveo. Needs a source checkout with the extra `rtl`; all modules take half an hour.
"""
EPILOG = """\
examples:
  speckv bench rtl --quick --check                 what CI does
  speckv bench rtl --module crc32c --module fifo
  speckv bench rtl --update                        notes the figures in overlay/rtl/qor.json

JSON: `modules`, by name {beats_per_cycle, latency_cycles, lut, ff, dsp, bram, uram, ecp5_mhz}, null where not measured;
`changes`, lines about figures that differ from those noted. A beat of atu is a look-up, of cxl_mem_if a request, of
prefetch_core a descriptor.
"""


class QorChanged(SpeckvError):
    """Figures are not those that are noted."""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="cycles, size and clock of RTL modules", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument("--module", action="append", default=[], help="only this one; repeat it")
    parser.add_argument("--quick", action="store_true", help="only modules that take seconds")
    parser.add_argument("--no-cycles", action="store_true", help="synthesis only")
    parser.add_argument(
        "--check", action="store_true", help="fail when a figure is not what is noted"
    )
    parser.add_argument("--update", action="store_true", help="note the figures")
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import rtl

    root = rtl.checkout()
    modules = rtl.names(root, arguments.module, quick=arguments.quick)
    with output.progress("simulating and synthesizing", len(modules)) as advance:
        new = rtl.measure(root, modules, cycles=not arguments.no_cycles, advance=advance)
    rows = [
        (name, *("" if values[key] is None else f"{values[key]:g}" for key in rtl.KEYS))
        for name, values in new.items()
    ]
    output.table(
        "RTL modules: cycles simulated, the rest estimated",
        ("", *(key.replace("_", " ") for key in rtl.KEYS)),
        rows,
    )
    changes = rtl.changes(new, rtl.noted(root))
    for line in changes:
        output.say(line)
    if arguments.update:
        output.note(f"noted in {rtl.note(root, new)}")
    elif arguments.check and changes:
        raise QorChanged(f"{len(changes)} figures changed: speckv bench rtl --update notes them")
    return {"modules": new, "changes": changes}
