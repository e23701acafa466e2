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
from clang.cindex import Cursor, CursorKind, TranslationUnit, TypeKind

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


def _declare(name: str, *arguments: type, result: type | None) -> None:
    """The Python bindings leave these functions of libclang out."""
    function = getattr(cindex.conf.lib, name)
    function.argtypes, function.restype = list(arguments), result


_declare("clang_getSkippedRanges", TranslationUnit, cindex.File, result=ctypes.POINTER(_Ranges))
_declare("clang_disposeSourceRangeList", ctypes.POINTER(_Ranges), result=None)
_declare("clang_Cursor_Evaluate", Cursor, result=ctypes.c_void_p)
_declare("clang_EvalResult_getKind", ctypes.c_void_p, result=ctypes.c_int)
_declare("clang_EvalResult_getAsLongLong", ctypes.c_void_p, result=ctypes.c_longlong)
_declare("clang_EvalResult_dispose", ctypes.c_void_p, result=None)
_declare("clang_getCursorBinaryOperatorKind", Cursor, result=ctypes.c_int)
_declare("clang_getCursorUnaryOperatorKind", Cursor, result=ctypes.c_int)


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


def callee(cursor: Cursor) -> Cursor | None:
    """The function that a call expression names; None for a call through a value."""
    if cursor.kind != CursorKind.CALL_EXPR:
        return None
    called = cursor.referenced
    return called if called is not None and called.kind in FUNCTIONS else None


def walk(cursor: Cursor) -> Iterator[tuple[Cursor, Cursor]]:
    """(node, parent) below a cursor, without what is only computed while compiling."""
    for child in cursor.get_children():
        if child.kind in UNEVALUATED:
            continue
        if child.kind == CursorKind.VAR_DECL and is_constexpr(child):
            continue
        yield child, cursor
        yield from walk(child)


@functools.cache
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
            if not child.kind.is_preprocessing() and self.is_kernel(path_of(child)):
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

    def skipped(self, path: str) -> list[tuple[int, int]]:
        """Offsets of what the preprocessor left out of a file, from and to."""
        lib = cindex.conf.lib
        found = lib.clang_getSkippedRanges(self.unit, self.unit.get_file(path))
        ranges = [found.contents.ranges[i] for i in range(found.contents.count)]
        out = [(r.start.offset, r.end.offset) for r in ranges]
        lib.clang_disposeSourceRangeList(found)
        return out

    def paths(self) -> list[str]:
        """Kernel files with a declaration."""
        return sorted({path_of(c) for c in self._all})


@dataclass(frozen=True)
class Node:
    """A cursor with what stands around it."""

    source: Source
    cursor: Cursor
    parent: Cursor
    pragmas: tuple[Pragma, ...]  # of the file
