"""`speckv bench generate`: decoding speed with all and with a quarter of the cache in L1."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "generate"

DESCRIPTION = """\
Decodes the same tokens on DynamicCache and on three SpecKV caches (int4 with everything in L1, int4 and raw with a
quarter of the blocks there), and klt as int4 where there is a codebook for the model; a token each in turn; tokens
a second by the median step.
"""
EPILOG = """\
examples:
  speckv bench generate
  speckv bench generate --prompt-tokens 4096 --new-tokens 64 --json generate.json

JSON keys: all_l1_ratio, quarter_int4_ratio, quarter_raw_ratio, all_l1_klt_ratio, quarter_klt_ratio (to DynamicCache's
tokens/s in this run); `results`.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="tokens/s beside DynamicCache", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(
        parser,
        ("prompt-tokens", 2048, "tokens of the prompt"),
        ("new-tokens", 48, "tokens generated"),
    )
    options.add_codebook(parser)
    options.add_model(parser)
    options.add_cache(parser)
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import generation, models

    config = options.cache_config(arguments, "int4")
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    codebook = options.codebook(arguments, loaded.model)
    prompt = models.text_ids(loaded, None, arguments.prompt_tokens)
    caches = len(generation.cases(codebook)) + 1
    with output.progress(f"generating on {caches} caches", caches + arguments.new_tokens) as step:
        speeds = generation.measure(loaded, prompt, arguments.new_tokens, config, codebook, step)
    rows = [
        (
            speed.name,
            f"{speed.tokens_per_s:.1f}",
            f"{speed.ratio:.2f}",
            f"{speed.slowest_tokens_per_s:.1f}",
            f"{speed.prefill_s:.2f}",
            f"{speed.l1_share:.0%}" if i else "",
        )
        for i, speed in enumerate(speeds)
    ]
    output.table(
        f"{loaded.name} ({loaded.dtype}): {arguments.prompt_tokens} prompt tokens, {arguments.new_tokens} generated",
        ("", "tokens/s", "of DynamicCache", "slowest step", "prompt, s", "reads from L1"),
        rows,
    )
    output.note(machine.one_line(machine.describe()))
    ratios = {f"{speed.name}_ratio": speed.ratio for speed in speeds[1:]}
    return {
        **ratios,
        "model": loaded.name,
        "dtype": loaded.dtype,
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "results": [asdict(speed) for speed in speeds],
    }
