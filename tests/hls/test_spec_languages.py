"""The spec reads the same in every language: offsets, constants, address packing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from speckv_pynq import spec
from speckv_pynq.address import pack_address

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "hls/generated"
STRUCTS = {
    "record_header": spec.RECORD_HEADER,
    "descriptor": spec.DESCRIPTOR,
    "completion": spec.COMPLETION,
}
ENUMS = {
    "SCHEME": spec.Scheme,
    "DTYPE": spec.DType,
    "KIND": spec.Kind,
    "FLAG": spec.Flag,
    "STATUS": spec.Status,
}
# Compilers to try: (command, language standard).
COMPILERS = [
    pytest.param(compiler, standard, id=compiler, marks=pytest.mark.requires(compiler))
    for compiler, standard in (
        ("gcc", "c11"),
        ("g++", "c++17"),
        ("clang", "c11"),
        ("clang++", "c++17"),
    )
]


def python_facts() -> dict[str, int]:
    """Name -> value of everything that Python and C must agree on."""
    facts = {"MAGIC": spec.MAGIC, "FORMAT_VERSION": spec.FORMAT_VERSION, "ABI_ID": spec.ABI_ID}
    for name in (
        "AXI_BITS",
        "LINE_BYTES",
        "FRAME_BYTES",
        "LANES",
        "GROUP",
        "BLOCK_TOKENS",
        "MAX_BLOCK_BYTES",
        "MAX_BATCH",
        "MIN_SLOT_BYTES",
    ):
        facts[name] = getattr(spec, name)
    for prefix, enum in ENUMS.items():
        facts |= {f"{prefix}_{member.name}": member.value for member in enum.__members__.values()}
    for struct, dtype in STRUCTS.items():
        facts[f"sizeof {struct}"] = dtype.itemsize
        for field, (_, offset, *_) in dtype.fields.items():
            facts[f"{struct}.{field}"] = offset
    for i, (*fields, _, _) in enumerate(spec.ADDRESS_VECTORS):
        high, low = pack_address(*fields)
        facts |= {f"address {i} high": high, f"address {i} low": low}
        facts |= {
            f"field {i} {n}": v for (n, *_), v in zip(spec.ADDRESS_FIELDS, fields, strict=True)
        }
        facts[f"field {i} valid"] = 1
    return facts


def c_expression(name: str) -> str:
    """The C expression whose value the fact `name` has."""
    if name.startswith("sizeof "):
        return f"sizeof(struct speckv_{name[7:]})"
    if name.startswith("address "):
        _, i, word = name.split()
        v = f"vectors[{i}]"
        return f"speckv_pack_address({v}.req_id, {v}.layer, {v}.head, {v}.pos, {v}.kind).{word}"
    if name.startswith("field "):
        _, i, field = name.split()
        words = f"vectors[{i}].high" + ("" if field == "valid" else f", vectors[{i}].low")
        return f"speckv_address_{field}({words})"
    if "." in name:
        struct, field = name.split(".")
        return f"offsetof(struct speckv_{struct}, {field})"
    return f"SPECKV_{name}"


@pytest.mark.parametrize(("compiler", "standard"), COMPILERS)
def test_c_header_agrees_with_python(compiler: str, standard: str, tmp_path: Path) -> None:
    facts = python_facts()
    lines = [f'  printf("%llu\\n", (unsigned long long)({c_expression(f)}));' for f in facts]
    source = tmp_path / ("facts.c" if standard == "c11" else "facts.cpp")
    source.write_text(
        '#include <stdio.h>\n#include "speckv_spec.h"\n'
        "static const struct speckv_address_vector vectors[] = SPECKV_ADDRESS_VECTORS;\n"
        "int main(void) {\n" + "\n".join(lines) + "\n  return 0;\n}\n"
    )
    command = [compiler, f"-std={standard}", "-pedantic-errors", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-I", GENERATED, source, "-o", tmp_path / "facts"], check=True)
    out = subprocess.run([tmp_path / "facts"], check=True, capture_output=True, text=True).stdout
    assert dict(zip(facts, map(int, out.split()), strict=True)) == facts


def test_structures_have_no_gaps() -> None:
    for dtype in STRUCTS.values():
        ends = [offset + field.itemsize for field, offset, *_ in dtype.fields.values()]
        assert [0, *ends[:-1]] == [offset for _, offset, *_ in dtype.fields.values()]
        assert ends[-1] == dtype.itemsize


@pytest.mark.requires("verilator")
def test_systemverilog_package_is_lint_clean() -> None:
    command = ["verilator", "--lint-only", "-Wall", "-Wno-UNUSEDPARAM"]
    subprocess.run([*command, GENERATED / "speckv_pkg.sv"], check=True)


def test_record_format_page_has_the_header_of_the_spec() -> None:
    page = (ROOT / "docs/record_format.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` u(\d+)(?:\[(\d+)\])? \|", page, re.MULTILINE)
    stated = [(name, int(at), int(bits) // 8 * int(n or 1)) for at, name, bits, n in rows]
    header = spec.RECORD_HEADER.fields.items()
    assert stated == [(name, at, field.itemsize) for name, (field, at) in header]
