"""`speckv bench sparse`: attention that a small choice of blocks holds, and what the choice owes to each signal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import speckv_pynq
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import ConfigError
from speckv_pynq.prefetch.ranking import DEFAULT

if TYPE_CHECKING:
    from speckv_pynq.bench.attention_traces import AttentionTrace
    from speckv_pynq.bench.sparse_guesses import Guess
    from speckv_pynq.bench.sparse_replay import Scene
    from speckv_pynq.prefetch.bounds import Floats

    Stage = Callable[[str, float], Callable[..., None]]

NAME = "sparse"
TRUE = "true"  # the guess that knows what comes
SHIPPED = Path(speckv_pynq.__file__).parent / "predictors" / "smollm2.safetensors"

DESCRIPTION = """\
Sparse attention reads a budget of blocks of 16 tokens a layer and step: sinks and newest blocks always, the others by
a score of past attention, bounds of their keys against the step's queries, and what followed earlier uses of the
newest token. Measured on a model's own attention over text, teacher-forced: the share of attention that the chosen
blocks hold, beside the best choice under the same rules (oracle) and each signal alone; what each signal adds to the
others; and what a prefetch ahead of the queries wastes. As in decoding, attention is seen of the chosen blocks only.
"""
EPILOG = """\
examples:
  speckv bench sparse
  speckv bench sparse --text book.txt --tokens 4096 --steps 256 --sequences 4 --json sparse.json

JSON: `mass`, of each budget {ranking: share}; `under_oracle`, points of `all signals` under it at each budget;
`ablation`, a list of {signal, points, low, high}; `waste`, a list of {guess, ahead, new, in_time, wasted};
`wasted`, that of the default `ahead` without a predictor; `guess_accuracy`; `weights`,
the fitted ones or the default; `cost`.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="which blocks sparse attention reads", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(
        parser,
        ("tokens", 2048, "of a sequence"),
        ("steps", 64, "of them decoded, the last ones"),
        ("sequences", 2, "from all over the text"),
    )
    parser.add_argument(
        "--predictor",
        type=options.existing_file,
        metavar="FILE",
        help="made by `speckv predictor train`, to see what it adds; default: the package's, for SmolLM2",
    )
    parser.add_argument(
        "--fit",
        type=int,
        default=0,
        metavar="N",
        help="fit the weights too, on so many further sequences (minutes); default: %(default)s",
    )
    parser.add_argument(
        "--text",
        type=options.existing_file,
        metavar="FILE",
        action="append",
        help="a text, or token ids as .npy; may be repeated; default: Python's own documentation",
    )
    options.add_model(parser)
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import machine, sparse, sparse_fit, sparse_guesses, sparse_waste

    if arguments.fit < 0:
        raise ConfigError(f"--fit {arguments.fit} < 0")
    if arguments.steps >= arguments.tokens:
        raise ConfigError(f"--steps {arguments.steps} >= --tokens {arguments.tokens}")
    started = time.perf_counter()
    with output.stages() as stage:
        traces = _traces(arguments, stage)
        scene, pointing = _prepared(traces[arguments.fit :], stage)
        fitted = None
        if arguments.fit:
            learn = _prepared(traces[: arguments.fit], stage)
            fitted = sparse_fit.fit([learn], visit=stage("fitting", sparse_fit.TRIES))
        advance = stage("replaying", 5)
        mass = {}
        for share in sparse.SHARES:
            mass[_name(share)] = sparse.masses(scene, share, pointing, fitted)
            advance()
        predictors = _predictors(arguments, scene)
        parts = sparse.ablation(scene, sparse.ABLATION_SHARE, pointing, predictors)
        advance()
        wastes = sparse_waste.waste(scene, sparse.ABLATION_SHARE, pointing, predictors)
        accuracy = {
            name: sparse_guesses.accuracy(guess, scene.tokens, scene.first)
            for name, guess in predictors.items()
            if name != TRUE
        }
        cost = sparse.cost()
    _show_mass(output, arguments, scene, mass)
    if fitted is not None:
        output.note(f"fitted on {arguments.fit} other sequences: {fitted}")
    _show_parts(output, parts, accuracy)
    _show_waste(output, wastes, sparse_waste.ROOM)
    output.note(
        f"a block and KV head of 64 channels: {cost.bytes_per_block} bytes held beside {cost.block_bytes} of K and V "
        f"in FP16; choice among 256 blocks, 9 query and 3 KV heads: {cost.choose_us:.0f} us of CPU time"
    )
    output.note(f"{time.perf_counter() - started:.0f} s; {machine.one_line(machine.describe())}")
    default = next(w for w in wastes if (w.guess, w.ahead) == ("none", sparse_waste.AHEAD))
    return {
        "model": arguments.model,
        "tokens": arguments.tokens,
        "steps": arguments.steps,
        "sequences": len(scene.tokens),
        "mass": mass,
        "under_oracle": {
            name: 100 * (held["oracle"] - held["all signals"]) for name, held in mass.items()
        },
        "ablation": [asdict(part) for part in parts],
        "waste": [asdict(figures) for figures in wastes],
        "wasted": default.wasted,
        "weights": asdict(DEFAULT if fitted is None else fitted),
        "guess_accuracy": accuracy,
        "cost": asdict(cost),
    }


