"""`speckv bench sharing`: a prompt that many conversations begin with is held once."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb

NAME = "sharing"

DESCRIPTION = """\
Conversations that begin with the same prompt, each with a cache of its own on one system. They tell the tokens of
their prompts, and blocks of equal tokens are coded and held once. The whole prompt goes through the model each time.
"""
EPILOG = """\
examples:
  speckv bench sharing
  speckv bench sharing --conversations 8 --prompt-tokens 256 --own-tokens 64

JSON keys: conversations, prompt_tokens, own_tokens, blocks (held), prompt_blocks and own_blocks (of one conversation),
prompt_copies (1: held once), smaller (blocks with nothing shared over those held), record_bytes.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="a common prompt is held once", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(
        parser,
        ("conversations", 64, "how many"),
        ("prompt-tokens", 1024, "that all have"),
        ("own-tokens", 64, "of each"),
    )
    options.add_model(parser)
    options.add_cache(parser)
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import models, sharing

    count, own = arguments.conversations, arguments.own_tokens
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    config = options.cache_config(arguments, "int4")
    ids = models.text_ids(loaded, None, arguments.prompt_tokens + count * own)
    with output.progress(f"{count} conversations", count) as advance:
        found = sharing.measure(loaded, ids, count, own, config, advance)
    output.table(
        f"{loaded.name}: {count} conversations, {found.prompt_tokens} common tokens, {own} of their own",
        ("", ""),
        [
            ("blocks held", f"{found.blocks}, {mb(found.record_bytes)} of records"),
            ("blocks of the prompt", str(found.prompt_blocks)),
            ("the prompt is held", f"{found.prompt_copies:.2f} times"),
            ("smaller than apart", f"{found.smaller:.1f}x"),
        ],
    )
    output.note(machine.one_line(machine.describe()))
    return {
        "model": loaded.name,
        **asdict(found),
        "prompt_copies": found.prompt_copies,
        "smaller": found.smaller,
    }
