"""What `speckv bench rtl` measures: for each module its synthesis, and the test that counts its cycles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.rtl.simulate import GENERATED, PACKAGES, RTL, simulate, source_of

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Cycles:
    """A test that reports cycles, and how its report gives the two figures; None: it does not say."""

    bench: str
    testcase: str
    beats_per_cycle: Callable[[Report], float | None] = lambda report: report["beats_per_cycle"]
    latency_cycles: Callable[[Report], int | None] = lambda report: report["latency_cycles"]
    parameters: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A module, or one of its modes. `quick`: seconds, so CI checks it. `clock`: small enough for the ECP5."""

    top: str
    parameters: Mapping[str, int] = field(default_factory=dict)  # of synthesis
    cycles: Cycles | None = None
    quick: bool = False
    clock: bool = False
    synthesis: bool = True


def _none(report: Report) -> None:
    return None


def _compress(scheme: str) -> Cycles:
    return Cycles(
        "tb_kv_compress", "one_beat_a_cycle", parameters={"MaxBlockBytes": 32768}, settings={"scheme": scheme}
    )  # fmt: skip


FIGURES: dict[str, Figure] = {
    "axis_register": Figure(
        "axis_register",
        {"Width": 64},
        cycles=Cycles(
            "tb_axis_register", "stream", lambda r: round(r["items"] / r["cycles"], 3), _none
        ),
        quick=True,
        clock=True,
    ),
    "fifo": Figure("fifo", {"Width": 64, "Depth": 16}, quick=True, clock=True),
    "crc32c": Figure("crc32c", cycles=Cycles("tb_crc32c", "messages", _none)),
    "descriptor_check": Figure("descriptor_check"),
    "speckv_csr": Figure("speckv_csr"),
    "command_store": Figure("command_store"),
    "speckv_control": Figure("speckv_control"),
    "dma_engine": Figure(
        "dma_engine",
        cycles=Cycles(
            "tb_dma_engine",
            "throughput",
            lambda r: round(min(v for k, v in r.items() if k.endswith("_busy")), 3),
            lambda r: r["copy_latency_cycles"],
        ),
    ),
    "atu": Figure(
        "atu",
        cycles=Cycles(
            "tb_atu",
            "hits",
            lambda r: round(r["lookups_per_cycle"], 3),
            lambda r: max(r["hit_latencies"]),
        ),
        clock=True,
    ),
    "coherence_directory": Figure("coherence_directory"),
    "cxl_mem_if": Figure(
        "cxl_mem_if",
        cycles=Cycles(
            "tb_cxl_mem_if",
            "one_request_a_cycle",
            lambda r: round(r["reads_per_cycle"], 3),
            lambda r: r["read_latency_cycles"],
        ),
    ),
    "prefetch_core": Figure(
        "prefetch_core",
        cycles=Cycles(
            "tb_prefetch_core",
            "latency_and_rate",
            lambda r: round(r["descriptors_per_cycle"], 3),
            parameters={"PatienceCycles": 256, "PredictorCycles": 512},
        ),
    ),
    "kv_compress": Figure("kv_compress", {"MaxBlockBytes": 32768}, cycles=_compress("INT4")),
    "kv_compress raw": Figure("kv_compress", cycles=_compress("RAW"), synthesis=False),
    "kv_compress int8_delta_rle": Figure(
        "kv_compress", cycles=_compress("INT8_DELTA_RLE"), synthesis=False
    ),
}


def sources(top: str) -> list[str]:
    """The files that a module needs, its own and those of what stands in them, packages first."""
    known = {path.stem: path for folder in (RTL, GENERATED) for path in folder.glob("*.sv")}
    found, open_ = [], [top]
    while open_:
        path = source_of(open_.pop())
        if path in found:
            continue
        found.append(path)
        code = "\n".join(line.partition("//")[0] for line in path.read_text().splitlines())
        words = set(re.findall(r"^\s*(\w+)", code, re.MULTILINE))
        open_ += [word for word in words if word in known and known[word] not in found]
    return [str(path) for path in (*PACKAGES, *found) if path.suffix == ".sv"]


def run(figure: Figure) -> dict[str, float | int | None]:
    """The cycles of a figure, from simulation."""
    asked = figure.cycles
    if asked is None:
        return {"beats_per_cycle": None, "latency_cycles": None}
    report = simulate(
        figure.top,
        asked.bench,
        parameters=asked.parameters,
        settings=asked.settings,
        testcase=asked.testcase,
    )
    return {
        "beats_per_cycle": asked.beats_per_cycle(report),
        "latency_cycles": asked.latency_cycles(report),
    }
