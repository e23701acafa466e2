"""How far a coded cache moves a model's predictions: per-sequence sums, and intervals from them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
RESAMPLES = 10_000
SUMS = 5  # tokens, exact nll, coded nll, same greedy token, KL


@dataclass(frozen=True)
class Quality:
    """Of a coded cache against the exact one, on the same tokens.

    dppl_percent: rise of perplexity, with its 95 % interval (NaN with a single sequence); agree_percent: positions
    where both would choose the same token; kl_nats: mean KL(exact || coded) of the next-token distributions.
    """

    tokens: int
    sequences: int
    exact_ppl: float
    ppl: float
    dppl_percent: float
    dppl_low: float
    dppl_high: float
    agree_percent: float
    kl_nats: float

    @classmethod
    def of(cls, sums: Floats, seed: int) -> Quality:
        """sums: (sequences, SUMS) as from `score`."""
        tokens, exact, coded, agree, kl = sums.sum(0)
        low, high = bootstrap(sums[:, 2] - sums[:, 1], sums[:, 0], seed)
        return cls(
            tokens=int(tokens),
            sequences=len(sums),
            exact_ppl=math.exp(exact / tokens),
            ppl=math.exp(coded / tokens),
            dppl_percent=100 * math.expm1((coded - exact) / tokens),
            dppl_low=low,
            dppl_high=high,
            agree_percent=100 * agree / tokens,
            kl_nats=kl / tokens,
        )


def bootstrap(
    extra_nll: Floats, tokens: Floats, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % interval of the rise of perplexity in percent: sequences are drawn anew, each with both its figures.

    extra_nll: (n,) coded minus exact negative log-likelihood, summed over each sequence; tokens: (n,).
    """
    n = len(extra_nll)
    if n < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    rises = 100 * np.expm1(counts @ extra_nll / (counts @ tokens))
    low, high = np.percentile(rises, [2.5, 97.5])
    return float(low), float(high)


def score(exact: torch.Tensor, coded: torch.Tensor, targets: torch.Tensor) -> Floats:
    """(rows, SUMS): sums over the positions of each row.

    exact, coded: log-probabilities, (rows, positions, vocabulary) float32; targets: (rows, positions) int64.
    """
    columns = [
        torch.full((len(targets),), targets.shape[1]),
        -exact.gather(2, targets[..., None]).sum((1, 2)),
        -coded.gather(2, targets[..., None]).sum((1, 2)),
        (exact.argmax(2) == coded.argmax(2)).sum(1),
        (exact.exp() * (exact - coded)).sum((1, 2)),
    ]
    return np.stack([column.double().cpu().numpy() for column in columns], axis=1)


def chunks(start: int, end: int, uncoded: int, block_tokens: int) -> Iterator[tuple[int, int]]:
    """[start, end) cut where decoding would code a block: each token then meets what it would meet there.

    uncoded: tokens that stay exact besides the unfinished block: sinks and the recent window. Of n tokens
    (n - uncoded) // block_tokens blocks are coded, and that number is the same throughout a chunk.
    """
    first = uncoded + block_tokens
    first += -(-(start + 1 - first) // block_tokens) * block_tokens if start >= first else 0
    bounds = [start, *range(first, end, block_tokens), end]
    yield from itertools.pairwise(bounds)
