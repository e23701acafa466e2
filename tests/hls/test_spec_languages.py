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
    "command": spec.COMMAND,
    "command_completion": spec.COMMAND_COMPLETION,
}
ENUMS = {
    "SCHEME": spec.Scheme,
    "DTYPE": spec.DType,
    "KIND": spec.Kind,
    "FLAG": spec.Flag,
    "STATUS": spec.Status,
    "OPCODE": spec.Opcode,
    "MOVE": spec.Move,
    "COMMAND_FLAG": spec.CommandFlag,
    "PARAMETER": spec.Parameter,
    "COMMAND_STATUS": spec.CommandStatus,
    "DIRECTORY_STATE": spec.DirectoryState,
    "DIRECTORY_EVENT": spec.DirectoryEvent,
    "DIRECTORY_ACTION": spec.DirectoryAction,
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
        "RING_SLOTS",
        "MAX_AGENTS",
    ):
        facts[name] = getattr(spec, name)
    for prefix, enum in ENUMS.items():
        facts |= {f"{prefix}_{member.name}": member.value for member in enum.__members__.values()}
    for struct, dtype in STRUCTS.items():
        facts[f"sizeof {struct}"] = dtype.itemsize
        for field, (_, offset, *_) in dtype.fields.items():
            facts[f"{struct}.{field}"] = offset
    for state, row in enumerate(spec.DIRECTORY_TABLE):
        for event, cell in enumerate(row):
            facts[f"table[{state}][{event}].legal"] = cell.legal
            facts[f"table[{state}][{event}].next"] = cell.next
            facts[f"table[{state}][{event}].actions"] = cell.actions
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
    if name.startswith("table["):
        return name
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
        "static const struct speckv_directory_transition\n"
        "    table[SPECKV_DIRECTORY_STATES][SPECKV_DIRECTORY_EVENTS] = SPECKV_DIRECTORY_TABLE;\n"
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


def test_systemverilog_has_the_coherence_table() -> None:
    package = (GENERATED / "speckv_pkg.sv").read_text()
    cells = re.findall(r"\{1'b([01]), DirectoryState(\w+), 8'd(\d+)\}", package)
    states = {"".join(p.capitalize() for p in s.name.split("_")): s for s in spec.DirectoryState}
    found = [(legal == "1", states[name], int(actions)) for legal, name, actions in cells]
    assert found == [cell for row in reversed(spec.DIRECTORY_TABLE) for cell in reversed(row)]


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


def test_coherence_page_has_the_table_of_the_spec() -> None:
    page = (ROOT / "docs/coherence.md").read_text()
    short = dict(re.findall(r"^\| `(\w+)` \| (S?M?[ISEM]) \|", page, re.MULTILINE))
    assert list(short) == [state.name.lower() for state in spec.DirectoryState]
    for event in spec.DirectoryEvent:
        (row,) = re.findall(rf"^\| `{event.name.lower()}` \| (.*) \|$", page, re.MULTILINE)
        assert row.split(" | ") == [stated(short, row[event]) for row in spec.DIRECTORY_TABLE]


def stated(short: dict[str, str], cell: spec.DirectoryTransition) -> str:
    """A cell as the page writes it."""
    actions = " ".join(
        action.name.lower() for action in spec.DirectoryAction if action in cell.actions
    )
    return f"**{short[cell.next.name.lower()]}** {actions}" if cell.legal else "-"
