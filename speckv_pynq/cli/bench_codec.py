"""`speckv bench codec`: encode and decode speed on real cache data, one core."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from speckv_pynq import spec
from speckv_pynq.bench import machine
from speckv_pynq.cli import options
from speckv_pynq.cli.output import Output, mb

NAME = "codec"

DESCRIPTION = """\
Encodes and decodes the cache of a real text (FP16, sinks left out) with every scheme on one csim engine, beside memcpy,
zstd, lz4 and blosc2 on one thread. Schemes code blocks of 32 tokens; the general-purpose codecs get a whole layer at a
time. klt only where there is a codebook for the model. Rounds are interleaved; medians. Speeds count FP16 bytes. Of klt
also: its range coder alone, and the share of this core's 16-bit multipliers that it uses.
"""
EPILOG = """\
examples:
  speckv bench codec
  speckv bench codec --tokens 6000 --repeats 15 --json codec.json

JSON: `results`, a list of {scheme, encode_gb_s, decode_gb_s, ratio, exact, raw_fallbacks}; `bytes`; `blocks`;
with a codebook `klt_parts` {entropy_decode_gb_s, macs_per_byte, peak_gmac_s, encode_peak_share, decode_peak_share}.
"""


def register(benches: options.Commands) -> None:
    parser = benches.add_parser(
        NAME,
        help="encode and decode GB/s beside other codecs",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    options.add_text(parser)
    options.add_counts(parser, ("repeats", 7, "rounds"))
    options.add_codebook(parser)
    options.add_model(parser)
    options.add_measurement(parser, NAME, measure)


def measure(arguments: argparse.Namespace, output: Output) -> dict[str, Any]:
    from speckv_pynq.bench import codec, models

    tokens = arguments.tokens + codec.SINKS
    with output.waiting("filling a real cache"):
        loaded = models.load(arguments.model, arguments.dtype, arguments.compute)
        ids = models.text_ids(loaded, arguments.text, tokens)
        blocks = codec.cache_blocks(loaded, ids, spec.BLOCK_TOKENS)
        codebook = options.codebook(arguments, loaded.model)
    with output.progress("measuring codecs", (arguments.repeats + 1) * codec.CASES) as advance:
        rates, parts = codec.measure(blocks, arguments.repeats, codebook, advance)
    count = blocks.shape[0] * blocks.shape[1]
    rows = [
        (
            rate.scheme,
            f"{rate.encode_gb_s:.2f}",
            f"{rate.decode_gb_s:.2f}",
            f"{rate.ratio:.3f}",
            "yes" if rate.exact else "no",
            "" if rate.exact else f"{rate.raw_fallbacks} of {count}",
        )
        for rate in rates
    ]
    output.table(
        f"GB/s of FP16 on one core: cache of {loaded.name}, {arguments.tokens} tokens, {mb(blocks.nbytes)}; "
        f"median of {arguments.repeats}",
        ("", "encode", "decode", "ratio", "exact", "blocks kept raw"),
        rows,
    )
    shares = {}
    if parts is not None:
        klt = next(rate for rate in rates if rate.scheme == "klt")
        shares = {
            **asdict(parts),
            "encode_peak_share": parts.peak_share(klt.encode_gb_s),
            "decode_peak_share": parts.peak_share(klt.decode_gb_s),
        }
        output.note(
            f"klt: range decoding alone {parts.entropy_decode_gb_s:.2f} GB/s; {parts.macs_per_byte:.0f} "
            f"multiply-accumulates a byte; of the {parts.peak_gmac_s:.0f} GMAC/s that one core can do, encoding "
            f"uses {100 * shares['encode_peak_share']:.0f} %, decoding {100 * shares['decode_peak_share']:.0f} %"
        )
    output.note(machine.one_line(machine.describe()))
    return {
        "model": loaded.name,
        "bytes": blocks.nbytes,
        "blocks": count,
        "codebook": None if codebook is None else f"{codebook.fingerprint:016x}",
        "repeats": arguments.repeats,
        "results": [asdict(rate) for rate in rates],
        **({"klt_parts": shares} if shares else {}),
    }
