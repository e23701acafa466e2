"""`speckv calibrate`: makes the codebook that scheme klt needs of a model."""

from __future__ import annotations

import argparse
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckv_pynq import spec
from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.calibration import Calibration, Settings

# Tokens, on the CPU and on a GPU.
AMOUNTS = {"eval": (8192, 65_536), "sample": (24_576, 65_536), "batch": (2048, 16_384)}

DESCRIPTION = """\
Runs the model over text, once forward and once backward, and makes the codebook that scheme klt codes its cache with:
a transform of keys and values weighted by what the predictions depend on, one step, entropy tables. The last part of
each text is held out; by it the step is chosen, with the cache written through the codec as in decoding. Texts of
many kinds make a codebook that serves many kinds. The same arguments on the same machine make the same codebook.
"""
EPILOG = """\
examples:
  speckv calibrate --text book.txt program.py --tokens 30000 -o layer.safetensors
  speckv calibrate --model DIR --text ids.npy --scope group:6 --target-dppl 0.2 -o group6.safetensors
  speckv calibrate --text *.txt --scope all --compute cuda --target-ratio 10 -o all.safetensors

Files: UTF-8 text, or .npy with token ids, (tokens,) or (sequences, tokens). scope: which heads share a transform and a
record: those of one `layer`, of `group:N` consecutive layers, of `all`, or each `head` alone (one record a layer).
JSON keys: codebook, fingerprint, bytes, scope, step, calibration_tokens, rank_share, seconds, notes; of the held-out
text: ratio (records with their headers), dppl and dppl_error (twice its standard error), kl, agree, refused, tokens.
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="make a model's codebook for scheme klt",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--text", nargs="+", type=options.existing_file, metavar="FILE", required=True
    )
    parser.add_argument("-o", "--out", type=Path, metavar="CODEBOOK", required=True)
    parser.add_argument("--scope", default="layer", help="default: %(default)s")
    _add_target(parser)
    _add_amounts(parser)
    _add_method(parser)
    options.add_model(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def _add_target(parser: argparse.ArgumentParser) -> None:
    target = parser.add_mutually_exclusive_group()
    target.add_argument(
        "--target-dppl", type=float, metavar="PERCENT", help="rise of perplexity; default: 0.5"
    )
    target.add_argument(
        "--target-ratio", type=float, metavar="R", help="FP16 bytes over those of records"
    )
    target.add_argument("--step", type=float, help="as the codebook of an earlier run states it")


def _add_amounts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--context",
        type=options.positive,
        default=1024,
        metavar="N",
        help="tokens of a sequence; default: %(default)s",
    )
    parser.add_argument(
        "--tokens",
        type=options.positive,
        metavar="N",
        help="to calibrate on, spread over all files; default: all there are",
    )
    for name, text in (
        ("eval", "held out, at most a fifth of the text"),
        ("sample", "kept to fit tables and decoder"),
        ("batch", "at once"),
    ):
        least, most = AMOUNTS[name]
        parser.add_argument(
            f"--{name}-tokens",
            type=options.positive,
            metavar="N",
            help=f"{text}; default: {least}, with --compute cuda {most}",
        )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--max-mb",
        type=float,
        metavar="MB",
        help="of the file, ranks are cut to fit; default: 12 (head, layer), 64 (group:N), 128 (all)",
    )


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("method (the defaults are what pays)")
    group.add_argument("--damping", type=float, default=0.1, help="default: %(default)s")
    group.add_argument("--dead-zone", type=float, default=0.6, help="default: %(default)s")
    group.add_argument("--sinks", type=int, default=4, metavar="N", help="default: %(default)s")
    group.add_argument("--recent", type=int, default=32, metavar="N", help="default: %(default)s")
    group.add_argument(
        "--block-tokens",
        type=int,
        choices=spec.BLOCK_TOKENS_ALLOWED,
        default=spec.BLOCK_TOKENS,
        help="default: %(default)s",
    )
    group.add_argument("--table-sets", type=int, default=4, help="default: %(default)s")
    group.add_argument("--apart", action="store_true", help="K and V in transforms of their own")
    group.add_argument("--no-fisher", action="store_true", help="all channels count alike")
    group.add_argument("--no-unrotate", action="store_true", help="keys as RoPE leaves them")
    group.add_argument("--with-sinks", action="store_true", help="sinks count in statistics")


def run(arguments: argparse.Namespace, output: Output) -> int:
    from speckv_pynq.bench import models
    from speckv_pynq.calibration import calibrate, text
    from speckv_pynq.integrations._fingerprint import model_fingerprint

    for name, amounts in AMOUNTS.items():
        if getattr(arguments, f"{name}_tokens") is None:
            setattr(arguments, f"{name}_tokens", amounts[arguments.compute == "cuda"])
    settings = _settings(arguments)
    folder = arguments.out.parent
    if arguments.out.is_dir() or not folder.is_dir():
        raise ConfigError(f"-o {arguments.out}: cannot be written")
    started = time.perf_counter()
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
        rows = text.sequences(arguments.text, loaded.encode, arguments.context)
        used, held_out = text.split(rows, arguments.tokens, arguments.eval_tokens)
    metadata = {
        "model": loaded.name,
        "model_fingerprint": model_fingerprint(loaded.model),
        "model_dtype": loaded.dtype,
        "text_hash": text.digest(used, held_out),
        "texts": " ".join(path.name for path in arguments.text),
        "context": str(arguments.context),
        "command": options.command_line(arguments.words),
    }
    with output.stages() as stage:
        made = calibrate(loaded.model, used, held_out, settings, stage, metadata)
    made.codebook.save(arguments.out)
    _show(made, settings, arguments.out, output)
    seconds = time.perf_counter() - started
    output.note(f"{seconds:.0f} s; {machine.one_line(machine.describe())}")
    output.json("calibrate", _report(made, settings, arguments.out, seconds))
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    from speckv_pynq.calibration import Settings

    shared = (
        "scope target_dppl target_ratio step damping dead_zone sinks recent block_tokens apart table_sets "
        "sample_tokens batch_tokens seed"
    )
    named = {name: getattr(arguments, name) for name in shared.split()}
    if all(named[name] is None for name in ("target_dppl", "target_ratio", "step")):
        named["target_dppl"] = 0.5
    if arguments.max_mb is not None:
        named["max_bytes"] = int(arguments.max_mb * 1e6)
    return Settings(
        **named,
        fisher=not arguments.no_fisher,
        unrotate=not arguments.no_unrotate,
        exclude_sinks=not arguments.with_sinks,
    )


def _show(made: Calibration, settings: Settings, path: Path, output: Output) -> None:
    judged, codebook = made.judged, made.codebook
    output.table(
        f"{path}: scope {settings.scope}, from {made.tokens} tokens; judged by {judged.tokens} held-out ones",
        ("step", "ratio", "dppl", "KL nats", "agree", "components kept", "file", "fingerprint"),
        [
            (
                f"{made.step:.5g}",
                f"{made.ratio:.3f}",
                f"{judged.dppl:+.3f} % ± {judged.dppl_error:.3f}",
                f"{judged.kl:.2e}",
                f"{100 * judged.agree:.2f} %",
                f"{100 * float(codebook.metadata['rank_share']):.1f} %",
                mb(path.stat().st_size),
                f"{codebook.fingerprint:016x}",
            )
        ],
    )
    for note in made.notes:
        output.note(note)


def _report(made: Calibration, settings: Settings, path: Path, seconds: float) -> dict[str, Any]:
    return {
        "codebook": str(path),
        "fingerprint": f"{made.codebook.fingerprint:016x}",
        "bytes": path.stat().st_size,
        "scope": settings.scope,
        "step": made.step,
        "calibration_tokens": made.tokens,
        "rank_share": float(made.codebook.metadata["rank_share"]),
        "ratio": made.ratio,
        **{f.name: getattr(made.judged, f.name) for f in fields(made.judged) if f.name != "coded"},
        "seconds": seconds,
        "notes": list(made.notes),
    }
