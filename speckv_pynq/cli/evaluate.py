"""`speckv eval`: how small and how close coded caches are, on text."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.bench.evaluation import Evaluation

DEFAULT_TOKENS = 50_000

DESCRIPTION = """\
Sends text through the exact cache and through coded ones, side by side, and compares what the model predicts at each
position. The cache is written through the codec as in decoding: chunks of one block, which later chunks read decoded;
the first tokens (sinks), the newest and the unfinished block are exact. Sequences of --context tokens are drawn from
the texts.
"""
EPILOG = """\
examples:
  speckv eval --scheme int4
  speckv eval --model DIR --text book.txt notes.txt --scheme int4 --scheme int8_delta_rle --json eval.json
  speckv eval --max-tokens 5000 --context 512      a quick look

JSON keys: those of the first scheme, and under `results` one object a scheme: scheme, ratio_records, ratio_held,
dppl_percent (rise of perplexity), dppl_low and dppl_high (95 % bootstrap interval, paired by sequence), agree_percent
(same most likely token), kl_nats (mean KL of the predictions), tokens, sequences, exact_ppl, ppl, raw_fallbacks.
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="size and quality of coded caches on text",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    options.add_scheme(parser, several=True)
    parser.add_argument("--codebook", metavar="FILE", help="of a calibrated scheme")
    parser.add_argument(
        "--text",
        nargs="+",
        type=options.existing_file,
        metavar="FILE",
        help="joined in this order; default: Python's own documentation",
    )
    parser.add_argument(
        "--context",
        type=options.positive,
        default=2048,
        metavar="N",
        help="tokens of a sequence; default: %(default)s",
    )
    parser.add_argument(
        "--max-tokens",
        type=options.positive,
        default=DEFAULT_TOKENS,
        metavar="N",
        help="score about so many, if there are; default: %(default)s",
    )
    parser.add_argument(
        "--batch",
        type=options.positive,
        default=8,
        metavar="B",
        help="sequences at once; default: %(default)s",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the choice of sequences and the bootstrap; default: %(default)s",
    )
    options.add_model(parser)
    options.add_cache(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, output: Output) -> int:
    from speckv_pynq.bench import models
    from speckv_pynq.bench.evaluation import evaluate

    schemes = list(dict.fromkeys(arguments.scheme or ["int4"]))
    if arguments.codebook:
        raise ConfigError(f"--codebook: scheme {', '.join(schemes)} takes none")
    if arguments.context < 2:
        raise ConfigError(f"--context {arguments.context} < 2")
    configs = [options.cache_config(arguments, scheme) for scheme in schemes]
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    if arguments.text:
        text = models.read_texts(arguments.text)
    else:
        text = models.prose(arguments.max_tokens + 2 * arguments.context)
    pieces = models.sequences(
        loaded.encode(text), arguments.context, arguments.max_tokens, arguments.seed
    )
    started = time.perf_counter()
    what = f"{len(pieces)} sequences of {arguments.context} through {len(configs) + 1} caches"
    with output.progress(what, pieces.numel() - len(pieces)) as advance:
        results = evaluate(
            loaded, pieces, configs, batch=arguments.batch, seed=arguments.seed, progress=advance
        )
    _show(results, loaded.name, arguments.context, time.perf_counter() - started, output)
    reports = [_report(result) for result in results]
    asked = {
        "model": loaded.name,
        "dtype": loaded.dtype,
        **{
            name: getattr(arguments, name)
            for name in ("context", "batch", "seed", "sinks", "recent")
        },
        "block_tokens": arguments.block_tokens,
        "texts": [str(path) for path in arguments.text or ()],
    }
    output.json("eval", {**reports[0], **asked, "results": reports})
    return 0


def _report(result: Evaluation) -> dict[str, Any]:
    flat = asdict(result)
    return {**flat.pop("quality"), **flat}


def _show(
    results: list[Evaluation], name: str, context: int, seconds: float, output: Output
) -> None:
    first = results[0].quality
    rows = [
        (
            result.scheme,
            f"{result.ratio_records:.3f}",
            f"{result.ratio_held:.3f}",
            f"{result.quality.dppl_percent:+.3f} %",
            f"{result.quality.dppl_low:+.3f} .. {result.quality.dppl_high:+.3f}",
            f"{result.quality.agree_percent:.2f} %",
            f"{result.quality.kl_nats:.2e}",
            f"{result.raw_fallbacks} / {result.blocks}",
        )
        for result in results
    ]
    output.table(
        f"{name}: {first.tokens} tokens scored in {first.sequences} sequences of {context}; "
        f"exact perplexity {first.exact_ppl:.4f}",
        ("scheme", "records", "held", "dppl", "95 %", "agree", "KL nats", "kept raw"),
        rows,
    )
    output.note(
        "records: FP16 bytes of coded blocks / bytes of their records; held: FP16 bytes of all / all bytes held"
    )
    output.note(f"{seconds:.0f} s; {machine.one_line(machine.describe())}")
