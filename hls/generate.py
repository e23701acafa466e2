"""Render spec.toml into every language: python hls/generate.py [--check], or say what klt takes: --report."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

sys.path.insert(0, str(Path(__file__).resolve().parent))
from coherence import transitions_of
from registers import registers_of
from report import Block, report

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TYPES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
STRUCTS = (
    "record_header",
    "descriptor",
    "completion",
    "page_table_entry",
    "codebook_header",
    "command",
    "command_completion",
    "predictor_header",
    "predictor_state",
    "prediction",
    "candidate",
    "buffer_entry",
    "dma_job",
    "dma_done",
)
# Driver's ring, predictor, translation and directory: value groups of the spec -> the prefix of their names.
RING_GROUPS = {
    "opcodes": "opcode",
    "moves": "move",
    "command_flags": "command_flag",
    "parameters": "parameter",
    "command_status": "command_status",
    "prediction_flags": "prediction_flag",
    "candidate_flags": "candidate_flag",
    "page_flags": "page_flag",
    "translation_status": "translation",
    "invalidations": "invalidate",
    "home_requests": "home_request",
    "home_answers": "home_answer",
}

# template -> output, relative to the repository; "{kernel}" makes one output a kernel
OUTPUTS = {
    "spec.py.j2": "speckv_pynq/spec.py",
    "speckv_spec.h.j2": "hls/generated/speckv_spec.h",
    "speckv_pkg.sv.j2": "hls/generated/speckv_pkg.sv",
    "kernel.cpp.j2": "hls/generated/{kernel}.cpp",
    "lossless_tables.py.j2": "speckv_pynq/reference/lossless_tables.py",
    "lossless_tables.h.j2": "hls/generated/lossless_tables.h",
    "speckv_csr.sv.j2": "hls/generated/speckv_csr.sv",
    "rtl_registers.md.j2": "docs/rtl_registers.md",
}
ROW_ENTRIES = 64  # of a table of scheme lossless, for C++


@dataclass(frozen=True)
class Field:
    """A field of a structure; `count` > 1 makes it an array."""

    name: str
    type: str
    count: int
    offset: int
    doc: str

    @property
    def bytes(self) -> int:
        return TYPES[self.type] * self.count

    @property
    def numpy(self) -> str:
        """The field's NumPy format, as Python source."""
        scalar = f'"<u{TYPES[self.type]}"'
        return scalar if self.count == 1 else f"({scalar}, ({self.count},))"


@dataclass(frozen=True)
class Argument:
    """A kernel argument with its offset in the s_axilite map that Vitis HLS lays out."""

    name: str
    role: str
    bits: int
    offset: int

    @property
    def is_pointer(self) -> bool:
        return self.role in ("in", "out", "inout")


def fields_of(struct: dict[str, Any], where: str) -> list[Field]:
    """Lay fields out in order, without padding; natural alignment and the total size must come out."""
    out, offset = [], 0
    for name, type_, doc in struct["fields"]:
        base, _, count = type_.partition("[")
        n = int(count.rstrip("]")) if count else 1
        if offset % TYPES[base]:
            raise ValueError(f"{where}.{name}: offset {offset} is not aligned to {base}")
        out.append(Field(name, base, n, offset, doc))
        offset += TYPES[base] * n
    if offset != struct["size"]:
        raise ValueError(f"{where}: fields end at {offset}, size says {struct['size']}")
    return out


def arguments_of(kernel: dict[str, Any]) -> list[Argument]:
    """Vitis HLS s_axilite: arguments from 0x10; 64-bit ones take 12 bytes, 32-bit ones 8."""
    out, offset = [], 0x10
    for name, role, bits in kernel["arguments"]:
        out.append(Argument(name, role, bits, offset))
        offset += 8 if role == "scalar" and bits == 32 else 12
    return out