def _traces(arguments: argparse.Namespace, stage: Stage) -> list[AttentionTrace]:
    from speckv_pynq.bench import attention_traces, models

    count = arguments.sequences + arguments.fit
    wanted = arguments.tokens * count
    advance = stage("recording attention", count)
    loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    if arguments.text is None:
        texts = [models.text_ids(loaded, None, wanted)]
    else:
        texts = models.read_ids(loaded, arguments.text)
    # max_tokens counts what is scored: all tokens of a piece but its first
    pieces = models.sequences(texts, arguments.tokens, wanted - count, seed=0)
    if len(pieces) <= arguments.fit:
        raise ConfigError(
            f"--fit {arguments.fit}: the text has {len(pieces)} sequences of {arguments.tokens} tokens"
        )
    traces = []
    for piece in pieces:
        traces.append(attention_traces.record(loaded.model, piece, arguments.steps))
        advance()
    return traces


def _prepared(traces: list[AttentionTrace], stage: Stage) -> tuple[Scene, list[Floats]]:
    from speckv_pynq.bench import sparse, sparse_replay

    scene = sparse_replay.prepare(traces, stage("preparing", len(traces)))
    return scene, sparse_replay.points(scene, sparse.known)


def _predictors(arguments: argparse.Namespace, scene: Scene) -> dict[str, Guess]:
    from speckv_pynq.bench import models, sparse_guesses

    out: dict[str, Guess] = {TRUE: sparse_guesses.truth(scene.tokens), "copy": sparse_guesses.copy}
    path = arguments.predictor
    if path is None and arguments.model == models.SMOLLM2:
        path = SHIPPED
    if path is not None:
        out["LSTM"] = sparse_guesses.trained(path, scene.tokens, scene.first)
    return out


def _name(share: float) -> str:
    return f"1/{1 / share:.0f}"


def _show_mass(
    output: Output, arguments: argparse.Namespace, scene: Scene, mass: dict[str, dict[str, float]]
) -> None:
    rows = []
    for ranking in next(iter(mass.values())):
        cells = [ranking]
        for held in mass.values():
            under = 100 * (held["oracle"] - held[ranking])
            cells += [f"{100 * held[ranking]:.2f} %", "" if ranking == "oracle" else f"{under:.2f}"]
        rows.append(tuple(cells))
    columns = [""]
    for name in mass:
        columns += [name, "under"]
    output.table(
        f"attention held by a budget of blocks: {Path(arguments.model).name}, {len(scene.tokens)} sequences of "
        f"{arguments.tokens} tokens, {arguments.steps - 1} steps each; under: points under the oracle",
        columns,
        rows,
    )


def _show_parts(output: Output, parts: list[Any], accuracy: dict[str, float]) -> None:
    rows = [
        (part.signal, f"{part.points:+.3f}", f"{part.low:+.3f} .. {part.high:+.3f}")
        for part in parts
    ]
    output.table(
        "what each signal adds to the others at 1/4, points of attention",
        ("", "adds", "95 %"),
        rows,
    )
    known = ", ".join(f"{name} {100 * share:.0f} %" for name, share in accuracy.items())
    output.note(
        f"next token: where it stands, beside what followed the newest one; among the 4 guesses of: {known}"
    )


def _show_waste(output: Output, wastes: list[Any], room: float) -> None:
    rows = []
    for figures in wastes:
        what = f"{figures.ahead:g} budgets" if figures.ahead else "nothing"
        if figures.guess != "none":
            what += f", next token: {figures.guess}"
        rows.append((what, f"{100 * figures.in_time:.1f} %", f"{100 * figures.wasted:.1f} %"))
    output.table(
        f"prefetch before the queries are known, at 1/4, L1 of {room:g} budgets, last used",
        ("named before each step", "in time", "wasted"),
        rows,
    )
    output.note(
        f"in time: of the blocks that the step before did not read, {100 * wastes[0].new:.0f} % of those read; "
        "wasted: of all bytes fetched"
    )
