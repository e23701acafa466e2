"""Rules for loops: a label, a bound, and nothing inside a pipeline that cannot be unrolled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clang import cindex
from clang.cindex import Cursor, CursorKind
from synthesis_source import (
    LOOPS,
    Node,
    Pragma,
    Source,
    callee,
    constant,
    holds,
    path_of,
    walk,
)

# CXBinaryOperatorKind and CXUnaryOperatorKind
LESS, GREATER, LESS_EQUAL, GREATER_EQUAL, UNEQUAL, BOTH, ASSIGN = 11, 12, 13, 14, 16, 20, 22
COMPARISONS = (LESS, GREATER, LESS_EQUAL, GREATER_EQUAL, UNEQUAL)
INCREMENTS = (1, 2, 3, 4)


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


def is_step(part: Cursor) -> bool:
    if part.kind == CursorKind.UNARY_OPERATOR:
        return cindex.conf.lib.clang_getCursorUnaryOperatorKind(part) in INCREMENTS
    return part.kind == CursorKind.COMPOUND_ASSIGNMENT_OPERATOR


def variables(expression: Cursor) -> set[str]:
    named = [expression, *(c for c, _ in walk(expression))]
    return {c.spelling for c in named if c.kind == CursorKind.DECL_REF_EXPR}


def never_ends(loop: Cursor) -> bool:
    asked = condition(loop)
    if loop.kind == CursorKind.FOR_STMT and asked is None:
        # What is neither start nor step is a condition: `for (; flag;)`.
        parts = [p for p in list(loop.get_children())[:-1] if p.kind.is_expression()]
        return all(is_step(p) or operator(p) == ASSIGN for p in parts)
    return asked is not None and bool(constant(asked))


def is_bounded(loop: Cursor) -> bool:
    """`for (T i = ..; i < constant; i += ..)`, or down from a constant; one of several conditions is enough."""
    if loop.kind == CursorKind.CXX_FOR_RANGE_STMT:
        return True  # over an array: std containers are refused elsewhere
    if loop.kind != CursorKind.FOR_STMT:
        return False
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
    stepped = {name for p in (*parts, bare(left)) if is_step(p) for name in variables(p)}
    if stepped.isdisjoint(variables(left)):
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
