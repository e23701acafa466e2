"""`speckv demo`: an exact cache beside a coded one, on a real model and a long prompt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.bench.demo import Result, Settings
    from speckv_pynq.bench.models import Loaded
    from speckv_pynq.integrations.transformers import CacheConfig

SHOWN_CHARS = 400

DESCRIPTION = """\
Generates from a long prompt twice, with transformers' DynamicCache and with a SpecKVCache whose L1 holds a quarter
of the blocks, in turn, a token each. Then crops both caches to the end of the text in the prompt and scores how the
text goes on, in chunks of one block, to compare predictions on the same tokens. Prints a table, saves a picture.
"""
EPILOG = """\
examples:
  speckv demo
  speckv demo --scheme raw --json demo.json
  speckv demo --prompt-tokens 600 --new-tokens 16  a short one

JSON keys: ratio_records (FP16 bytes of coded blocks over bytes of their records), ratio_held (FP16 bytes of the whole
sequence over all held for it in L3: records, exact tokens, slack, tables), dppl_percent, dppl_low, dppl_high,
agree_percent, same_tokens (first generated tokens that are equal), tokens_per_s, exact_tokens_per_s (by the median
step), hits (blocks read while decoding, by tier), peak_rss_mb (until the last token was generated), and more.
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="an exact cache beside SpecKV on a long prompt",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    options.add_scheme(parser)
    run_group = parser.add_argument_group("run")
    numbers = (
        ("prompt", 3072, "of the prompt"),
        ("new", 64, "generated"),
        ("score", 1024, "scored"),
    )
    for name, default, what in numbers:
        run_group.add_argument(
            f"--{name}-tokens",
            type=options.positive,
            default=default,
            metavar="N",
            help=f"tokens {what}; default: %(default)s",
        )
    run_group.add_argument(
        "--l1-share",
        type=options.share,
        default=0.25,
        help="share of the blocks in L1; default: %(default)s",
    )
    run_group.add_argument(
        "--text",
        type=options.existing_file,
        metavar="FILE",
        help="default: Python's own documentation",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("speckv_demo.png"),
        metavar="PNG",
        help="default: %(default)s",
    )
    options.add_model(parser)
    options.add_cache(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, output: Output) -> int:
    from speckv_pynq.bench import models, picture
    from speckv_pynq.bench.demo import Settings

    if not arguments.picture.absolute().parent.is_dir():
        raise ConfigError(f"--picture {arguments.picture}: no such folder")
    settings = Settings(
        arguments.prompt_tokens, arguments.new_tokens, arguments.score_tokens, arguments.l1_share
    )
    config = options.cache_config(arguments, arguments.scheme)
    with output.waiting("loading the model (the first time SmolLM2 is converted, half a minute)"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    tokens = settings.prompt_tokens + settings.score_tokens
    text = models.read_texts([arguments.text]) if arguments.text else models.prose(tokens)
    result = _measured(loaded, text, config, settings, output)
    _show(result, loaded, output)
    picture.save(result, loaded, arguments.picture)
    output.note(f"picture: {arguments.picture}")
    figures = {**result.report(), "model": loaded.name, "dtype": loaded.dtype}
    output.json("demo", {**figures, "picture": str(arguments.picture)})
    return 0


def _measured(
    loaded: Loaded, text: str, config: CacheConfig, settings: Settings, output: Output
) -> Result:
    from speckv_pynq.bench import demo

    words = {
        "prompt": "reading the prompt, twice",
        "generate": "generating on both caches",
        "score": "scoring text on both caches",
    }
    # In units of a prompt token; a generated token takes as long as some thirty of them.
    weights = {"prompt": 1.0, "generate": 60.0, "score": 2.0}
    total = 2 * settings.prompt_tokens + 60 * settings.new_tokens + 2 * settings.score_tokens
    with output.progress(words["prompt"], total) as advance:
        return demo.run(
            loaded,
            text,
            config,
            settings,
            lambda stage, done: advance(weights[stage] * done, words[stage]),
        )


def _show(result: Result, loaded: Loaded, output: Output) -> None:
    output.table(
        f"{loaded.name} ({loaded.dtype}): {result.settings.prompt_tokens} prompt tokens, "
        f"{len(result.coded.tokens)} generated",
        ("", "DynamicCache", f"SpecKV {result.config.scheme}"),
        _rows(result),
    )
    for name, text in zip(("DynamicCache", "SpecKV"), result.texts, strict=True):
        output.say(f"{name}: {' '.join(text.split())[:SHOWN_CHARS]}")
    output.note(
        f"{result.seconds:.0f} s in all; peak memory until the last token {mb(result.peak_rss_bytes)}, model and exact "
        "cache included"
    )
    output.note(machine.one_line(machine.describe()))


def _rows(result: Result) -> list[tuple[str, ...]]:
    from speckv_pynq.bench.decoding import same_prefix

    quality, stats, hits = result.quality, result.stats, result.hits
    exact, coded, tiers = result.exact, result.coded, result.stats.tiers
    same = same_prefix(exact.tokens, coded.tokens)
    interval = f"{quality.dppl_low:+.2f} .. {quality.dppl_high:+.2f}"
    copies = ", ".join(mb(n) for n in (tiers.l1_bytes, tiers.l2_bytes, stats.workspace_bytes))
    return [
        ("How much smaller",),
        ("cache in FP16 / held", mb(stats.fp16_bytes), mb(stats.held_bytes)),
        ("all that is held (ratio_held)", "1.00x", f"{stats.ratio_held:.2f}x"),
        ("coded blocks alone (ratio_records)", "", f"{stats.ratio_records:.2f}x"),
        ("blocks kept raw", "", f"{tiers.raw_fallbacks} of {tiers.blocks}"),
        ("copies besides: L1, L2, workspace", "", copies),
        ("How close",),
        (
            f"perplexity of the next {quality.tokens} tokens",
            f"{quality.exact_ppl:.3f}",
            f"{quality.ppl:.3f}",
        ),
        ("rise, 95 % interval", "", f"{quality.dppl_percent:+.2f} %, {interval}"),
        ("same most likely next token", "", f"{quality.agree_percent:.1f} %"),
        ("generated, equal from the first on", "", f"{same} of {len(coded.tokens)}"),
        ("How fast",),
        (
            "tokens/s, median step",
            f"{exact.tokens_per_s:.1f}",
            f"{coded.tokens_per_s:.1f} ({coded.tokens_per_s / exact.tokens_per_s:.0%})",
        ),
        ("the prompt", f"{exact.prefill_s:.1f} s", f"{coded.prefill_s:.1f} s"),
        ("Where the blocks were",),
        ("read while generating: L1, L2, L3", "", f"{hits.l1}, {hits.l2}, {hits.l3}"),
        ("found in L1", "", f"{hits.l1_share:.1%}"),
    ]
