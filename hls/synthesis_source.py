"""Kernel sources as Vitis HLS sees them: parsed with __SYNTHESIS__ and __VITIS_HLS__, functions, calls, pragmas.

libclang parses; no vendor tool takes part. The headers of the C++ library are those of the compiler in CXX.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clang import cindex
from clang.cindex import Cursor, CursorKind, TokenKind, TranslationUnit, TypeKind

FUNCTIONS = {
    CursorKind.FUNCTION_DECL,
    CursorKind.CXX_METHOD,
    CursorKind.CONSTRUCTOR,
    CursorKind.DESTRUCTOR,
    CursorKind.CONVERSION_FUNCTION,
    CursorKind.FUNCTION_TEMPLATE,
}
RECORDS = {CursorKind.STRUCT_DECL, CursorKind.CLASS_DECL, CursorKind.CLASS_TEMPLATE}
SCOPES = RECORDS | {CursorKind.NAMESPACE, CursorKind.LINKAGE_SPEC, CursorKind.UNEXPOSED_DECL}
LOOPS = {
    CursorKind.FOR_STMT,
    CursorKind.WHILE_STMT,
    CursorKind.DO_STMT,
    CursorKind.CXX_FOR_RANGE_STMT,
}
# What no hardware comes from: sizeof, checks and types.
UNEVALUATED = {CursorKind.STATIC_ASSERT, CursorKind.CXX_UNARY_EXPR, CursorKind.TYPE_REF}
EVALUATED_TO_INT = 1


class _Ranges(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint),
        ("ranges", ctypes.POINTER(cindex.SourceRange)),
    )


def _declare(name: str, argument: type, result: type) -> None:
    """The Python bindings leave these functions of libclang out."""
    function = getattr(cindex.conf.lib, name)
    function.argtypes, function.restype = [argument], result


_declare("clang_getAllSkippedRanges", TranslationUnit, ctypes.POINTER(_Ranges))
_declare("clang_disposeSourceRangeList", ctypes.POINTER(_Ranges), None)
_declare("clang_Cursor_Evaluate", Cursor, ctypes.c_void_p)
_declare("clang_EvalResult_getKind", ctypes.c_void_p, ctypes.c_int)
_declare("clang_EvalResult_getAsLongLong", ctypes.c_void_p, ctypes.c_longlong)
_declare("clang_EvalResult_dispose", ctypes.c_void_p, None)
_declare("clang_getCursorBinaryOperatorKind", Cursor, ctypes.c_int)


@dataclass(frozen=True, order=True)
class Finding:
    """One place that breaks one rule; `text` says what is wrong and what to do."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


@dataclass(frozen=True)
class Pragma:
    """`#pragma HLS NAME words key = value ...`; `values` holds the tokens of a value joined by spaces."""

    path: str
    line: int
    offset: int
    name: str
    words: tuple[str, ...]
    values: dict[str, str] = field(hash=False)


def constant(expression: Cursor) -> int | None:
    """The integer that an expression always is, or None."""
    lib = cindex.conf.lib
    result = lib.clang_Cursor_Evaluate(expression)
    if not result:
        return None
    known = lib.clang_EvalResult_getKind(result) == EVALUATED_TO_INT
    value = lib.clang_EvalResult_getAsLongLong(result) if known else None
    lib.clang_EvalResult_dispose(result)
    return value


def path_of(cursor: Cursor) -> str:
    return cursor.location.file.name if cursor.location.file else ""


def holds(outer: Cursor, offset: int) -> bool:
    return outer.extent.start.offset <= offset < outer.extent.end.offset


def element(type_: cindex.Type) -> cindex.Type:
    """What arrays, pointers and references of any depth are made of."""
    type_ = type_.get_canonical()
    while True:
        if type_.kind in (TypeKind.POINTER, TypeKind.LVALUEREFERENCE, TypeKind.RVALUEREFERENCE):
            type_ = type_.get_pointee()
        elif type_.kind in (TypeKind.CONSTANTARRAY, TypeKind.INCOMPLETEARRAY):
            type_ = type_.get_array_element_type()
        else:
            return type_


def is_const(variable: Cursor) -> bool:
    type_ = variable.type.get_canonical()
    while type_.kind in (TypeKind.CONSTANTARRAY, TypeKind.INCOMPLETEARRAY):
        if type_.is_const_qualified():
            return True
        type_ = type_.get_array_element_type()
    return type_.is_const_qualified()


def is_constexpr(variable: Cursor) -> bool:
    """Its initialiser runs at compile time: a table in ROM, no hardware."""
    if not is_const(variable):
        return False
    end = variable.location.offset
    words = (t.spelling for t in variable.get_tokens() if t.extent.start.offset < end)
    return "constexpr" in words


