"""Build the overlay for a board: python overlay/build.py TARGET. docs/boards.md describes targets and files.

The parameters of the kernels are the most that fits the board by an estimate, which is printed; options ask for
others and are refused where they do not fit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from overlay import board as boards  # noqa: E402
from overlay import estimate, files, steps  # noqa: E402
from speckv_pynq.device import hwh, manifest  # noqa: E402
from speckv_pynq.errors import ConfigError, SpeckvError  # noqa: E402


class Build:
    """One build: its board, parameters, folder. out: None for csim means into the source package."""

    def __init__(self, board: boards.Board, p: estimate.Parameters, out: Path | None) -> None:
        self.board, self.p = board, p
        self.in_place = out is None and board.family == "csim"
        self.out = (out or ROOT / "build/overlay" / board.name).resolve()
        self.files = files.render(board, p, self.out)
        native = None if self.in_place else self.out / "native"
        self.steps = steps.steps(board, p, self.out, native)

    @property
    def images(self) -> list[Path]:
        """Everything that stands at the end, the image that is loaded first."""
        if self.board.family == "csim":
            folder = hwh.OVERLAY_DIR if self.in_place else self.out / "overlay"
            library = (
                ROOT / "speckv_pynq" if self.in_place else self.out / "native"
            ) / "libspeckv.so"
            return [*(folder / name for name in hwh.render_overlay(self.p.engines)), library]
        found = [self.out / "image" / name for name in steps.images(self.board)]
        return [*found, found[0].with_suffix(".json")]

    def describe(self) -> str:
        lines = [estimate.report(self.board, self.p), "", "files written before the tools run:"]
        lines += [f"  {self.out / name}" for name in self.files] or ["  none"]
        lines += ["commands:"] + [f"  # {s.what}\n  {_shell(s.command)}" for s in self.steps]
        return "\n".join([*lines, "results:", *(f"  {path}" for path in self.images)])

    def write(self) -> None:
        """The generated files, and the folders that the tools write to."""
        for folder in ("ip", "image") if self.files else ():
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (self.out / name).write_text(text, encoding="utf-8")

    def run(self) -> Path:
        """Runs the tools, then writes the manifest; the image to load. A tool's failure is a SpeckvError."""
        ready = steps.present(self.steps)
        self.out.mkdir(parents=True, exist_ok=True)
        self.write()
        for step in ready:
            print(f"# {step.what}\n{_shell(step.command)}", flush=True)
            code = subprocess.run(step.command, cwd=self.out, check=False).returncode
            if code:
                raise SpeckvError(
                    f"{step.what}: {step.command[0]} ended with {code}, see {self.out}"
                )
        return self._finish()

    def _finish(self) -> Path:
        if self.board.family == "csim":
            folder = hwh.OVERLAY_DIR if self.in_place else self.out / "overlay"
            return hwh.write_overlay(folder, self.p.engines, _parameters(self.p))
        *found, path = self.images
        missing = [str(image) for image in found if not image.is_file()]
        if missing:
            raise SpeckvError(f"the tools left no {', '.join(missing)}")
        path.write_text(
            manifest.to_json(
                manifest.describe(
                    target=self.board.name,
                    runs_on=self.board.runs_on,
                    compute_units=estimate.units(self.board, self.p.engines),
                    parameters=_parameters(self.p),
                    files={image.name: image.read_bytes() for image in found},
                )
            ),
            encoding="utf-8",
        )
        return found[0]


def _parameters(p: estimate.Parameters) -> dict[str, object]:
    """As the manifest has them."""
    return {
        "lanes": p.lanes,
        "max_block_bytes": p.max_block_bytes,
        "schemes": list(p.schemes),
        "clock_mhz": int(p.mhz) if p.mhz == int(p.mhz) else p.mhz,
    }


def _shell(command: tuple[str, ...]) -> str:
    return " ".join(f"'{part}'" if " " in part else part for part in command)


def plan(arguments: argparse.Namespace) -> Build:
    """Arguments to a build that fits; ConfigError else."""
    board = boards.load(arguments.target)
    schemes = arguments.schemes and tuple(arguments.schemes.split(","))
    asked = estimate.Asked(
        arguments.engines, arguments.max_block_bytes, schemes, arguments.clock_mhz
    )
    if board.family == "csim" and arguments.out is None and asked != estimate.Asked():
        raise ConfigError("csim: a build with parameters of its own needs --out DIR")
    return Build(board, estimate.derive(board, asked), arguments.out)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="overlay/build.py", description=__doc__)
    parser.add_argument("target", help=f"one of {', '.join(boards.names())}")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="run no tool: print estimate, files, commands, results; with --out write the files",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the build; default: build/overlay/TARGET, csim: in place",
    )
    parser.add_argument(
        "--engines", type=int, help="compute units of kv_compress and kv_decompress each"
    )
    parser.add_argument(
        "--max-block-bytes", type=int, help="largest block, K and V, that is held on chip"
    )
    parser.add_argument("--schemes", help="names with commas, raw among them")
    parser.add_argument("--clock-mhz", type=float)
    arguments = parser.parse_args(argv)
    try:
        build = plan(arguments)
        print(build.describe(), flush=True)
        if not arguments.dry_run:
            print(f"built {build.run()}")
        elif arguments.out is not None:
            build.write()
    except (SpeckvError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
