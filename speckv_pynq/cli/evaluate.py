"""`speckv eval`: how small and how close coded caches are, on text; alone or beside other people's."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from speckv_pynq.bench.contenders import Contender, Cut, Scheme
    from speckv_pynq.bench.ledger import Ledger
    from speckv_pynq.bench.models import Loaded

DEFAULT_TOKENS = 50_000
SPARSE_BUDGET, SPARSE_SCORED = 0.25, 512
DEFAULT_PICTURE = "speckv_curve.png"
RIVALS = (
    *(f"kivi-int{bits}" for bits in (4, 3, 2)),
    *(f"{backend}-int{bits}" for backend in ("quanto", "hqq") for bits in (4, 2)),
    "zstd",
)

DESCRIPTION = """\
Sends text through the exact cache and through coded ones, side by side, and compares what the model predicts at each
position. The cache is written through the codec as in decoding: chunks of one block, which later chunks read decoded;
the first tokens (sinks), the newest and the unfinished block are exact. Sequences of --context tokens are drawn from
the texts.

--attention sparse measures each scheme also with sparse attention, which reads a share of the blocks (--budget) in each
layer. It is for decoding: all but the last 512 tokens of a sequence (--prefill) are not scored and reach all caches as
one exact pass makes them, but for the last 64 of them, which each cache reads itself; then come the scored tokens, one
at a time. Blocks hold 16 tokens then, unless --block-tokens says otherwise.

--curve measures all schemes and, in the same run, KIVI-style quantisation (groups of 32, two FP16 numbers each, the
same exact tokens), transformers' QuantizedCache (quanto, hqq; by its own rules) and zstd of each block, and draws
ratio against perplexity. Blocks are FP16 then, also those of an fp32 model. Evaluate a calibrated scheme on text of
a kind that its codebook was not made from.
"""
EPILOG = """\
examples:
  speckv eval --scheme int4
  speckv eval --model DIR --text book.txt notes.txt --scheme int4 --scheme int8_delta_rle --json eval.json
  speckv eval --max-tokens 5000 --context 512      a quick look
  speckv eval --attention sparse --budget 0.125 --budget 0.25 --context 4096 --max-tokens 8192
  speckv eval --curve --codebook layer.safetensors --codebook group6.safetensors --markdown table.md