def walk(cursor: Cursor) -> Iterator[tuple[Cursor, Cursor]]:
    """(node, parent) below a cursor, without what is only computed while compiling."""
    for child in cursor.get_children():
        if child.kind in UNEVALUATED:
            continue
        if child.kind == CursorKind.VAR_DECL and is_constexpr(child):
            continue
        yield child, cursor
        yield from walk(child)


def system_folders() -> list[str]:
    """Where the compiler in CXX (default c++) has its headers: libclang's wheel brings none."""
    compiler = os.environ.get("CXX", "c++")
    said = subprocess.run(
        [compiler, "-E", "-v", "-x", "c++", os.devnull],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "LC_ALL": "C"},
    ).stderr
    listed = said.split("#include <...> search starts here:")[1].split("End of search list.")[0]
    return [line.strip() for line in listed.splitlines() if line.strip()]


class Source:
    """One translation unit of all tops.

    tops: the files, each with a function of its name. kernel_folders: what is ours to check; every other
    folder with headers goes into `trusted` (not checked, may be called) or is the host's (may not be).
    """

    def __init__(self, tops: list[Path], kernel_folders: list[Path], trusted: list[Path]) -> None:
        self.tops = tops
        self.kernel_folders = [f"{folder.resolve()}/" for folder in kernel_folders]
        self.trusted = [f"{folder.resolve()}/" for folder in trusted]
        main = "all_tops.cpp"  # stands in memory only
        # The open ap_int headers refuse __SYNTHESIS__, so they come before it is defined.
        text = "#include <ap_int.h>\n#define __SYNTHESIS__\n#define __VITIS_HLS__\n"
        text += "".join(f'#include "{top.resolve()}"\n' for top in tops)
        args = ["-std=c++17", "-nostdinc"]
        for folder in [*self.trusted, *system_folders()]:
            args += ["-isystem", folder]
        self.unit = cindex.Index.create().parse(
            main,
            args=[*args, *(f"-I{folder}" for folder in self.kernel_folders)],
            unsaved_files=[(main, text)],
            options=TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD,
        )
        self._skipped = self._skipped_ranges()

    def errors(self) -> list[Finding]:
        return [
            Finding(
                d.location.file.name if d.location.file else "",
                d.location.line,
                "compile",
                f"{d.spelling}; the synthesis branch has to compile",
            )
            for d in self.unit.diagnostics
            if d.severity >= cindex.Diagnostic.Error
        ]

    def is_kernel(self, path: str) -> bool:
        return path.startswith(tuple(self.kernel_folders)) and not self.is_trusted(path)

    def is_trusted(self, path: str) -> bool:
        return path.startswith(tuple(self.trusted))

    def declared(self, *kinds: CursorKind) -> list[Cursor]:
        """Declarations of these kinds in kernel files, outside function bodies."""
        return [c for c in self._all if c.kind in kinds]

    @functools.cached_property
    def _all(self) -> list[Cursor]:
        return list(self._declarations(self.unit.cursor))

    def _declarations(self, scope: Cursor) -> Iterator[Cursor]:
        for child in scope.get_children():
            if self.is_kernel(path_of(child)):
                yield child
                if child.kind in SCOPES:
                    yield from self._declarations(child)

    def functions(self) -> list[Cursor]:
        """Definitions in kernel files, templates as written."""
        return [c for c in self.declared(*FUNCTIONS) if c.is_definition()]

    def macros(self) -> set[str]:
        return {
            c.spelling
            for c in self.unit.cursor.get_children()
            if c.kind == CursorKind.MACRO_DEFINITION
        }

    def _skipped_ranges(self) -> list[tuple[str, int, int]]:
        lib = cindex.conf.lib
        found = lib.clang_getAllSkippedRanges(self.unit)
        ranges = [found.contents.ranges[i] for i in range(found.contents.count)]
        out = [(r.start.file.name, r.start.offset, r.end.offset) for r in ranges]
        lib.clang_disposeSourceRangeList(found)
        return out

    def pragmas(self) -> list[Pragma]:
        """The HLS pragmas of all kernel files that synthesis sees, in order."""
        paths = {path_of(c) for c in self._all}
        out = []
        for path in sorted(paths):
            skipped = [(start, end) for name, start, end in self._skipped if name == path]
            out += [
                p
                for p in pragmas_of(self.unit, path)
                if not any(start <= p.offset < end for start, end in skipped)
            ]
        return out


def pragmas_of(unit: TranslationUnit, path: str) -> Iterator[Pragma]:
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
