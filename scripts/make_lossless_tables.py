"""Tables of scheme `lossless`: python scripts/make_lossless_tables.py writes hls/lossless_tables.toml.

They are part of the record format: once records exist, they never change. Counted on the cache of SmolLM2 in FP16 and
in BF16, reading Python's documentation and Python's own sources. What is counted is relative to a channel's own past,
so that the tables serve other models too.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import torch

from speckv_pynq.bench import models
from speckv_pynq.bench.codec import SINKS
from speckv_pynq.bench.lossless import cache_bits
from speckv_pynq.reference import lossless
from speckv_pynq.spec import BLOCK_TOKENS, ENTROPY_BITS, DType

OUTPUT = Path(__file__).parents[1] / "hls/lossless_tables.toml"
TOKENS = 2048  # of each text and dtype
PROSE_FROM = 40_000  # `speckv bench` reads the beginning
SLOTS = 1 << ENTROPY_BITS
PRIOR = 50.0  # of all contexts together, so that rare ones have sensible tables
SOURCES = ("argparse.py", "ast.py", "asyncio/base_events.py", "decimal.py", "inspect.py")


def texts(loaded: models.Loaded) -> list[torch.Tensor]:
    """Token ids of prose, then of code; four more than TOKENS, for the sinks."""
    library = Path(sysconfig.get_paths()["stdlib"])
    prose = loaded.encode(models.prose(PROSE_FROM + 2 * TOKENS))[PROSE_FROM:]
    code = loaded.encode("\n".join((library / name).read_text() for name in SOURCES))
    return [models.need_tokens(ids, TOKENS + SINKS, "the text") for ids in (prose, code)]


def count(name: str, dtype: DType) -> np.ndarray:
    """Symbols by context in SmolLM2's caches of that dtype: float64 (CONTEXTS, SYMBOLS)."""
    loaded, layout = models.load("smollm2", name), lossless.LAYOUTS[dtype]
    out = np.zeros(lossless.CONTEXTS * lossless.SYMBOLS)
    for ids in texts(loaded):
        blocks = cache_bits(loaded, ids, BLOCK_TOKENS)
        for kind in blocks.reshape(-1, *blocks.shape[3:]):
            tops = kind.reshape(BLOCK_TOKENS, -1).astype(np.int64) >> layout.rest_bits
            context, symbol = lossless.symbols(tops, lossless.base_of(tops, layout), layout)
            index = (context * lossless.SYMBOLS + symbol).reshape(-1)
            out += np.bincount(index, minlength=len(out))
    return out.reshape(lossless.CONTEXTS, lossless.SYMBOLS)


def frequencies(counts: np.ndarray) -> np.ndarray:
    """counts, float64 (SYMBOLS,) -> integers of at least 1 that sum to SLOTS."""
    out = 1 + np.floor(counts / counts.sum() * (SLOTS - lossless.SYMBOLS)).astype(np.int64)
    out[np.argmax(out)] += SLOTS - out.sum()
    return out


def main() -> None:
    torch.set_num_threads(2)
    counts = count("fp16", DType.FP16) + count("bf16", DType.BF16)
    overall = counts[: lossless.FIRST].sum(axis=0)
    counts += PRIOR * (overall + 1) / (overall + 1).sum()
    rows = ["".join(f"{f:03x}" for f in frequencies(row)) for row in counts]
    lines = "".join(f'  "{row}",\n' for row in rows)
    OUTPUT.write_text(
        "# Frequencies of scheme lossless: a row a context, three hexadecimal digits a symbol. Made by\n"
        f"# scripts/make_lossless_tables.py; part of the record format.\nfrequencies = [\n{lines}]\n"
    )


if __name__ == "__main__":
    main()