def abi_id(spec: dict[str, Any]) -> int:
    """First 8 bytes (big-endian) of SHA-256 over what library, overlay and runtime must share."""
    shared = {
        key: spec[key]
        for key in (*STRUCTS[1:], *RING_GROUPS, "status", "kernels", "address", "registers")
    }
    text = json.dumps(shared, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def pack_address(spec: dict[str, Any], values: list[int]) -> tuple[int, int]:
    """Pack field values, most significant first, into (high, low) 64-bit words."""
    packed = 0
    for (_, bits), value in zip(spec["address"]["fields"], values, strict=True):
        packed = packed << bits | value
    return packed >> 64, packed & (1 << 64) - 1


def starts(row: str) -> list[int]:
    """Sums of the frequencies before each symbol; row: three hexadecimal digits a frequency."""
    frequency = [int(row[i : i + 3], 16) for i in range(0, len(row), 3)]
    if sum(frequency) != 1 << 12 or min(frequency) < 1 or len(frequency) >= ROW_ENTRIES:
        raise ValueError(f"lossless table {row!r}: sum {sum(frequency)}, least {min(frequency)}")
    return list(itertools.accumulate(frequency, initial=0)) + [1 << 12] * (
        ROW_ENTRIES - len(frequency) - 1
    )


def context(spec: dict[str, Any]) -> dict[str, Any]:
    """What templates see: the spec with layouts worked out."""
    for *values, high, low in spec["address"]["vectors"]:
        if pack_address(spec, values) != (high, low):
            raise ValueError(f"address vector {values}: spec says {high:#x}, {low:#x}")
    address, shift = [], 0
    for name, bits in reversed(spec["address"]["fields"]):
        address.insert(0, {"name": name, "bits": bits, "shift": shift})
        shift += bits
    tables = tomllib.loads((HERE / "lossless_tables.toml").read_text())
    kernels = [dict(k, arguments=arguments_of(k)) for k in spec["kernels"]]
    return {
        **spec,
        "kernel_params": spec["kernel"],
        "groups": {name: spec[name] for name in ("schemes", "dtypes", "kinds", "flags", "status")},
        "ring_groups": {prefix: spec[name] for name, prefix in RING_GROUPS.items()},
        "structs": {name: (spec[name]["size"], fields_of(spec[name], name)) for name in STRUCTS},
        "abi_id": abi_id(spec),
        "address_fields": address,
        "address_bits": shift,
        "kernels": kernels,
        "lossless_tables": tables["frequencies"],
        "registers": registers_of(spec, abi_id(spec)),
        "register_address_bits": spec["registers"]["address_bits"],
        "directory_table": transitions_of(spec["coherence"]),
        "directory_states": [name for name, _ in spec["coherence"]["states"]],
    }


def render(spec: dict[str, Any]) -> dict[Path, str]:
    """Output path -> text, for every template."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters["camel"] = lambda name: "".join(part.capitalize() for part in name.split("_"))
    env.filters["starts"] = starts
    env.filters["hexu"] = lambda value: f"0x{value:X}u"
    env.filters["pytuple"] = lambda value: tuple(value) if isinstance(value, list) else value
    action_bits = {name: 1 << i for i, (name, _) in enumerate(spec["coherence"]["actions"])}
    env.filters["action_bit"] = action_bits.__getitem__
    ctx = context(spec)
    out = {}
    for template, target in OUTPUTS.items():
        kernels = ctx["kernels"] if "{kernel}" in target else [None]
        for kernel in kernels:
            path = ROOT / target.format(kernel=kernel["name"] if kernel else "")
            out[path] = env.get_template(template).render(**{**ctx, "kernel": kernel})
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when an output is stale"
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="write nothing; multipliers, table bits and cycles a block of scheme klt",
    )
    sizes = parser.add_argument_group("size of --report; default: a layer of SmolLM2-135M")
    sizes.add_argument("--inputs", type=int, default=384, help="channels of a record")
    sizes.add_argument("--rank", type=int, default=256, help="components of all transforms")
    sizes.add_argument("--transforms", type=int, default=1)
    sizes.add_argument("--tokens", type=int, default=32)
    asked = parser.parse_args()
    check = asked.check
    spec = tomllib.loads((HERE / "spec.toml").read_text())
    if asked.report:
        print(
            report(spec["kernel"], Block(asked.inputs, asked.rank, asked.tokens, asked.transforms))
        )
        return 0
    stale = []
    for path, text in render(spec).items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        print(f"{'stale' if check else 'wrote'}: {path}")
    if check and stale:
        print("run: python hls/generate.py", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
