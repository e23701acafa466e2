"""`speckv bench predictor`: how often the next token is predicted, beside other methods, and what a step takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb
from speckv_pynq.errors import ConfigError
from speckv_pynq.predictor import Predictor

if TYPE_CHECKING:
    from speckv_pynq.bench.models import Loaded
    from speckv_pynq.bench.predictor_accuracy import I64, Accuracy, Ranks

NAME = "predictor"
AGAIN = "code read again"
TIMES = ("p50_us", "p99_us", "single_p99_us", "python_p50_us", "python_p99_us")
VOCABULARIES = (49_152, 128_256, 152_064)  # SmolLM2's, Llama 3's, Qwen 2.5's

DESCRIPTION = """\
The token predictor, on held-out prose and code: is the next token among the first 1, 4, 8 that it names, of the whole
vocabulary? Beside it: the LSTM without what followed before, that alone (copying), n-grams trained on --train, and the
language model itself, which is the ceiling. "Code read again" is half a sequence of code twice, judged on its second
half: the text on which predictions come near to certainty. Then what a step takes on one core, by the C call and
through Python; and for other vocabularies, with random parameters.
"""
EPILOG = """\
examples:
  speckv bench predictor
  speckv bench predictor --prose book.txt --code program.py --train train.npy --sequences 40
  speckv bench predictor --no-ceiling --steps 10000 --sequences 4     a quick look

