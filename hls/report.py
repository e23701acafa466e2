"""What the klt kernels take in hardware: multipliers, table bits, cycles a block. Counted from the design.

No synthesis tool has seen these figures: they follow from the array sizes of spec.toml and the loops of
hls/include/speckv/klt*.hpp, each loop at the initiation interval that its pragma asks for. The range coder is counted
at half a round a cycle, which asks for rounds of several records in turn: a lane's own loop takes longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

ROTATION_MULTIPLIERS = (
    4 + 4 + 4
)  # both angle sums, a pair's four products; the phase is counted as four
RANS_MULTIPLIERS = 2  # of a lane: a 12 x 20 bit product
COEFFICIENT_BITS = 16


@dataclass(frozen=True)
class Block:
    """What a record holds: `inputs` channels in `transforms` transforms of `rank` components together."""

    inputs: int
    rank: int
    tokens: int
    transforms: int = 1


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def multipliers(kernel: dict[str, Any]) -> dict[str, int]:
    """16-bit multipliers of one kernel (kv_compress and kv_decompress take as many each)."""
    return {
        "transform": 16 * kernel["klt_mac_rows"] * kernel["klt_mac_tokens"],
        "rotation": ROTATION_MULTIPLIERS,
        "range coder": RANS_MULTIPLIERS * kernel["entropy_lanes"] // 2,
    }


def table_bits(kernel: dict[str, Any], block: Block) -> dict[str, int]:
    """On-chip bits of a unit's tables; rows of the transforms are streamed and not counted."""
    classes, symbols = kernel["codebook_classes"], kernel["entropy_symbols"]
    return {
        "symbols of slots": classes * 5 << kernel["entropy_bits"],
        "frequencies and costs": classes * symbols * (16 + 16 + 16),
        "channels": block.inputs * (8 + 8 + 8 + 32),
        "components": block.rank * (32 + 8 + 16 + 8 * kernel["klt_table_sets"]),
        "rotation": 2 * 256 * 2 * 16,
    }


def cycles(kernel: dict[str, Any], block: Block) -> dict[str, dict[str, int]]:
    """Cycles of each stage of one block. Stages of one block follow each other; blocks overlap stage by stage."""
    lanes, tile, rows = 32, kernel["klt_mac_tokens"], kernel["klt_mac_rows"]
    beats = ceil(block.inputs * block.tokens, lanes)
    each, rank = block.inputs // block.transforms, ceil(block.rank, block.transforms)
    tiles = ceil(block.tokens, tile)
    rounds = ceil(block.rank * block.tokens, kernel["entropy_lanes"] // 2)
    forward = block.transforms * ceil(rank, rows) * tiles * ceil(each, 16)
    inverse = block.transforms * ceil(each, rows) * tiles * ceil(rank, 16)
    moved = max(forward, block.rank * ceil(each, lanes))  # or the rows do not come fast enough
    return {
        "kv_compress": {
            "read": beats,
            "fixed point, rotation": 2 * beats,
            "transform": moved,
            "choice of table set": block.rank * ceil(block.tokens, 8),
            "range coder": rounds,
        },
        "kv_decompress": {
            "range coder": rounds,
            "transform": max(inverse, block.inputs * ceil(rank, lanes)),
            "rotation, rounding": 2 * beats,
            "write": beats,
        },
    }


def report(kernel: dict[str, Any], block: Block) -> str:
    """The figures as text."""
    out = [
        f"block: {block.inputs} channels in {block.transforms} transforms, {block.rank} components, "
        f"{block.tokens} tokens (fp16: {2 * block.inputs * block.tokens} bytes)",
        "counted from the design (spec.toml and loop bounds), not synthesised",
        "",
        "multipliers of a kernel: "
        + ", ".join(f"{name} {n}" for name, n in multipliers(kernel).items())
        + f"; {sum(multipliers(kernel).values())} in all",
        f"multiply-accumulates a byte: {mac_rate(block):.0f} at full rank, coding and decoding alike",
    ]
    bits = table_bits(kernel, block)
    total = sum(bits.values())
    out.append(
        "table bits: "
        + ", ".join(f"{name} {n}" for name, n in bits.items())
        + f"; {total} in all, {math.ceil(total / 36864)} BRAM36"
    )
    for name, stages in cycles(kernel, block).items():
        slowest = max(stages, key=lambda stage: stages[stage])
        parts = ", ".join(f"{stage} {n}" for stage, n in stages.items())
        speed = 2 * block.inputs * block.tokens / stages[slowest]
        out.append(
            f"{name}: {parts}; a block every {stages[slowest]} cycles ({slowest}), {speed:.1f} bytes a cycle"
        )
    return "\n".join(out)


def mac_rate(block: Block) -> float:
    """Multiply-accumulates for each byte of an fp16 block."""
    return block.rank * (block.inputs / block.transforms) / (2 * block.inputs)