JSON keys: those of the first scheme, and under `results` one object a scheme: scheme, name, ratio_records, ratio_held,
dppl_percent (rise of perplexity), dppl_low and dppl_high (95 % bootstrap interval, paired by sequence), agree_percent
(same most likely token), kl_nats (mean KL of the predictions), tokens, sequences, exact_ppl, ppl, raw_fallbacks, ours,
read_percent (coded blocks read, of all that dense attention reads);
with a codebook also codebook {scope, step, fingerprint, bytes, texts} and ratio_with_codebook (its bytes spread over
1 GiB of cache). `left_out`: what was asked for and could not be measured, and why.
"""


def register(commands: options.Commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="size and quality of coded caches on text",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    options.add_scheme(parser, several=True)
    parser.add_argument(
        "--codebook",
        type=options.existing_file,
        action="append",
        default=[],
        metavar="FILE",
        help="of scheme klt; repeat it to compare several in one run",
    )
    parser.add_argument(
        "--text",
        nargs="+",
        type=options.existing_file,
        metavar="FILE",
        help="joined in this order; .npy: token ids, (tokens,) or (texts, tokens), never joined; "
        "default: Python's own documentation",
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
    _add_sparse(parser)
    _add_comparison(parser)
    options.add_model(parser)
    options.add_cache(parser, sparse=True)
    options.add_json(parser)
    parser.set_defaults(run=run)


def _add_sparse(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("attention")
    group.add_argument(
        "--attention",
        choices=("dense", "sparse"),
        default="dense",
        help="sparse: measure each scheme also with sparse attention; default: %(default)s",
    )
    group.add_argument(
        "--budget",
        type=options.share,
        action="append",
        metavar="SHARE",
        help="of the blocks, that sparse attention reads in a layer; repeat it to compare several; default: 0.25",
    )
    group.add_argument(
        "--prefill",
        type=int,
        metavar="N",
        help="tokens that go in at once and are not scored; default: 0, with sparse attention all but 512",
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--curve",
        nargs="?",
        const=Path(DEFAULT_PICTURE),
        type=options.new_file,
        metavar="PNG",
        help=f"measure all schemes and rivals and draw them, by default to {DEFAULT_PICTURE}; without --json the "
        "figures go beside it",
    )
    group.add_argument(
        "--rival",
        choices=(*RIVALS, "none"),
        action="append",
        help="what to measure besides; repeat it; default: with --curve all of them, else none",
    )
    group.add_argument(
        "--markdown",
        type=options.new_file,
        metavar="FILE",
        help="write the table there too, as Markdown",
    )
    group.add_argument(
        "--resume",
        type=options.new_file,
        metavar="FILE",
        help="keep what each batch gave there; a run of the same model, text and cut goes on from it",
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    from speckv_pynq.bench import evaluation, models
    from speckv_pynq.cli import eval_output
    from speckv_pynq.cli.eval_output import Found

    _check(arguments)
    prefill = _prefill(arguments)
    arguments.prefill = prefill or None
    cut = options.cache_config(arguments, "int4", attention=arguments.attention)
    arguments.block_tokens = cut.block_tokens
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
        contenders, left_out = _contenders(arguments, loaded.model, cut)
    pieces = _pieces(arguments, loaded)
    ledger = _ledger(arguments, loaded, pieces)
    with output.waiting("trying foreign caches"):
        contenders, failed = evaluation.usable(loaded, pieces, contenders, cut)
    left_out |= failed
    started = time.perf_counter()
    what = f"{len(pieces)} sequences of {arguments.context} through {len(contenders) + 1} caches"
    scored = len(pieces) * (arguments.context - prefill - 1)
    with output.progress(what, scored) as advance:
        results = evaluation.evaluate(
            loaded,
            pieces,
            contenders,
            cut,
            batch=arguments.batch,
            seed=arguments.seed,
            ledger=ledger,
            prefill=prefill,
            progress=advance,
        )
    found = Found(loaded, contenders, results, left_out)
    eval_output.show(found, arguments.context, time.perf_counter() - started, output)
    eval_output.write(found, arguments, output)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.context < 2:
        raise ConfigError(f"--context {arguments.context} < 2")
    if arguments.budget and arguments.attention != "sparse":
        raise ConfigError("--budget is for --attention sparse")
    if arguments.codebook and arguments.scheme and "klt" not in arguments.scheme:
        raise ConfigError(f"--codebook: scheme {', '.join(arguments.scheme)} takes none")


def _prefill(arguments: argparse.Namespace) -> int:
    prefill = arguments.prefill
    if prefill is None:
        prefill = (
            max(0, arguments.context - SPARSE_SCORED) if arguments.attention == "sparse" else 0
        )
    if not 0 <= prefill <= arguments.context - 2:
        raise ConfigError(f"--prefill {prefill} is not within 0..{arguments.context - 2}")
    return int(prefill)


def _ledger(arguments: argparse.Namespace, loaded: Loaded, pieces: torch.Tensor) -> Ledger:
    from speckv_pynq.bench.ledger import Ledger, key

    named = ("compute", "batch", "sinks", "recent", "block_tokens")
    settings = [getattr(arguments, name) for name in named]
    settings += [prefill] if (prefill := _prefill(arguments)) else []
    return Ledger(arguments.resume, key(pieces, loaded.name, loaded.dtype, *settings))


def _contenders(
    arguments: argparse.Namespace, model: Any, cut: Cut
) -> tuple[list[Contender], dict[str, str]]:
    """What to measure, and what cannot be for want of something to install, with the reason."""
    from speckv_pynq.bench.rivals import rival
    from speckv_pynq.errors import DependencyMissing

    contenders: list[Contender] = [*_schemes(arguments, model)]
    left_out = {}
    for name in _rivals(arguments):
        try:
            contenders.append(rival(name, cut))
        except DependencyMissing as error:
            left_out[name] = str(error)
    return contenders, left_out


def _schemes(arguments: argparse.Namespace, model: Any) -> list[Scheme]:
    from speckv_pynq.bench.contenders import schemes
    from speckv_pynq.integrations._codebook import shipped_for

    shipped = shipped_for(model)
    codebooks = arguments.codebook or [path for path in (shipped,) if path is not None]
    if arguments.scheme:
        names = list(dict.fromkeys(arguments.scheme))
    elif arguments.curve:
        names = [name for name in options.SCHEMES if name != "klt" or codebooks]
    else:
        names = ["klt"] if arguments.codebook else ["int4"]
    if "klt" in names and not codebooks:
        raise ConfigError(f"--scheme klt: none is shipped for {arguments.model}; name a --codebook")
    compared = arguments.dtype == "fp32" and (arguments.curve or _rivals(arguments))
    # a ratio over FP16 wants blocks that are FP16; those of lossy schemes are
    half = {name: {"block_dtype": "fp16"} for name in ("raw", "lossless") if compared}
    configs = {name: options.cache_config(arguments, name, **half.get(name, {})) for name in names}
    calibrated = [(configs["klt"], path) for path in codebooks] if "klt" in names else []
    dense = schemes([configs[name] for name in names if name != "klt"], calibrated)
    if arguments.attention != "sparse":
        return dense
    budgets = dict.fromkeys(arguments.budget or (SPARSE_BUDGET,))
    return [each for one in dense for each in (one, *(one.sparse(b) for b in budgets))]


def _rivals(arguments: argparse.Namespace) -> Sequence[str]:
    names = arguments.rival or (RIVALS if arguments.curve else ())
    return () if "none" in names else list(dict.fromkeys(names))


def _pieces(arguments: argparse.Namespace, loaded: Loaded) -> torch.Tensor:
    from speckv_pynq.bench import models

    if arguments.text:
        ids = models.read_ids(loaded, arguments.text)
    else:
        ids = [loaded.encode(models.prose(arguments.max_tokens + 2 * arguments.context))]
    # --max-tokens counts scored ones: those of a prefill are not
    whole = arguments.context - 1
    wanted = -(-arguments.max_tokens * whole // (whole - _prefill(arguments)))
    return models.sequences(ids, arguments.context, wanted, arguments.seed)
