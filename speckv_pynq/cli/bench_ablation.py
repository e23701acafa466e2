"""`speckv bench ablation`: what each ingredient of scheme klt gives."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from speckv_pynq.bench.models import Loaded

NAME = "ablation"

DESCRIPTION = """\
Calibrates scheme klt on the texts, then again without one of its ingredients, and judges each codebook on held-out text
(the codec simulated with the kernels' integers, the cache written as in decoding): at the same step, and at the step at
which predictions move as far as with the full recipe (the same KL divergence; perplexity alone is noisier). With
--eval-text the codebooks are judged on text of another kind. Minutes on a GPU, an hour on two cores.
"""
EPILOG = """\
examples:
  speckv bench ablation --text book.txt program.py --eval-text manual.txt --compute cuda --markdown ablation.md
  speckv bench ablation --text ids.npy --tokens 8000 --eval-tokens 4000 --variant "K and V apart"     a quick look

JSON: `results`, a list of {name, same_step, same_kl}, both with step, ratio, dppl (percent), dppl_error, kl (nats),
agree (a share); same_step is null where steps mean something else.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME,
        help="what each ingredient of klt gives",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    texts = {"nargs": "+", "type": options.existing_file, "metavar": "FILE"}
    parser.add_argument("--text", required=True, **texts, help="to calibrate on; text, or .npy ids")
    parser.add_argument(
        "--eval-text", **texts, help="to judge on; default: the last of each --text"
    )
    parser.add_argument("--scope", default="layer", help="as of speckv calibrate; default: layer")
    parser.add_argument(
        "--target-dppl",
        type=float,
        default=0.5,
        metavar="PERCENT",
        help="what the full recipe may cost; default: %(default)s",
    )
    parser.add_argument("--variant", action="append", help="only this one; repeat it")
    for name, default, text in (
        ("--context", 1024, "of a sequence"),
        ("--tokens", None, "to calibrate on; default: all there are"),
        ("--eval-tokens", 16_384, "to judge on"),
        ("--batch-tokens", 2048, "at once"),
    ):
        more = "" if default is None else "; default: %(default)s"
        parser.add_argument(
            name, type=options.positive, default=default, metavar="N", help=text + more
        )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--markdown", type=options.new_file, metavar="FILE", help="write the table there too"
    )
    options.add_model(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, output: Output) -> int:
    from speckv_pynq.bench import ablation, models
    from speckv_pynq.calibration import Settings

    names = arguments.variant or list(ablation.VARIANTS)
    for name in names:
        if name not in ablation.VARIANTS:
            raise ConfigError(f"--variant {name!r}: not one of {', '.join(ablation.VARIANTS)}")
    settings = Settings(
        scope=arguments.scope,
        target_dppl=arguments.target_dppl,
        batch_tokens=arguments.batch_tokens,
        seed=arguments.seed,
    )
    started = time.perf_counter()
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
        used, held_out = _texts(arguments, loaded)
    with output.stages() as stage:
        bench = ablation.Bench(loaded.model, used, held_out, stage)
        rows = list(ablation.measure(bench, settings, names))
    what = (
        f"{Path(loaded.name).name}, {loaded.dtype}, scope {settings.scope}: calibrated on {used.numel():,} tokens, "
        f"judged on {held_out.numel():,}"
    )
    output.table(what, ablation.COLUMNS, [(row.name, *ablation.cells(row)) for row in rows])
    output.note(f"{time.perf_counter() - started:.0f} s; {machine.one_line(machine.describe())}")
    if arguments.markdown:
        arguments.markdown.write_text(ablation.markdown(rows, what + f"; on {loaded.processor}."))
        output.note(f"table: {arguments.markdown}")
    figures = {
        "model": loaded.name,
        "dtype": loaded.dtype,
        "compute": loaded.processor,
        "scope": settings.scope,
        "calibration_tokens": used.numel(),
        "eval_tokens": held_out.numel(),
        "texts": [str(path) for path in arguments.text],
        "eval_texts": [str(path) for path in arguments.eval_text or ()],
        "results": [asdict(row) for row in rows],
    }
    output.json(f"bench {NAME}", figures)
    return 0


def _texts(arguments: argparse.Namespace, loaded: Loaded) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences to calibrate on and to judge on, (n, context) each."""
    from speckv_pynq.calibration import text

    rows = text.sequences(arguments.text, loaded.encode, arguments.context)
    if not arguments.eval_text:
        return text.split(rows, arguments.tokens, arguments.eval_tokens)
    if arguments.tokens is not None:
        rows = rows[: max(1, arguments.tokens // arguments.context)]
    judged = text.sequences(arguments.eval_text, loaded.encode, arguments.context)
    return rows, judged[: max(1, arguments.eval_tokens // arguments.context)]
