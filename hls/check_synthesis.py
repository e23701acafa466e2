"""Check that the HLS kernels can be synthesised: python hls/check_synthesis.py [--ap-int FOLDER]. No vendor tool.

Sources are parsed as Vitis HLS would see them; what a top reaches holds no heap, recursion, exceptions, virtual
functions, function pointers, std types, goto, static state, libm or host code; loops are labelled and bounded;
pragmas are known and name what exists; all ports have interfaces. Prints findings; exit status 1 if there are any.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from clang.cindex import Cursor, CursorKind

sys.path.insert(0, str(Path(__file__).resolve().parent))
from synthesis_pragmas import check_ports, check_pragmas, read_pragmas
from synthesis_rules import check_code
from synthesis_source import Finding, Source, callee, path_of, walk

HERE = Path(__file__).resolve().parent


def is_implicit(method: Cursor) -> bool:
    """A constructor or an assignment that the compiler made: it stands where its class does."""
    return method.location == method.semantic_parent.location


class Reach:
    """The functions of kernel files that a top calls, directly or not, and the calls that come back."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._done: dict[str, Cursor] = {}
        self._open: list[str] = []
        self.findings: set[Finding] = set()

    @property
    def functions(self) -> list[Cursor]:
        return list(self._done.values())

    def follow(self, function: Cursor) -> None:
        """function: a definition."""
        key = function.get_usr()
        self._done[key] = function
        self._open.append(key)
        for cursor, _ in walk(function):
            called = callee(cursor)
            body = called.get_definition() if called is not None else None
            if body is None or is_implicit(body) or not self._source.is_kernel(path_of(body)):
                continue
            if body.get_usr() in self._open:
                self._recursion(function, cursor, body.get_usr())
            elif body.get_usr() not in self._done:
                self.follow(body)
        self._open.pop()

    def _recursion(self, function: Cursor, call: Cursor, key: str) -> None:
        circle = [self._done[k].spelling for k in self._open[self._open.index(key) :]]
        text = (
            f"{' -> '.join([*circle, circle[0]])} is recursion; hardware has no stack, use a loop"
        )
        self.findings.add(Finding(path_of(function), call.location.line, "recursion", text))


def check(tops: list[Path], kernel_folders: list[Path], ap_int: Path) -> list[Finding]:
    """All findings, in order of place. tops: files with a function of their name each, synthesised together."""
    if not tops:
        raise FileNotFoundError(f"no kernel tops to check in {kernel_folders}")
    source = Source(tops, kernel_folders, [ap_int])
    found = set(source.errors())
    if found:  # what did not parse cannot be judged
        return sorted(found)
    pragmas, reach = read_pragmas(source), Reach(source)
    functions = source.declared(CursorKind.FUNCTION_DECL)
    for path in tops:
        mine = [f for f in functions if f.spelling == path.stem and f.is_definition()]
        if not mine:
            found.add(
                Finding(str(path), 1, "top", f"no function {path.stem}; a top has its file's name")
            )
        for top in mine:
            found |= check_ports(top, pragmas)
            reach.follow(top)
    by_path = {p.path: tuple(q for q in pragmas if q.path == p.path) for p in pragmas}
    found |= check_code(source, reach.functions, by_path)
    return sorted(found | reach.findings | check_pragmas(source, pragmas))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--ap-int", type=Path, default=HERE / "csim/shim", help="folder of ap_int.h; default: ours"
    )
    folders = [HERE / "include", HERE / "generated"]
    findings = check(
        sorted((HERE / "generated").glob("kv_*.cpp")), folders, parser.parse_args().ap_int
    )
    for finding in findings:
        print(str(finding).replace(f"{HERE.parent}{os.sep}", ""))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
