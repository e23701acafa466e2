"""Rules for code that a kernel's top reaches: each looks at one cursor and says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable

from clang.cindex import Cursor, CursorKind, StorageClass, TLSKind, TypeKind
from synthesis_loops import loop_bound, loop_in_pipeline, loop_label
from synthesis_source import (
    FUNCTIONS,
    RECORDS,
    Finding,
    Node,
    Pragma,
    Source,
    callee,
    element,
    is_const,
    path_of,
    walk,
)

HEAP = {"malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "alloca"}
# The stems of libm; a variant ends in f or l, a builtin begins with __builtin_.
LIBM = {
    "acos", "asin", "atan", "atan2", "cbrt", "ceil", "cos", "cosh", "erf", "exp", "exp2", "expm1",
    "fabs", "floor", "fma", "fmax", "fmin", "fmod", "frexp", "hypot", "ldexp", "lgamma", "log",
    "log10", "log1p", "log2", "lrint", "lround", "modf", "nearbyint", "pow", "remainder", "rint",
    "round", "scalbn", "sin", "sinh", "sqrt", "tan", "tanh", "tgamma", "trunc",
}  # fmt: skip
VARIABLES = {CursorKind.VAR_DECL, CursorKind.PARM_DECL, CursorKind.FIELD_DECL}


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
    if called is None or not is_libm(called.spelling):
        return None
    body = called.get_definition()  # a kernel may have a round() of its own
    if body is not None and node.source.is_kernel(path_of(body)):
        return None
    return f"{called.spelling} of libm; use a table of integers"


def host_only(node: Node) -> str | None:
    c, advice = node.cursor, "keep it out of synthesis (#ifndef __SYNTHESIS__)"
    if c.kind == CursorKind.ASM_STMT:
        return f"assembly; {advice}"
    called = callee(c)
    if called is None or called.spelling.removeprefix("__builtin_") in HEAP:
        return None
    if called.kind == CursorKind.CONSTRUCTOR and in_std(called):
        return None  # its variable is a finding of rule std
    body = called.get_definition()
    where = path_of(body if body is not None else called)
    ours = body is not None and node.source.is_kernel(where)
    if ours or node.source.is_trusted(where) or is_libm(called.spelling):
        return None
    return f"{called.spelling} has no body that synthesis may see; {advice}"


Rule = Callable[[Node], str | None]
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


def check_code(
    source: Source, reached: list[Cursor], pragmas: dict[str, tuple[Pragma, ...]]
) -> set[Finding]:
    """Every rule on every cursor of the functions reached, and of the types in kernel files.

    pragmas: by path.
    """
    nodes = [(f, *pair) for f in reached for pair in walk(f)]
    nodes += [(r, c, r) for r in source.declared(*RECORDS) for c in r.get_children()]
    found = set()
    for root, cursor, parent in nodes:
        path = path_of(root)
        node = Node(source, cursor, parent, pragmas.get(path, ()))
        for name, rule in RULES.items():
            text = rule(node)
            if text:
                found.add(Finding(path, cursor.location.line, name, text))
    return found
