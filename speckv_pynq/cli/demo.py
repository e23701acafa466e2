"""`speckv demo`: an exact cache beside coded ones, on a real model and a long prompt."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.bench.demo import Coded, Result, Settings
    from speckv_pynq.bench.models import Loaded
    from speckv_pynq.integrations.transformers import CacheConfig

SHOWN_CHARS = 400

DESCRIPTION = """\
Generates from a long prompt with transformers' DynamicCache and with SpecKVCaches whose L1 holds a quarter of the
blocks, in turn, a token each. Then crops the caches to the end of the text in the prompt and scores how the text goes
on, in chunks of one block, to compare predictions on the same tokens. Prints a table, saves a picture. Schemes: those
asked for, else klt, where there is a codebook for the model, and int4.
"""
EPILOG = """\
examples:
  speckv demo
  speckv demo --scheme raw --json demo.json
  speckv demo --prompt-tokens 600 --new-tokens 16  a short one
  speckv demo --model DIR --codebook layer.safetensors

JSON keys: those of the first scheme, and under `results` one object a scheme: ratio_records (FP16 bytes of coded
blocks over bytes of their records), ratio_held (FP16 bytes of the whole sequence over all held for it in L3: records,
exact tokens, slack, tables), dppl_percent, dppl_low, dppl_high, agree_percent, same_tokens (first generated tokens
that are equal), tokens_per_s (by the median step), codebook_bytes, hits (blocks read while decoding, by tier), and
more. Once: exact_tokens_per_s, peak_rss_mb (until the last token was generated, all caches together), seconds.
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="an exact cache beside SpecKV on a long prompt",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    options.add_scheme(parser, several=True)
    options.add_codebook(parser)
    run_group = parser.add_argument_group("run")
    options.add_counts(
        run_group,
        ("prompt-tokens", 3072, "tokens of the prompt"),
        ("new-tokens", 64, "tokens generated"),
        ("score-tokens", 1024, "tokens scored"),
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
    with output.waiting("loading the model (the first time SmolLM2 is converted, half a minute)"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    configs = _configs(arguments, loaded)
    tokens = settings.prompt_tokens + settings.score_tokens
    text = models.read_texts([arguments.text]) if arguments.text else models.prose(tokens)
    result = _measured(loaded, text, configs, settings, output)
    _show(result, loaded, output)
    picture.save(result, loaded, arguments.picture)
    output.note(f"picture: {arguments.picture}")
    figures = {**result.report(), "model": loaded.name, "dtype": loaded.dtype}
    output.json("demo", {**figures, "picture": str(arguments.picture)})
    return 0


def _configs(arguments: argparse.Namespace, loaded: Loaded) -> list[CacheConfig]:
    """Of the schemes asked for, or else of klt, where there is a codebook, and int4."""
    from speckv_pynq.integrations._codebook import shipped_for

    schemes = list(dict.fromkeys(arguments.scheme or ()))
    if not schemes:
        calibrated = arguments.codebook or shipped_for(loaded.model)
        schemes = ["klt", "int4"] if calibrated else ["int4"]
    if arguments.codebook and "klt" not in schemes:
        raise ConfigError(f"--codebook: scheme {', '.join(schemes)} takes none")
    return [
        options.cache_config(arguments, scheme, codebook=arguments.codebook)
        if scheme == "klt"
        else options.cache_config(arguments, scheme)
        for scheme in schemes
    ]


def _measured(
    loaded: Loaded, text: str, configs: list[CacheConfig], settings: Settings, output: Output
) -> Result:
    from speckv_pynq.bench import demo

    words = {
        "prompt": "reading the prompt, once a cache",
        "generate": "generating on all caches",
        "score": "scoring text on all caches",
    }
    # In units of a prompt token; a generated token takes as long as some thirty of them.
    caches = len(configs) + 1
    weights = {"prompt": 1.0, "generate": 30.0 * caches, "score": 1.0 * caches}
    total = caches * (settings.prompt_tokens + 30 * settings.new_tokens + settings.score_tokens)
    with output.progress(words["prompt"], total) as advance:
        return demo.run(
            loaded,
            text,
            configs,
            settings,
            lambda stage, done: advance(weights[stage] * done, words[stage]),
        )


def _show(result: Result, loaded: Loaded, output: Output) -> None:
    names = [f"SpecKV {coded.config.scheme}" for coded in result.coded]
    output.table(
        f"{loaded.name} ({loaded.dtype}): {result.settings.prompt_tokens} prompt tokens, "
        f"{len(result.exact.tokens)} generated",
        ("", "DynamicCache", *names),
        _rows(result),
    )
    texts = [result.exact_text, *(coded.text for coded in result.coded)]
    for name, text in zip(("DynamicCache", *names), texts, strict=True):
        output.say(f"{name}: {' '.join(text.split())[:SHOWN_CHARS]}")
    output.note(
        f"{result.seconds:.0f} s in all; peak memory until the last token {mb(result.peak_rss_bytes)}, model and all "
        "caches included"
    )
    output.note(machine.one_line(machine.describe()))


def _rows(result: Result) -> list[tuple[str, ...]]:
    exact, coded = result.exact, result.coded
    stats, quality = coded[0].stats, coded[0].quality
    rows: list[tuple[str, ...]] = [
        ("How much smaller",),
        _row("cache in FP16 / held", mb(stats.fp16_bytes), coded, lambda c: mb(c.stats.held_bytes)),
        _row(
            "all that is held (ratio_held)", "1.00x", coded, lambda c: f"{c.stats.ratio_held:.2f}x"
        ),
        _row(
            "coded blocks alone (ratio_records)",
            "",
            coded,
            lambda c: f"{c.stats.ratio_records:.2f}x",
        ),
        _row(
            "blocks kept raw",
            "",
            coded,
            lambda c: f"{c.stats.tiers.raw_fallbacks} of {c.stats.tiers.blocks}",
        ),
        _row("copies besides: L1, L2, workspace", "", coded, _copies),
    ]
    if any(c.codebook_bytes for c in coded):
        rows.append(
            _row(
                "blocks beyond the codebook, as int4",
                "",
                coded,
                lambda c: str(c.stats.tiers.int4_fallbacks) if c.codebook_bytes else "",
            )
        )
        rows.append(
            _row(
                "codebook on the device, besides",
                "",
                coded,
                lambda c: mb(c.codebook_bytes) if c.codebook_bytes else "",
            )
        )
    return [
        *rows,
        ("How close",),
        _row(
            f"perplexity of the next {quality.tokens} tokens",
            f"{quality.exact_ppl:.3f}",
            coded,
            lambda c: f"{c.quality.ppl:.3f}",
        ),
        _row("rise, 95 % interval", "", coded, _rise),
        _row(
            "same most likely next token", "", coded, lambda c: f"{c.quality.agree_percent:.1f} %"
        ),
        _row(
            "generated, equal from the first on",
            "",
            coded,
            lambda c: f"{c.same_tokens} of {len(c.lane.tokens)}",
        ),
        ("How fast",),
        _row(
            "tokens/s, median step",
            f"{exact.tokens_per_s:.1f}",
            coded,
            lambda c: f"{c.lane.tokens_per_s:.1f} ({c.lane.tokens_per_s / exact.tokens_per_s:.0%})",
        ),
        _row(
            "the prompt", f"{exact.prefill_s:.1f} s", coded, lambda c: f"{c.lane.prefill_s:.1f} s"
        ),
        ("Where the blocks were",),
        _row(
            "read while generating: L1, L2, L3",
            "",
            coded,
            lambda c: f"{c.hits.l1}, {c.hits.l2}, {c.hits.l3}",
        ),
        _row("found in L1", "", coded, lambda c: f"{c.hits.l1_share:.1%}"),
    ]


def _row(
    name: str, exact: str, coded: tuple[Coded, ...], cell: Callable[[Coded], str]
) -> tuple[str, ...]:
    return (name, exact, *(cell(each) for each in coded))


def _copies(coded: Coded) -> str:
    tiers = coded.stats.tiers
    sizes = (tiers.l1_bytes, tiers.l2_bytes, coded.stats.workspace_bytes)
    return ", ".join(mb(n) for n in sizes)


def _rise(coded: Coded) -> str:
    quality = coded.quality
    interval = f"{quality.dppl_low:+.2f} .. {quality.dppl_high:+.2f}"
    return f"{quality.dppl_percent:+.2f} %, {interval}"
