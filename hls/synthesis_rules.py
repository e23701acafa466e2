"""Rules for code that a kernel's top reaches: each looks at one cursor and says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clang import cindex
from clang.cindex import Cursor, CursorKind, StorageClass, TLSKind, TypeKind
from synthesis_source import (
    FUNCTIONS,
    LOOPS,
    RECORDS,
    Finding,
    Pragma,
    Source,
    constant,
    element,
    holds,
    is_const,
    path_of,
    walk,
)

HEAP = {"malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "alloca"}
# The stems of libm; a variant ends in f or l, a builtin begins with __builtin_.
LIBM = {
    *("acos", "asin", "atan", "atan2", "cbrt", "ceil", "cos", "cosh", "erf", "exp", "exp2", "expm1"),
    *("fabs", "floor", "fma", "fmax", "fmin", "fmod", "frexp", "hypot", "ldexp", "lgamma", "log"),
    *("log10", "log1p", "log2", "lrint", "lround", "modf", "nearbyint", "pow", "remainder", "rint"),
    *("round", "scalbn", "sin", "sinh", "sqrt", "tan", "tanh", "tgamma", "trunc"),
}
VARIABLES = {CursorKind.VAR_DECL, CursorKind.PARM_DECL, CursorKind.FIELD_DECL}
# CXBinaryOperatorKind
LESS, GREATER, LESS_EQUAL, GREATER_EQUAL, UNEQUAL, BOTH = 11, 12, 13, 14, 16, 20
COMPARISONS = (LESS, GREATER, LESS_EQUAL, GREATER_EQUAL, UNEQUAL)
STEPS = (CursorKind.UNARY_OPERATOR, CursorKind.COMPOUND_ASSIGNMENT_OPERATOR)


@dataclass(frozen=True)
class Node:
    """A cursor with what stands around it."""

    source: Source
    cursor: Cursor
    parent: Cursor
    pragmas: tuple[Pragma, ...]  # of the file


Rule = Callable[[Node], str | None]


def callee(cursor: Cursor) -> Cursor | None:
    """The function that a call expression names; None for a call through a value."""
    if cursor.kind != CursorKind.CALL_EXPR:
        return None
    called = cursor.referenced
    return called if called is not None and called.kind in FUNCTIONS else None


def is_libm(name: str) -> bool:
    name = name.removeprefix("__builtin_")
    return name in LIBM or (name[-1:] in ("f", "l") and name[:-1] in LIBM)


def in_std(declaration: Cursor) -> bool:
    scope = declaration
    while scope is not None and scope.kind != CursorKind.TRANSLATION_UNIT:
        if scope.kind == CursorKind.NAMESPACE and scope.spelling == "std":
            return True
        scope = scope.semantic_parent
    return False


def dynamic_memory(node: Node) -> str | None:
    c = node.cursor
    called = callee(c)
    if c.kind in (CursorKind.CXX_NEW_EXPR, CursorKind.CXX_DELETE_EXPR) or (
        called is not None and called.spelling.removeprefix("__builtin_") in HEAP
    ):
        return "memory from a heap; hardware has arrays of constant size (SPECKV_ONCHIP)"
    if c.kind in VARIABLES and element(c.type).kind == TypeKind.VARIABLEARRAY:
        return f"array {c.spelling} of variable size; give it its largest size"
    return None


def exceptions(node: Node) -> str | None:
    kinds = (CursorKind.CXX_THROW_EXPR, CursorKind.CXX_TRY_STMT, CursorKind.CXX_CATCH_STMT)
    return "an exception; return a Verdict" if node.cursor.kind in kinds else None


def virtual(node: Node) -> str | None:
    c = node.cursor
    if c.kind in (CursorKind.CXX_DYNAMIC_CAST_EXPR, CursorKind.CXX_TYPEID_EXPR):
        return "needs run-time types; make it a template over the type"
    if c.kind == CursorKind.CXX_METHOD and c.is_virtual_method():
        return f"virtual function {c.spelling}; make it a template over the type"
    return None


def function_pointer(node: Node) -> str | None:
    c = node.cursor
    advice = "make it a template over the function, or a switch"
    if c.kind in VARIABLES:
        kinds = (TypeKind.FUNCTIONPROTO, TypeKind.FUNCTIONNOPROTO, TypeKind.MEMBERPOINTER)
        return f"function pointer {c.spelling}; {advice}" if element(c.type).kind in kinds else None
    if c.kind == CursorKind.CALL_EXPR and callee(c) is None and c.referenced is not None:
        return f"call through {c.referenced.spelling}; {advice}"
    return None


def std_type(node: Node) -> str | None:
    c = node.cursor
    if c.kind in VARIABLES:
        declaration = element(c.type).get_declaration()
        if in_std(declaration):
            return f"{c.spelling} is a std::{declaration.spelling}; use a plain array or struct"
    return None


def goto(node: Node) -> str | None:
    kinds = (CursorKind.GOTO_STMT, CursorKind.INDIRECT_GOTO_STMT)
    return "goto; use a loop or a condition" if node.cursor.kind in kinds else None


def static_state(node: Node) -> str | None:
    c = node.cursor
    if c.kind == CursorKind.DECL_REF_EXPR and c.referenced is not None:
        c = c.referenced
    if c.kind != CursorKind.VAR_DECL or is_const(c) or node.source.is_trusted(path_of(c)):
        return None
    local = c.semantic_parent is not None and c.semantic_parent.kind in FUNCTIONS
    if local and c.storage_class != StorageClass.STATIC and c.tls_kind == TLSKind.NONE:
        return None
    return f"{c.spelling} keeps its value between calls; pass it in, or make it constexpr"


def libm(node: Node) -> str | None:
    called = callee(node.cursor)
    if called is not None and not node.source.is_kernel(path_of(called)):
        if is_libm(called.spelling):
            return f"{called.spelling} of libm; use a table of integers"
    return None


def host_only(node: Node) -> str | None:
    c = node.cursor
    if c.kind == CursorKind.ASM_STMT:
        return "assembly; keep it out of synthesis (#ifndef __SYNTHESIS__)"
    called = callee(c)
    if called is None or called.get_definition() is not None:
        where = path_of(called) if called is not None else ""
        inside = not where or node.source.is_kernel(where) or node.source.is_trusted(where)
        if inside:
            return None
    elif called.is_default_method() or called.spelling.removeprefix("__builtin_") in HEAP:
        return None
    if is_libm(called.spelling):
        return None
    return f"{called.spelling} is the host's; keep it out of synthesis (#ifndef __SYNTHESIS__)"


def loop_label(node: Node) -> str | None:
    if node.cursor.kind in LOOPS and node.parent.kind != CursorKind.LABEL_STMT:
        return "loop without a label; name what it walks, as in `TOKENS:`"
    return None


def loop_bound(node: Node) -> str | None:
    loop = node.cursor
    if loop.kind not in LOOPS:
        return None
    if never_ends(loop):
        return "loop without an end; give it a bound that the condition states"
    if is_bounded(loop) or any(p.name == "LOOP_TRIPCOUNT" for p in pragmas_in(loop, node.pragmas)):
        return None
    return "bound is not constant; say it with `#pragma HLS LOOP_TRIPCOUNT min = .. max = ..`"


def loop_in_pipeline(node: Node) -> str | None:
    loop = node.cursor
    if loop.kind not in LOOPS:
        return None
    mine = list(pragmas_in(loop, node.pragmas))
    if any(p.name == "UNROLL" and "factor" not in p.values for p in mine) and not is_bounded(loop):
        return "unrolled whole, but its bound is not constant; bound it, or give a factor"
    if not any(p.name == "PIPELINE" for p in mine):
        return None
    inner = rolled_loop(loop, node.source, set())
    if inner is None:
        return None
    where = f"{Path(path_of(inner)).name}:{inner.location.line}"
    return f"pipelined, but the loop of {where} inside cannot be unrolled; bound that by a constant"


def rolled_loop(root: Cursor, source: Source, seen: set[str]) -> Cursor | None:
    """The first loop below, in functions called too, that pipelining cannot unroll."""
    for cursor, _ in walk(root):
        if cursor.kind in LOOPS and not is_bounded(cursor):
            return cursor
        called = callee(cursor)
        body = called.get_definition() if called is not None else None
        if body is None or not source.is_kernel(path_of(body)) or body.get_usr() in seen:
            continue
        seen.add(body.get_usr())
        found = rolled_loop(body, source, seen)
        if found is not None:
            return found
    return None


RULES: dict[str, Rule] = {
    "dynamic-memory": dynamic_memory,
    "exception": exceptions,
    "virtual": virtual,
    "function-pointer": function_pointer,
    "std": std_type,
    "goto": goto,
    "static": static_state,
    "libm": libm,
    "host-only": host_only,
    "loop-label": loop_label,
    "loop-bound": loop_bound,
    "loop-in-pipeline": loop_in_pipeline,
}


def operator(cursor: Cursor) -> int:
    return cindex.conf.lib.clang_getCursorBinaryOperatorKind(cursor)


def bare(expression: Cursor) -> Cursor:
    """Without parentheses and conversions."""
    while expression.kind in (CursorKind.PAREN_EXPR, CursorKind.UNEXPOSED_EXPR):
        inside = list(expression.get_children())
        if len(inside) != 1:
            break
        expression = inside[0]
    return expression


def condition(loop: Cursor) -> Cursor | None:
    """None where there is none, as in `for (;;)`."""
    parts = list(loop.get_children())
    if loop.kind == CursorKind.WHILE_STMT:
        return parts[0]
    if loop.kind == CursorKind.DO_STMT:
        return parts[1]
    compared = [p for p in parts[:-1] if operator(p) in (*COMPARISONS, BOTH)]
    return compared[0] if compared else None


def never_ends(loop: Cursor) -> bool:
    asked = condition(loop)
    if loop.kind == CursorKind.FOR_STMT and asked is None:
        # Anything but a declaration and a step may still be a condition: `for (; flag;)`.
        return not any(p.kind.is_expression() for p in list(loop.get_children())[:-1])
    return asked is not None and bool(constant(asked))


def is_bounded(loop: Cursor) -> bool:
    """`for (T i = ..; i < constant; i += ..)`, or down from a constant; one of several conditions is enough."""
    if loop.kind == CursorKind.CXX_FOR_RANGE_STMT:
        return True  # over an array: std containers are refused elsewhere
    if loop.kind != CursorKind.FOR_STMT:
        return False
    parts = list(loop.get_children())
    asked = condition(loop)
    return asked is not None and ends_at_constant(asked, loop)


def ends_at_constant(asked: Cursor, loop: Cursor) -> bool:
    asked = bare(asked)
    if asked.kind != CursorKind.BINARY_OPERATOR:
        return False
    left, right = asked.get_children()
    if operator(asked) == BOTH:
        return ends_at_constant(left, loop) or ends_at_constant(right, loop)
    if operator(asked) not in COMPARISONS or constant(right) is None:
        return False
    parts = list(loop.get_children())[:-1]
    # `i-- > 0` steps in the condition.
    if not any(p.kind in STEPS for p in (*parts, bare(left))):
        return False
    if operator(asked) in (LESS, LESS_EQUAL):
        return True
    declared = [c for c in parts[0].get_children() if c.kind == CursorKind.VAR_DECL]
    return any(constant(e) is not None for c in declared for e in c.get_children())


def pragmas_in(loop: Cursor, pragmas: tuple[Pragma, ...]) -> Iterator[Pragma]:
    """Those of this loop itself: not of a loop inside."""
    inner = [c for c, _ in walk(loop) if c.kind in LOOPS]
    for p in pragmas:
        if holds(loop, p.offset) and not any(holds(c, p.offset) for c in inner):
            yield p


def check_code(source: Source, reached: list[Cursor], pragmas: list[Pragma]) -> set[Finding]:
    """Every rule on every cursor of the functions reached, and of the types in kernel files."""
    by_file: dict[str, tuple[Pragma, ...]] = {}
    for p in pragmas:
        by_file[p.path] = (*by_file.get(p.path, ()), p)
    found = set()
    nodes = [(f, pair) for f in reached for pair in walk(f)]
    nodes += [(r, (c, r)) for r in source.declared(*RECORDS) for c in r.get_children()]
    for root, (cursor, parent) in nodes:
        path = path_of(root)
        if True:
            node = Node(source, cursor, parent, by_file.get(path, ()))
            for name, rule in RULES.items():
                text = rule(node)
                if text:
                    found.add(Finding(path, cursor.location.line, name, text))
    return found
