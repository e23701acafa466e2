"""What an evaluation is written as: figures for JSON, points of the picture, a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from speckv_pynq.bench.contenders import Contender, Scheme
from speckv_pynq.bench.curve import Point
from speckv_pynq.bench.evaluation import Evaluation

GIB = 1 << 30
PLAIN = "SpecKV, not calibrated"
COLUMNS = ("", "ratio_records", "ratio_held", "perplexity", "95 %", "same token", "KL, nats")


def figures(contender: Contender, result: Evaluation) -> dict[str, Any]:
    """One flat object. A scheme with a codebook also has its size, and the ratio with it spread over 1 GiB of cache."""
    flat = asdict(result)
    out = {**flat.pop("quality"), **flat, "ours": contender.ours}
    if isinstance(contender, Scheme) and contender.codebook_id:
        out["codebook"] = {
            "scope": contender.codebook_scope,
            "step": contender.codebook_step,
            "fingerprint": contender.codebook_id,
            "bytes": contender.codebook_bytes,
            "texts": contender.codebook_texts,
        }
        records = GIB / max(result.ratio_records, 1e-9)
        out["ratio_with_codebook"] = GIB / (records + contender.codebook_bytes)
    return out


def point(contender: Contender, result: Evaluation) -> Point:
    """Where a result stands in the picture."""
    family, label, joined = PLAIN, contender.name, False
    if isinstance(contender, Scheme) and contender.codebook_id:
        family, joined = f"{contender.scheme} {contender.codebook_scope}", True
        label = contender.name.removeprefix(family).strip() or contender.codebook_scope
    elif not contender.ours:
        family, _, bits = contender.name.partition("-")
        joined = bool(bits)
    quality = result.quality
    return Point(
        family=family,
        label=label,
        ours=contender.ours,
        joined=joined,
        ratio=result.ratio_records,
        dppl=quality.dppl_percent,
        low=quality.dppl_low,
        high=quality.dppl_high,
    )


def markdown(
    reports: Sequence[Mapping[str, Any]],
    left_out: Mapping[str, str],
    command: str,
    conditions: Mapping[str, str],
) -> str:
    """A page's section: the command, what it ran on, a table by rising ratio, ours first. reports: from `figures`."""
    first = reports[0]
    lines = [
        "```sh",
        command,
        "```",
        "",
        f"{date.today().isoformat()}: {first['tokens']:,} tokens scored in {first['sequences']} sequences; exact "
        f"perplexity {first['exact_ppl']:.4f}.",
        "",
        *(f"- {name}: {text}" for name, text in conditions.items()),
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    ordered = sorted(reports, key=lambda r: (not r["ours"], r["ratio_records"]))
    lines += [f"| {' | '.join(cells(report))} |" for report in ordered]
    lines += [f"| {name} | not measured: {reason} |" for name, reason in left_out.items()]
    with_codebook = [r for r in ordered if "codebook" in r]
    if with_codebook:
        lines += ["", "Codebooks, and the ratio with their bytes spread over 1 GiB of cache:", ""]
        lines += [
            f"- {r['name']}: {r['codebook']['bytes'] / 1e6:.1f} MB, {r['ratio_with_codebook']:.2f}; made from "
            f"{r['codebook']['texts'] or 'texts that it does not name'}"
            for r in with_codebook
        ]
    return "\n".join(lines) + "\n"


def conditions(asked: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, str]:
    """What a reader must know of a run. asked, machine: as in its JSON."""
    texts = ", ".join(Path(text).name for text in asked["texts"]) or "Python's own documentation"
    compute = asked["compute"] if asked["compute"] != "cpu" else machine["cpu"]
    return {
        "model": f"{Path(asked['model']).name}, {asked['dtype']}, on {compute}; codec: csim on {machine['cpu']}",
        "text": f"{texts}; sequences of {asked['context']:,} tokens, seed {asked['seed']}",
        "exact tokens": f"{asked['sinks']} sinks, {asked['recent']} recent, and the unfinished block of "
        f"{asked['block_tokens']}; QuantizedCache keeps its newest 128",
    }


def cells(report: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table, in the order of COLUMNS."""
    return (
        report["name"],
        f"{report['ratio_records']:.3f}",
        f"{report['ratio_held']:.3f}",
        f"{report['dppl_percent']:+.3f} %",
        f"{report['dppl_low']:+.3f} .. {report['dppl_high']:+.3f}",
        f"{report['agree_percent']:.2f} %",
        f"{report['kl_nats']:.2e}",
    )
