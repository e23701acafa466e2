"""What a build would take of a board, estimated, and the parameters that fit it.

No synthesis tool has seen these figures; overlay/estimate.toml says what each is counted from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hls.report import multipliers
from overlay.board import RESOURCES, Board, tomllib
from speckv_pynq import spec
from speckv_pynq.errors import ConfigError

HERE = Path(__file__).resolve().parent
COSTS = tomllib.loads((HERE / "estimate.toml").read_text(encoding="utf-8"))
KERNEL_SPEC = tomllib.loads((HERE.parent / "hls/spec.toml").read_text(encoding="utf-8"))["kernel"]
LEAST_BLOCK_BYTES = 8192  # what hls/include/speckv/config.hpp asks blocks to be a multiple of
# In this order schemes join a build for as long as they fit.
PREFERENCE = ("raw", "int4", "lossless", "klt", "int8_delta_rle")
AXI_BITS = KERNEL_SPEC["axi_bits"]


@dataclass(frozen=True)
class Parameters:
    """What a build is made with. mhz: clock of the kernels; storage: where block and payload lie."""

    engines: int
    max_block_bytes: int
    schemes: tuple[str, ...]  # names, in the order of their ids
    lanes: int
    mhz: float
    storage: str

    @property
    def scheme_bits(self) -> int:
        return sum(1 << int(spec.Scheme[name.upper()]) for name in self.schemes)


@dataclass(frozen=True)
class Asked:
    """What the caller wants instead of what the estimate would choose; None: the estimate's."""

    engines: int | None = None
    max_block_bytes: int | None = None
    schemes: tuple[str, ...] | None = None
    mhz: float | None = None


def units(board: Board, engines: int) -> dict[str, int]:
    """Kernel -> compute units, in the order of the spec."""
    return {
        kernel: engines if kernel in board.kernels else 1
        for kernel in spec.KERNELS
        if kernel in board.kernels or kernel in board.kernels_once
    }


def masters(board: Board, engines: int) -> int:
    """m_axi ports of all compute units."""
    return sum(
        n * sum(a.is_pointer for a in spec.KERNELS[kernel])
        for kernel, n in units(board, engines).items()
    )


def estimate(board: Board, p: Parameters) -> dict[str, dict[str, int]]:
    """Part of the design -> resource -> how much, for a whole build."""
    out = {}
    for kernel, n in units(board, p.engines).items():
        one = _kernel(board, p, kernel)
        out[f"{kernel} x {n}"] = {resource: n * one[resource] for resource in RESOURCES}
    if board.family != "alveo":  # there the shell brings its own
        costs, count = COSTS["interconnect"], sum(units(board, p.engines).values())
        lut = costs["lut"] + costs["lut_per_slave"] * (count + 1)
        lut += costs["lut_per_master"] * masters(board, p.engines)
        out["interconnect"] = dict.fromkeys(RESOURCES, 0) | {"lut": lut}
    return out


def total(parts: dict[str, dict[str, int]]) -> dict[str, int]:
    return {resource: sum(part[resource] for part in parts.values()) for resource in RESOURCES}


def excess(board: Board, p: Parameters) -> list[str]:
    """Why the parameters do not fit; empty when they do."""
    reasons = []
    used = total(estimate(board, p))
    for resource in RESOURCES:
        if used[resource] > (budget := board.budget(resource)):
            reasons.append(
                f"{resource} {used[resource]} > {budget} ({board.limit[resource]:.0%} of {board.fabric[resource]})"
            )
    if (ports := masters(board, p.engines)) > board.memory["ports"]:
        reasons.append(f"m_axi ports {ports} > {board.memory['ports']}")
    return reasons


