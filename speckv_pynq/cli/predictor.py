"""`speckv predictor train`: makes the token predictor of a tokenizer."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.training import Trained

DESCRIPTION = """\
Trains a two-layer LSTM of 128 units to predict the next token, over the whole vocabulary, and writes it in the fixed
point of kernel kv_prefetch. The last tokens, at most 200,000, are held out: by them the best epoch is chosen, and what
a token gains for having followed the same tokens before. Training ends early when two epochs did not help.
"""
EPILOG = """\
examples:
  speckv predictor train --text book.txt program.py -o predictor.safetensors
  speckv predictor train --tokens train.npy --vocabulary 49152 --compute cuda --minutes 8 -o predictor.safetensors
  speckv predictor train --model DIR --text *.txt --rows 32 --epochs 4 -o predictor.safetensors

Files: UTF-8 text, read with the model's tokenizer, or with --tokens .npy of token ids, (tokens,), documents in a row.
--vocabulary: of the model, which then need not be there. With --minutes what comes out depends on the machine's speed.
JSON keys: predictor, fingerprint, bytes, vocabulary, classes, opened, multiply_adds, tokens, text_hash, class_hit,
epochs (number, loss, held_out, top1, top4, fake), seconds.
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "predictor", help="make a token predictor for the prefetcher", description=DESCRIPTION
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    train = actions.add_parser(
        "train", help="train one from text", description=DESCRIPTION, epilog=EPILOG
    )
    source = train.add_argument_group("text")
    source.add_argument("--text", nargs="+", type=options.existing_file, default=[], metavar="FILE")
    source.add_argument(
        "--tokens", nargs="+", type=options.existing_file, default=[], metavar="FILE"
    )
    train.add_argument("-o", "--out", type=options.new_file, metavar="PREDICTOR", required=True)
    train.add_argument("--vocabulary", type=options.positive, metavar="N")
    _add_settings(train)
    options.add_model(train)
    options.add_json(train)
    train.set_defaults(run=run)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    options.add_counts(
        group,
        ("epochs", 12, "passes over the text, at most"),
        ("rows", 256, "streams read at once"),
        ("steps", 96, "tokens of each between two changes of weights"),
        ("always", 1024, "most frequent tokens, which every step scores"),
    )
    group.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="at most")
    group.add_argument("--learning-rate", type=float, default=4e-3, help="default: %(default)s")
    group.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def run(arguments: argparse.Namespace, output: Output) -> int:
    from speckv_pynq.training import Settings, train

    names = ("epochs", "minutes", "rows", "steps", "learning_rate", "always", "seed")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    started = time.perf_counter()
    with output.waiting("reading text"):
        vocabulary, tokens = _tokens(arguments)
    metadata = {
        "model": arguments.model,
        "texts": " ".join(path.name for path in (*arguments.text, *arguments.tokens)),
        "command": options.command_line(arguments.words),
    }
    with output.progress("training", 1.0) as advance:
        reached = 0.0

        def report(line: str, share: float) -> None:
            nonlocal reached
            advance(share - reached)
            reached = share
            output.note(line)

        made = train(tokens, vocabulary, settings, report, arguments.compute, metadata)
    made.predictor.save(arguments.out)
    seconds = time.perf_counter() - started
    figures = _figures(made, arguments.out, seconds)
    output.table(
        f"{arguments.out}: {figures['tokens']} tokens of text",
        ("", ""),
        [
            ("file", mb(figures["bytes"])),
            ("fingerprint", figures["fingerprint"]),
            ("multiply-accumulates a step, at most", f"{figures['multiply_adds']}"),
            ("held-out tokens in an opened class", f"{100 * made.class_hit:.1f} %"),
        ],
    )
    output.note(f"{seconds:.0f} s; {machine.one_line(machine.describe())}")
    output.json("predictor train", figures)
    return 0


def _tokens(arguments: argparse.Namespace) -> tuple[int, np.ndarray[Any, Any]]:
    """The vocabulary, and the token ids of all files in a row."""
    from speckv_pynq.bench import models

    if not arguments.text and not arguments.tokens:
        raise ConfigError("no text: give --text or --tokens")
    if arguments.vocabulary and arguments.text:
        raise ConfigError("--vocabulary is for --tokens; --text needs the model's tokenizer")
    parts = []
    vocabulary = arguments.vocabulary
    if vocabulary is None:
        loaded = models.load(arguments.model, arguments.dtype)
        vocabulary = loaded.model.config.get_text_config(decoder=True).vocab_size
        parts = [loaded.encode(models.read_texts([path])).numpy() for path in arguments.text]
    for path in arguments.tokens:
        parts += [ids.numpy() for ids in models.read_array(path, vocabulary)]
    return vocabulary, np.concatenate(parts)


def _figures(made: Trained, path: Path, seconds: float) -> dict[str, Any]:
    predictor = made.predictor
    return {
        "predictor": str(path),
        "fingerprint": f"{predictor.fingerprint:016x}",
        "bytes": path.stat().st_size,
        "vocabulary": predictor.vocabulary,
        "classes": len(predictor.class_rows),
        "opened": predictor.opened,
        "multiply_adds": predictor.multiply_adds,
        "tokens": made.tokens,
        "text_hash": made.digest,
        "class_hit": made.class_hit,
        "epochs": [vars(epoch) for epoch in made.epochs],
        "seconds": seconds,
    }
