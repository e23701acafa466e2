"""Run the checks one by one and say how long each took: python scripts/stages.py lint|all [-- pytest arguments]."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPP_FOLDERS = ("hls/include", "hls/csim", "speckv_pynq/native")


def cpp_files() -> list[str]:
    """Hand-written C and C++ sources; generated ones are checked against their templates instead."""
    found = [
        str(path.relative_to(ROOT))
        for folder in CPP_FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".c", ".cpp", ".h", ".hpp"}
    ]
    if not found:
        raise FileNotFoundError(f"no C++ sources under {', '.join(CPP_FOLDERS)}")
    return found


def lint_stages() -> dict[str, list[str]]:
    """Name -> command, in order."""
    return {
        "ruff check": ["ruff", "check", "--quiet", "."],
        "ruff format": ["ruff", "format", "--quiet", "--check", "."],
        "mypy": ["mypy", "--no-error-summary"],
        "import contracts": ["lint-imports", "--no-logo"],
        "clang-format": ["clang-format", "--dry-run", "-Werror", *cpp_files()],
        "rtl lint": [sys.executable, "scripts/rtl_lint.py"],
        "kernel synthesis": [sys.executable, "hls/check_synthesis.py"],
        "generated files": [sys.executable, "hls/generate.py", "--check"],
    }


def run(name: str, command: list[str], *, quiet: bool) -> tuple[bool, float]:
    """Run one stage; a quiet one shows its output only when it fails. Returns (passed, seconds)."""
    start = time.monotonic()
    result = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - start
    if result.returncode and quiet:
        print(result.stdout, end="")
    print(f"{'ok  ' if not result.returncode else 'FAIL'}  {name:<17}{seconds:7.1f} s", flush=True)
    return not result.returncode, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("lint", "all"))
    parser.add_argument("pytest", nargs="*", help="further pytest arguments, after --")
    args = parser.parse_args()
    failed, total = [], 0.0
    for name, command in lint_stages().items():
        passed, seconds = run(name, command, quiet=True)
        total += seconds
        failed += [] if passed else [name]
    if args.what == "all":
        command = [sys.executable, "-m", "pytest", "-q", "--durations=15", *args.pytest]
        passed, seconds = run("pytest", command, quiet=False)
        total += seconds
        failed += [] if passed else ["pytest"]
    print(f"{'passed' if not failed else 'failed: ' + ', '.join(failed)}, {total:.1f} s in all")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
