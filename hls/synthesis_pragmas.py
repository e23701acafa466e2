"""Rules for pragmas: known names, variables that exist, values that Vitis reads, every port of a top covered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clang import cindex
from clang.cindex import Cursor, CursorKind, TokenKind, TranslationUnit, TypeKind
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


def read_pragmas(source: Source) -> list[Pragma]:
    """The HLS pragmas of all kernel files that synthesis sees, in order."""
    out = []
    for path in source.paths():
        skipped = source.skipped(path)
        out += [
            p
            for p in pragmas_of(source.unit, path)
            if not any(start <= p.offset < end for start, end in skipped)
        ]
    return out


def pragmas_of(unit: TranslationUnit, path: str) -> Iterator[Pragma]:
    """All that a file has, by its tokens: they are no part of the syntax tree."""
    file = unit.get_file(path)
    size = Path(path).stat().st_size
    start, end = (cindex.SourceLocation.from_offset(unit, file, i) for i in (0, size))
    extent = cindex.SourceRange.from_locations(start, end)
    lines: dict[int, list[cindex.Token]] = {}
    for token in unit.get_tokens(extent=extent):
        if token.kind != TokenKind.COMMENT:
            lines.setdefault(token.location.line, []).append(token)
    for line, tokens in lines.items():
        words = [t.spelling for t in tokens]
        if words[:3] != ["#", "pragma", "HLS"]:
            continue
        name = words[3].upper() if len(words) > 3 else ""
        plain, values = split_options(words[4:])
        yield Pragma(path, line, tokens[0].location.offset, name, plain, values)


def is_word(token: str) -> bool:
    return token.replace("_", "a").isalnum()


def split_options(words: list[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Plain words, and values by key: a value ends before the next key, or between two words."""
    plain, values, at = [], {}, 0
    while at < len(words):
        if words[at + 1 : at + 2] != ["="]:
            plain.append(words[at])
            at += 1
            continue
        key, value, at = words[at], [], at + 2
        while at < len(words) and words[at + 1 : at + 2] != ["="]:
            if value and is_word(value[-1]) and is_word(words[at]):
                break
            value.append(words[at])
            at += 1
        values[key] = "".join(value)
    return tuple(plain), values


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


def check_one(
    p: Pragma, function: Cursor | None, known: set[str], macros: set[str]
) -> Iterator[str]:
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
