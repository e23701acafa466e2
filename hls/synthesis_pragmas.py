"""Rules for pragmas: known names, variables that exist, values that Vitis reads, every port of a top covered."""

from __future__ import annotations

from collections.abc import Iterator

from clang.cindex import Cursor, CursorKind, TypeKind
from synthesis_source import FUNCTIONS, LOOPS, Finding, Pragma, Source, holds, is_const, path_of

# Vitis HLS User Guide UG1399, "HLS Pragmas".
NAMES = {
    *("AGGREGATE", "ALIAS", "ALLOCATION", "ARRAY_PARTITION", "ARRAY_RESHAPE", "ARRAY_STENCIL"),
    *("BIND_OP", "BIND_STORAGE", "CACHE", "DATAFLOW", "DEPENDENCE", "DISAGGREGATE"),
    *("EXPRESSION_BALANCE", "FUNCTION_INSTANTIATE", "INLINE", "INTERFACE", "LATENCY"),
    *("LOOP_FLATTEN", "LOOP_MERGE", "LOOP_TRIPCOUNT", "OCCURRENCE", "PERFORMANCE", "PIPELINE"),
    *("PROTOCOL", "RESET", "STABLE", "STREAM", "TOP", "UNROLL"),
}
OF_LOOPS = {"LOOP_TRIPCOUNT", "LOOP_FLATTEN", "UNROLL"}
VARIABLE_KEYS = ("variable", "port")
NUMBER_KEYS = {"min", "max", "avg", "II", "factor", "dim", "depth", "latency", "limit", "distance"}
NAMED = {CursorKind.VAR_DECL, CursorKind.PARM_DECL}


def below(cursor: Cursor) -> Iterator[Cursor]:
    for child in cursor.get_children():
        yield child
        yield from below(child)


def constants(source: Source, function: Cursor | None) -> set[str]:
    """Names of constexprs that stand before a function."""
    out: set[str] = set()
    for c in source.declared(CursorKind.VAR_DECL, *FUNCTIONS):
        if c == function:
            break
        if c.kind == CursorKind.VAR_DECL and is_const(c):
            out.add(c.spelling)
    return out


def check_value(key: str, value: str, known: set[str], macros: set[str]) -> str | None:
    if value.isdigit() or value in known:
        return None
    if value in macros:
        return f"{key} = {value}: a macro is not expanded in a pragma; name a constexpr"
    return f"{key} = {value} is neither a number nor the name of a constexpr in sight"


def check_one(p: Pragma, function: Cursor | None, known: set[str], macros: set[str]) -> Iterator[str]:
    if p.name not in NAMES:
        yield f"{p.name or '(none)'} is no pragma of Vitis HLS; see its guide for the name"
        return
    if function is None:
        yield f"{p.name} stands outside a function; move it into the body"
        return
    inside = list(below(function))
    if p.name in OF_LOOPS and not any(c.kind in LOOPS and holds(c, p.offset) for c in inside):
        yield f"{p.name} stands outside a loop; move it into the loop's body"
    variables = {c.spelling for c in inside if c.kind in NAMED}
    for key in VARIABLE_KEYS:
        name = p.values.get(key, "return").split(".")[0].split("->")[0]
        if name not in variables and not (name == "return" and p.values.get(key) in (None, name)):
            yield f"{key} = {name}: {function.spelling} has no such variable"
    local = {c.spelling for c in inside if c.kind == CursorKind.VAR_DECL and is_const(c)}
    local |= {c.spelling for c in inside if c.kind == CursorKind.TEMPLATE_NON_TYPE_PARAMETER}
    for key in NUMBER_KEYS & p.values.keys():
        text = check_value(key, p.values[key], known | local, macros)
        if text:
            yield text


def check_pragmas(source: Source, pragmas: list[Pragma]) -> set[Finding]:
    """Every pragma of a kernel file, reached from a top or not."""
    functions, macros = source.functions(), source.macros()
    found = set()
    for p in pragmas:
        around = [f for f in functions if path_of(f) == p.path and holds(f, p.offset)]
        function = around[0] if around else None
        for text in check_one(p, function, constants(source, function), macros):
            found.add(Finding(p.path, p.line, "pragma", text))
    return found


def check_ports(top: Cursor, pragmas: list[Pragma]) -> set[Finding]:
    """A pointer has m_axi with a bundle and s_axilite, a scalar and the return s_axilite."""
    modes: dict[str, dict[str, Pragma]] = {}
    for p in pragmas:
        if p.name == "INTERFACE" and p.path == path_of(top) and holds(top, p.offset):
            mode = p.values.get("mode") or next(iter(p.words), "")
            modes.setdefault(p.values.get("port", ""), {})[mode] = p
    out = []
    for argument in top.get_arguments():
        name, has = argument.spelling, modes.get(argument.spelling, {})
        if argument.type.get_canonical().kind == TypeKind.POINTER:
            if "m_axi" not in has:
                out.append(f"pointer {name} has no m_axi interface; add one with a bundle")
            elif not has["m_axi"].values.get("bundle"):
                out.append(f"m_axi of {name} names no bundle; ports without one share a single bus")
        if "s_axilite" not in has:
            out.append(f"{name} has no s_axilite interface; the host could not set it")
    if "s_axilite" not in modes.get("return", {}):
        out.append("return has no s_axilite interface; the host could not start the kernel")
    return {Finding(path_of(top), top.location.line, "port", text) for text in out}
