"""`speckv bench sparse`: attention that a small choice of blocks holds, and what the choice owes to each signal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output
from speckv_pynq.errors import ConfigError

if TYPE_CHECKING:
    from speckv_pynq.bench.sparse_replay import Scene

NAME = "sparse"

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
`ablation`, a list of {signal, points, low, high}; `waste`, a list of {guess, ahead_share, covered, wasted};
`wasted`, that of the default share without a predictor; `guess_accuracy`; `cost`.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME, help="which blocks sparse attention reads", description=DESCRIPTION, epilog=EPILOG
    )
    options.add_counts(
        parser,
        ("tokens", 2048, "of a sequence"),
        ("steps", 96, "of them decoded, the last ones"),
        ("sequences", 2, "from all over the text"),
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
    from speckv_pynq.bench import machine, sparse, sparse_guesses

    if arguments.steps >= arguments.tokens:
        raise ConfigError(f"--steps {arguments.steps} >= --tokens {arguments.tokens}")
    started = time.perf_counter()
    with output.stages() as stage:
        scene = _scene(arguments, stage)
        pointing = sparse.points(scene, sparse.known)
        advance = stage("replaying", 5)
        mass = {}
        for share in sparse.SHARES:
            mass[_name(share)] = sparse.masses(scene, share, pointing)
            advance()
        predictors = {"true": sparse_guesses.truth(scene.tokens), "copy": sparse_guesses.copy}
        parts = sparse.ablation(scene, sparse.ABLATION_SHARE, pointing, predictors)
        advance()
        wastes = sparse.waste(
            scene, sparse.ABLATION_SHARE, pointing, {"none": sparse_guesses.nothing, **predictors}
        )
        accuracy = sparse_guesses.accuracy(sparse_guesses.copy, scene.tokens, scene.first)
        cost = sparse.cost()
    _show_mass(output, arguments, scene, mass)
    _show_parts(output, parts, accuracy)
    _show_waste(output, wastes)
    output.note(
        f"a block and KV head of 64 channels: {cost.bytes_per_block} bytes held beside {cost.block_bytes} of K and V "
        f"in FP16; choice among 256 blocks, 9 query and 3 KV heads: {cost.choose_us:.0f} us of CPU time"
    )
    output.note(f"{time.perf_counter() - started:.0f} s; {machine.one_line(machine.describe())}")
    default = next(w for w in wastes if (w.guess, w.ahead_share) == ("none", sparse.AHEAD_SHARE))
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
        "guess_accuracy": {"copy": accuracy},
        "cost": asdict(cost),
    }


def _scene(
    arguments: argparse.Namespace, stage: Callable[[str, float], Callable[..., None]]
) -> Scene:
    from speckv_pynq.bench import attention_traces, models, sparse_replay

    advance = stage("recording attention", 2 * arguments.sequences)
    loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    wanted = arguments.tokens * arguments.sequences
    if arguments.text is None:
        texts = [models.text_ids(loaded, None, wanted)]
    else:
        texts = models.read_ids(loaded, arguments.text)
    # max_tokens counts what is scored: all tokens of a piece but its first
    pieces = models.sequences(texts, arguments.tokens, wanted - arguments.sequences, seed=0)
    traces = []
    for piece in pieces:
        traces.append(attention_traces.record(loaded.model, piece, arguments.steps))
        advance()
    return sparse_replay.prepare(traces, advance)


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


def _show_parts(output: Output, parts: list[Any], accuracy: float) -> None:
    rows = [
        (part.signal, f"{part.points:+.3f}", f"{part.low:+.3f} .. {part.high:+.3f}")
        for part in parts
    ]
    output.table(
        "what each signal adds to the others at 1/4, points of attention",
        ("", "adds", "95 %"),
        rows,
    )
    output.note(
        f"next token: where it stands, beside what followed the newest one; copy: its 4 guesses hold the next token "
        f"in {100 * accuracy:.0f} % of steps"
    )


def _show_waste(output: Output, wastes: list[Any]) -> None:
    rows = [
        (
            f"{figures.guess}, {figures.ahead_share:.0%} of the budget",
            f"{100 * figures.covered:.1f} %",
            f"{100 * figures.wasted:.1f} %",
        )
        for figures in wastes
    ]
    output.table(
        "prefetch before the queries are known, at 1/4: by guess of the token between",
        ("", "there in time", "wasted"),
        rows,
    )