def derive(board: Board, asked: Asked) -> Parameters:
    """The parameters of a build: what was asked, checked, and the most that fits for the rest.

    Schemes first (as many as fit one engine at the board's least block), then engines, then the block. ConfigError
    says what does not fit and why.
    """
    mhz = _clock(board, asked.mhz)
    if board.family == "csim":
        return _csim(board, asked)
    lanes, least = board.kernel["lanes"], board.kernel["least_block_bytes"]
    block = _block(least if asked.max_block_bytes is None else asked.max_block_bytes)
    most = board.kernel["most_engines"]
    engines = _within("engines", asked.engines, 1, most) if asked.engines is not None else 1
    p = Parameters(engines, block, ("raw",), lanes, mhz, board.kernel["storage"][0])
    if asked.schemes is not None:
        p = replace(p, schemes=_schemes(asked.schemes))
    p = _stored(board, p, must=True)
    if asked.schemes is None:
        for name in PREFERENCE[1:]:
            p = _stored(board, replace(p, schemes=_schemes((*p.schemes, name)))) or p
    if asked.engines is None:
        while p.engines < most and (more := _stored(board, replace(p, engines=p.engines + 1))):
            p = more
    if asked.max_block_bytes is None:
        while 2 * p.max_block_bytes <= spec.MAX_BLOCK_BYTES:
            more = _stored(board, replace(p, max_block_bytes=2 * p.max_block_bytes))
            if not more:
                break
            p = more
    return p


def report(board: Board, p: Parameters) -> str:
    """The estimate as a table against the board, and the parameters."""
    counts = ", ".join(f"{n} {kernel}" for kernel, n in units(board, p.engines).items())
    lines = [
        f"{board.name}: {board.title}",
        f"  {counts}; schemes {', '.join(p.schemes)}; blocks up to {p.max_block_bytes} bytes in {p.storage}",
        f"  {p.lanes} lanes a cycle, {AXI_BITS}-bit kernel ports, {p.mhz:g} MHz asked for",
    ]
    if board.family == "csim":
        return "\n".join([*lines[:2], "  native: nothing to fit"])
    parts = estimate(board, p)
    lines.append("  ESTIMATE, counted from the design; no synthesis tool has seen it:")
    rows = {**parts, "all": total(parts), "limit": {r: board.budget(r) for r in RESOURCES}}
    rows["device"] = {r: board.fabric[r] for r in RESOURCES}
    lines.append(f"  {'':<20}" + "".join(f"{r:>10}" for r in RESOURCES))
    for name, row in rows.items():
        lines.append(f"  {name:<20}" + "".join(f"{row[r]:>10}" for r in RESOURCES))
    ports = f"{masters(board, p.engines)} of {board.memory['ports']}"
    lines.append(f"  m_axi ports: {ports}; device figures: {board.fabric['source']}")
    left_out = [name for name in PREFERENCE if name not in p.schemes]
    for name in left_out:
        why = excess(board, replace(p, schemes=_schemes((*p.schemes, "int4", name))))
        lines.append(f"  without {name}: {'; '.join(why) if why else 'left out as asked'}")
    return "\n".join(lines)


def _stored(board: Board, p: Parameters, must: bool = False) -> Any:
    """p with the first storage that fits; None, or with `must` an error, when none does."""
    reasons = []
    for storage in board.kernel["storage"]:
        candidate = replace(p, storage=storage)
        why = excess(board, candidate)
        if not why:
            return candidate
        reasons.append(f"with buffers in {storage}: {'; '.join(why)}")
    if must:
        raise ConfigError(
            f"{board.name}: {p.engines} engines of {', '.join(p.schemes)} with max_block_bytes {p.max_block_bytes} "
            f"do not fit (estimate): {' / '.join(reasons)}"
        )
    return None


def _clock(board: Board, mhz: float | None) -> float:
    if board.family == "csim":
        if mhz is not None:
            raise ConfigError(f"clock_mhz {mhz:g}: csim has no clock")
        return 0.0
    c = board.clock
    value = float(c["mhz"] if mhz is None else mhz)
    return _within(f"{board.name}: clock_mhz", value, c["least_mhz"], c["most_mhz"])


def _within(what: str, value: Any, least: Any, most: Any) -> Any:
    if not least <= value <= most:
        raise ConfigError(f"{what} {value:.12g} is not within {least:.12g}..{most:.12g}")
    return value


def _block(value: int) -> int:
    _within("max_block_bytes", value, LEAST_BLOCK_BYTES, spec.MAX_BLOCK_BYTES)
    if value % LEAST_BLOCK_BYTES:
        raise ConfigError(f"max_block_bytes {value} is not a multiple of {LEAST_BLOCK_BYTES}")
    return value


def _schemes(names: tuple[str, ...]) -> tuple[str, ...]:
    """In the order of their ids, once each."""
    known = [s.name.lower() for s in spec.Scheme if s.name.lower() in PREFERENCE]
    for name in names:
        if name not in known:
            raise ConfigError(f"scheme {name!r} is not one of {', '.join(known)}")
    if "raw" not in names:
        raise ConfigError(f"schemes {', '.join(names)}: every scheme falls back to raw, add it")
    if "klt" in names and "int4" not in names:
        raise ConfigError(f"schemes {', '.join(names)}: klt falls back to int4, add it")
    return tuple(name for name in known if name in names)


