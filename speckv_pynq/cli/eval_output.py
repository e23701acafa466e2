"""What `speckv eval` gives out: the table, the picture, the Markdown, the figures."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speckv_pynq import spec
from speckv_pynq.bench import curve, machine, report
from speckv_pynq.bench.contenders import Contender, Scheme
from speckv_pynq.bench.evaluation import Evaluation
from speckv_pynq.bench.models import Loaded
from speckv_pynq.cli.output import Output

# Options that decide what is measured, and their defaults.
DEFAULTS = {
    "model": "smollm2",
    "dtype": "fp32",
    "compute": "cpu",
    "context": 2048,
    "max_tokens": 50_000,
    "seed": 0,
    "sinks": 4,
    "recent": 32,
    "block_tokens": spec.BLOCK_TOKENS,
    "attention": "dense",
    "budget": None,
    "prefill": None,
    "scheme": None,
    "rival": None,
    "codebook": [],
    "text": None,
}
ASKED = ("attention", "prefill", "context", "batch", "seed", "sinks", "recent", "block_tokens")


@dataclass(frozen=True)
class Found:
    """What was measured on which model, and what could not be and why."""

    loaded: Loaded
    contenders: Sequence[Contender]
    results: Sequence[Evaluation]
    left_out: Mapping[str, str]


def show(found: Found, context: int, seconds: float, output: Output) -> None:
    """The table on the terminal."""
    first = found.results[0].quality
    rows = [
        (
            *report.cells(report.figures(contender, result)),
            f"{result.raw_fallbacks} / {result.blocks}",
            f"{result.read_percent:.1f} %",
        )
        for contender, result in zip(found.contenders, found.results, strict=True)
    ]
    output.table(
        f"{found.loaded.name}: {first.tokens} tokens scored in {first.sequences} sequences of {context}; "
        f"exact perplexity {first.exact_ppl:.4f}",
        ("scheme", "records", "held", "dppl", "95 %", "agree", "KL nats", "kept raw", "read"),
        rows,
    )
    output.note(
        "records: FP16 bytes of coded blocks / bytes of their records; held: FP16 bytes of all / all bytes held; "
        "read: of the coded blocks, by a token in a layer"
    )
    for name, reason in found.left_out.items():
        output.note(f"{name} is left out: {reason}")
    output.note(f"{seconds:.0f} s; {machine.one_line(machine.describe())}")


def write(found: Found, arguments: argparse.Namespace, output: Output) -> None:
    """The picture, the Markdown and the figures, as far as they were asked for."""
    loaded = found.loaded
    _warn(found, arguments, output)
    pairs = list(zip(found.contenders, found.results, strict=True))
    reports = [report.figures(*pair) for pair in pairs]
    asked = {
        "model": loaded.name,
        "dtype": loaded.dtype,
        "compute": loaded.processor,
        **{name: getattr(arguments, name) for name in ASKED},
        "texts": [str(path) for path in arguments.text or ()],
    }
    if arguments.curve:
        title = f"{Path(loaded.name).name} ({loaded.dtype}), {reports[0]['tokens']:,} tokens"
        title += f", context {arguments.context:,}"
        curve.save([report.point(*pair) for pair in pairs], title, arguments.curve)
        output.note(f"picture: {arguments.curve}")
    if arguments.markdown:
        conditions = report.conditions(asked, machine.describe())
        text = report.markdown(reports, found.left_out, command(arguments), conditions)
        arguments.markdown.write_text(text)
        output.note(f"table: {arguments.markdown}")
    figures = {**reports[0], **asked, "results": reports, "left_out": dict(found.left_out)}
    beside = arguments.curve.with_suffix(".json") if arguments.curve else None
    output.json("eval", figures, beside)


def _warn(found: Found, arguments: argparse.Namespace, output: Output) -> None:
    """Where a figure may be of text that the codebook was made from: by file names, which is all that it keeps."""
    names = {path.name for path in arguments.text or ()}
    for contender in found.contenders:
        if not isinstance(contender, Scheme) or not contender.codebook_id:
            continue
        same = names & set(contender.codebook_texts.split())
        if same:
            output.note(
                f"{contender.name} was calibrated on {', '.join(sorted(same))}: its figures say little of other text"
            )
        elif not names:
            output.note(
                f"{contender.name} was made from {contender.codebook_texts or 'unnamed texts'}: if Python's "
                "documentation is among them, its figures say little of other text; give --text"
            )


def command(arguments: argparse.Namespace) -> str:
    """The command line, but for where output goes; of files only their names."""
    parts = ["speckv", "eval", *(["--curve"] if arguments.curve else [])]
    for name, default in DEFAULTS.items():
        value = getattr(arguments, name)
        if value == default:
            continue
        option = "--" + name.replace("_", "-")
        shown = [Path(str(v)).name for v in (value if isinstance(value, list) else [value])]
        if name == "text":
            parts += [option, *shown]
        else:
            parts += [part for each in shown for part in (option, each)]
    return shlex.join(parts)
