"""Parses the command line, runs one command, turns expected errors into one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from speckv_pynq.bench import machine
from speckv_pynq.cli import bench, calibrate, demo, doctor, evaluate, generate, predictor
from speckv_pynq.cli.options import Parser
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import SpeckvError

COMMANDS = (demo, generate, evaluate, calibrate, predictor, bench, doctor)
EXIT_ERROR, EXIT_INTERRUPTED = 2, 130

# Modules that the base installation lacks, and the extra of speckv-pynq that brings them.
EXTRAS = {
    "torch": "hf",
    "transformers": "hf",
    "safetensors": "hf",
    "accelerate": "demo",
    "gguf": "demo",
    "matplotlib": "demo",
    "blosc2": "bench",
    "lz4": "bench",
    "zstandard": "bench",
    "pynq": "pynq",
}

DESCRIPTION = """\
A KV cache for language models that lives compressed in tiers: exact copies of a part of it (L1), the rest as
records (L3) written and read by FPGA kernels, or by the same kernels compiled natively (csim, the default).
"""
EPILOG = """\
examples:
  speckv demo                                      a long prompt, exact cache beside SpecKV; about two minutes
  speckv generate --model DIR --prompt "Once upon" --scheme int4
  speckv eval --model smollm2 --scheme int4 --scheme raw --json eval.json
  speckv doctor                                    what is installed and usable here

`speckv COMMAND --help` tells more. An error is one line on stderr and exit code 2.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command adds its own."""
    parser = Parser(prog="speckv", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"speckv {machine.version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line; the exit code."""
    words = list(bench.completed(sys.argv[1:] if argv is None else argv))
    # `words`: for commands that write down how they were called.
    arguments = build_parser().parse_args(words, argparse.Namespace(words=words))
    output = Output(getattr(arguments, "json", None))
    try:
        output.check()
        return int(arguments.run(arguments, output))
    except SpeckvError as error:
        return _fail(output, str(error))
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise
        return _fail(output, f"{name} is not installed: pip install 'speckv-pynq[{EXTRAS[name]}]'")
    except BrokenPipeError:  # the reader has gone; what Python flushes at exit must not raise again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except KeyboardInterrupt:
        output.fail("interrupted")
        return EXIT_INTERRUPTED


def _fail(output: Output, message: str) -> int:
    output.fail(" ".join(message.split()))
    return EXIT_ERROR