def _csim(board: Board, asked: Asked) -> Parameters:
    engines = board.kernel["engines"] if asked.engines is None else asked.engines
    _within("engines", engines, 1, board.kernel["most_engines"])
    block = spec.MAX_BLOCK_BYTES if asked.max_block_bytes is None else _block(asked.max_block_bytes)
    schemes = _schemes(PREFERENCE if asked.schemes is None else asked.schemes)
    return Parameters(engines, block, schemes, KERNEL_SPEC["lanes"], 0.0, "memory")


def _kernel(board: Board, p: Parameters, kernel: str) -> dict[str, int]:
    """One compute unit."""
    if kernel not in COSTS["kernels"]:
        raise ConfigError(f"kernel {kernel} has no [kernels.{kernel}] in overlay/estimate.toml")
    lut, brams = COSTS["control"]["lut"], 0.0
    dsp = work = 0.0
    used = dict.fromkeys(RESOURCES, 0)
    for argument in spec.KERNELS[kernel]:
        if argument.is_pointer:
            lut += COSTS["axi_master"]["fixed_lut"]
            lut += COSTS["axi_master"]["lut"] * argument.bits / AXI_BITS
            brams += _fifo_brams(board, argument.bits)
    for part in _parts(kernel, p):
        share = p.lanes / 32
        lut += part.get("lut", 0)
        lut += part.get("lut_lanes", 0) * (share if share == 1 else share * COSTS["sharing"])
        dsp += part.get("dsp", 0) + part.get("dsp_lanes", 0) * share
        work += part.get("bytes", 0) + part.get("bytes_per_block_byte", 0) * p.max_block_bytes
        if part.get("buffers"):
            buffers = _buffers(p)
            used = {r: used[r] + buffers.get(r, 0) for r in RESOURCES}
    brams += math.ceil(work / COSTS["work_buffer_bytes_a_bram36"])
    used["lut"] += math.ceil(lut)
    used["dsp"] += math.ceil(dsp)
    used["bram36"] += math.ceil(brams)
    return used


def _parts(kernel: str, p: Parameters) -> list[dict[str, Any]]:
    out = []
    for name in COSTS["kernels"][kernel]["parts"]:
        if name in COSTS["parts"]:
            out.append(COSTS["parts"][name])
            continue
        for scheme in p.schemes:
            part = COSTS["schemes"][scheme][name]
            if scheme == "klt":
                part = {**part, "dsp_lanes": 2 * sum(multipliers(KERNEL_SPEC).values())}
            out.append(part)
    return out


def _fifo_brams(board: Board, bits: int) -> int:
    """A master's data FIFO: what is outstanding, in BRAM36 of 72 bits by 512; small ones are LUTs."""
    depth = board.kernel["axi_outstanding"] * board.kernel["axi_burst_beats"]
    return math.ceil(bits / 72) * math.ceil(depth / 512) if depth > 64 else 0


def _buffers(p: Parameters) -> dict[str, int]:
    """Block and payload of a compute unit, twice each: DATAFLOW overlaps neighbours.

    Both are cut into banks, so that a cycle reaches any window: a bank is 16 bits wide for the block, 8 for the
    payload, and beats * (32 / lanes) deep. hls/include/speckv/config.hpp has their sizes.
    """
    beats, turns = p.max_block_bytes // 64, 32 // p.lanes
    banks = ((p.lanes, 16, (beats + 1) * turns), (2 * p.lanes, 8, (beats + 2) * turns))
    if p.storage == "uram":  # 4096 deep, 72 wide
        return {"uram": sum(2 * n * math.ceil(depth / 4096) for n, _, depth in banks)}
    if p.storage == "lutram":
        lut = sum(2 * n * bits * math.ceil(depth / 64) for n, bits, depth in banks)
        return {"lut": lut, "lutram": lut}
    # A BRAM18 holds 1024 words of 16 bits or 2048 of 8; two make a BRAM36.
    halves = sum(2 * n * math.ceil(depth * bits / 16384) for n, bits, depth in banks)
    return {"bram36": math.ceil(halves / 2)}