Default text: Python's documentation, and the sources of its modules. `scripts/predictor_text.py` makes the tokens that
the package's predictor was trained on. JSON keys: top1, top4, top8 (of prose and code), ceiling_top4, p50_us, p99_us
(the C call, over the steps, of each the median of several passes), single_p99_us (over all calls, one by one: with
what else the machine did), python_p50_us, python_p99_us, accuracy (of each text and method: top and interval, 95 % by
sequence), speed (of each vocabulary), multiply_adds, bytes (of the image), vocabulary.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME,
        help="the token predictor's accuracy and speed",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "--predictor", type=options.existing_file, metavar="FILE", help="default: SmolLM2's own"
    )
    for kind in ("prose", "code"):
        parser.add_argument(
            f"--{kind}", nargs="+", type=options.existing_file, default=[], metavar="FILE"
        )
    parser.add_argument(
        "--train",
        type=options.existing_file,
        metavar="FILE",
        help=".npy of token ids that the n-grams learn from; without it they are left out",
    )
    parser.add_argument("--no-ceiling", action="store_true", help="leave the language model out")
    options.add_counts(
        parser,
        ("sequences", 20, "of each text"),
        ("context", 1024, "tokens of a sequence"),
        ("steps", 100_000, "timed"),
    )
    options.add_model(parser)
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import models
    from speckv_pynq.prefetch.shipped import shipped

    predictor = Predictor.load(arguments.predictor) if arguments.predictor else shipped("smollm2")
    with output.waiting("loading the model"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
    vocabulary = loaded.model.config.get_text_config(decoder=True).vocab_size
    if vocabulary != predictor.vocabulary:
        raise ConfigError(
            f"the model has {vocabulary} tokens, the predictor was trained for {predictor.vocabulary}"
        )
    texts = dict(_texts(arguments, loaded))
    once = np.concatenate([found.ravel() for found in texts.values()])
    half = texts["code"][:, : arguments.context // 2]
    texts[AGAIN] = np.concatenate([half, half], axis=1)
    accuracy = _accuracy(arguments, output, predictor, loaded, texts)
    speed = _speed(arguments, output, predictor, once)
    of_all = {a.name: a for a in accuracy["all"]}
    ceiling = of_all.get("language model")
    own = speed[predictor.vocabulary]
    return {
        **{f"top{k}": share for k, share in of_all["predictor"].top.items()},
        "ceiling_top4": None if ceiling is None else ceiling.top[4],
        **{key: own[key] for key in TIMES},
        "accuracy": {text: [asdict(a) for a in found] for text, found in accuracy.items()},
        "speed": speed,
        "multiply_adds": predictor.multiply_adds,
        "bytes": own["image_bytes"],
        "vocabulary": predictor.vocabulary,
        "sequences": {text: len(found) for text, found in texts.items()},
        "context": arguments.context,
    }


def _texts(arguments: argparse.Namespace, loaded: Loaded) -> Iterator[tuple[str, I64]]:
    """(name, (sequences, context) token ids) of prose and code."""
    from speckv_pynq.bench import models, predictor_accuracy

    tokens = 2 * arguments.sequences * arguments.context
    own: dict[str, Callable[[], str]] = {
        "prose": lambda: models.prose(tokens),
        "code": predictor_accuracy.code,
    }
    for name, default in own.items():
        files: list[Path] = getattr(arguments, name)
        ids = models.read_ids(loaded, files) if files else [loaded.encode(default())]
        most = arguments.sequences * (arguments.context - 1)
        yield name, models.sequences(ids, arguments.context, most, seed=0).numpy()


def _accuracy(
    arguments: argparse.Namespace,
    output: Output,
    predictor: Predictor,
    loaded: Loaded,
    texts: dict[str, I64],
) -> dict[str, list[Accuracy]]:
    """Of each text and of all: the methods', and a table of them."""
    from speckv_pynq.bench import predictor_accuracy as judging

    methods: dict[str, Ranks] = {
        "predictor": judging.of_predictor(predictor),
        "LSTM alone": judging.of_predictor(judging.without_bonus(predictor)),
        "copying alone": judging.of_copying,
    }
    if arguments.train:
        with output.waiting("counting n-grams"):
            methods |= _ngrams(arguments.train, predictor.vocabulary)
    if not arguments.no_ceiling:
        methods["language model"] = judging.of_model(loaded)
    found: dict[str, list[Accuracy]] = {name: [] for name in (*texts, "all")}
    with output.progress("predicting", len(methods) * len(texts)) as advance:
        for name, method in methods.items():
            ranks: dict[str, I64] = {}
            for text, sequences in texts.items():
                ranks[text] = method(sequences)
                if text == AGAIN:
                    ranks[text] = ranks[text][:, sequences.shape[1] // 2 :]
                found[text].append(judging.judge(name, ranks[text]))
                advance()
            ranks.pop(AGAIN)
            found["all"].append(judging.judge(name, np.concatenate(list(ranks.values()))))
    for text, rows in found.items():
        of = [name for name in texts if name != AGAIN] if text == "all" else [text]
        count = sum(len(texts[name]) for name in of)
        output.table(
            f"{text}: {count} sequences of {arguments.context} tokens; share of next tokens among the first named",
            ("", "top-1", "top-4", "95 %", "top-8"),
            [_row(row) for row in rows],
        )
    return found


def _row(found: Accuracy) -> tuple[str, ...]:
    low, high = found.interval[4]
    first, four, eight = (f"{100 * found.top[k]:.1f} %" for k in (1, 4, 8))
    return found.name, first, four, f"{100 * low:.1f} .. {100 * high:.1f}", eight


def _ngrams(path: Path, vocabulary: int) -> dict[str, Ranks]:
    from speckv_pynq.bench import models, predictor_accuracy
    from speckv_pynq.bench.ngrams import NGrams

    tokens = np.concatenate([ids.numpy() for ids in models.read_array(path, vocabulary)])
    return {
        name: predictor_accuracy.of_shares(NGrams(tokens.astype(np.int32), vocabulary, order))
        for order, name in ((2, "bigram"), (5, "5-gram, Kneser-Ney"))
    }


def _speed(
    arguments: argparse.Namespace, output: Output, predictor: Predictor, tokens: I64
) -> dict[int, dict[str, Any]]:
    """Of this predictor on its text, and of random ones for other vocabularies; a table of them."""
    from speckv_pynq.bench import predictor_random, predictor_speed

    found = {predictor.vocabulary: predictor_speed.measure(predictor, arguments.steps, tokens)}
    with output.waiting("timing steps"):
        for vocabulary in VOCABULARIES:
            if vocabulary not in found:
                other = predictor_random.random_of(vocabulary)
                found[vocabulary] = predictor_speed.measure(other, arguments.steps)
    output.table(
        f"one step on one core, of {arguments.steps}: the whole C call ({predictor_speed.PASSES} times over, the "
        "median of each), single calls, and through Python",
        (
            "tokens in the vocabulary",
            "median",
            "99 %",
            "99 % of single calls",
            "prompt token",
            "Python",
            "99 %",
            "MACs",
            "of peak",
            "image",
        ),
        [
            (
                f"{vocabulary}",
                *(
                    f"{us:.2f} us"
                    for us in (
                        s.p50_us,
                        s.p99_us,
                        s.single_p99_us,
                        s.advance_p50_us,
                        s.python_p50_us,
                        s.python_p99_us,
                    )
                ),
                f"{s.multiply_adds}",
                f"{100 * s.peak_share:.0f} %",
                mb(s.image_bytes),
            )
            for vocabulary, s in found.items()
        ],
    )
    output.note(machine.one_line(machine.describe()))
    return {vocabulary: asdict(s) for vocabulary, s in found.items()}
