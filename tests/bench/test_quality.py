"""Sums, intervals and chunks against cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from speckv_pynq.bench.quality import Quality, bootstrap, chunks, score  # noqa: E402


def test_bootstrap_of_two_sequences():
    """Drawn anew they give no, half or all of the rise, with probability 1/4, 1/2, 1/4."""
    low, high = bootstrap(np.array([0, 100 * math.log(1.01)]), np.array([100.0, 100.0]), seed=0)
    assert low == 0
    assert high == pytest.approx(1.0)


def test_bootstrap_of_equal_sequences_is_a_point():
    low, high = bootstrap(np.full(9, 0.02 * 50), np.full(9, 50.0), seed=3)
    assert low == pytest.approx(100 * math.expm1(0.02))
    assert high == pytest.approx(low)


def test_bootstrap_agrees_with_the_normal_interval():
    rng = np.random.default_rng(7)
    extra = rng.normal(0.004, 0.01, 400)
    low, high = bootstrap(extra * 1000, np.full(400, 1000.0), seed=0)
    half = 1.96 * extra.std() / math.sqrt(400)
    assert low == pytest.approx(100 * math.expm1(extra.mean() - half), abs=0.01)
    assert high == pytest.approx(100 * math.expm1(extra.mean() + half), abs=0.01)


def test_bootstrap_is_seeded_and_needs_two():
    extra, tokens = np.random.default_rng(0).normal(size=20), np.full(20, 100.0)
    assert bootstrap(extra, tokens, 1) == bootstrap(extra, tokens, 1)
    assert bootstrap(extra, tokens, 1) != bootstrap(extra, tokens, 2)
    assert all(map(math.isnan, bootstrap(extra[:1], tokens[:1], 0)))


def test_score_of_two_positions():
    exact = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]).log()
    coded = torch.tensor([[[0.25, 0.5, 0.25], [0.1, 0.1, 0.8]]]).log()
    sums = score(exact, coded, torch.tensor([[0, 2]]))
    tokens, nll, coded_nll, agree, kl = sums[0]
    assert (tokens, agree) == (2, 1)
    assert nll == pytest.approx(-math.log(0.5) - math.log(0.8))
    assert coded_nll == pytest.approx(-math.log(0.25) - math.log(0.8))
    assert kl == pytest.approx(0.5 * math.log(2) + 0.25 * math.log(0.5))


def test_quality_of_sums():
    sums = np.array([[10.0, 20.0, 21.0, 9, 0.5], [30.0, 50.0, 51.0, 27, 1.5]])
    quality = Quality.of(sums, seed=0)
    assert (quality.tokens, quality.sequences) == (40, 2)
    assert quality.exact_ppl == pytest.approx(math.exp(70 / 40))
    assert quality.dppl_percent == pytest.approx(100 * (quality.ppl / quality.exact_ppl - 1))
    assert quality.agree_percent == pytest.approx(90)
    assert quality.kl_nats == pytest.approx(0.05)
    assert quality.dppl_low == pytest.approx(100 * math.expm1(1 / 30))
    assert quality.dppl_high == pytest.approx(100 * math.expm1(1 / 10))


@pytest.mark.parametrize("uncoded", [0, 4, 36])
@pytest.mark.parametrize("block_tokens", [16, 32])
@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (0, 300), (35, 36), (36, 300), (37, 68), (101, 257)]
)
def test_chunks_end_where_blocks_do(start, end, uncoded, block_tokens):
    """A token must see coded what it would see coded in decoding: the blocks that were full before it."""
    got = list(chunks(start, end, uncoded, block_tokens))
    assert [a for a, _ in got] + [end] == [start] + [b for _, b in got]

    def coded(tokens):
        return max(0, tokens - uncoded) // block_tokens

    for low, high in got:
        assert low < high
        assert coded(low) == coded(high - 1)
