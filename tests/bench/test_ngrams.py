"""Kneser-Ney n-grams: shares are shares, and what was seen is what is likely."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.bench.ngrams import DISCOUNT, NGrams

TOKENS = st.lists(st.integers(0, 7), min_size=8, max_size=80)


@settings(deadline=None)
@given(TOKENS, st.integers(2, 5), st.lists(st.integers(0, 8), min_size=1, max_size=6))
def test_shares_sum_to_one(tokens, order, context):
    shares = NGrams(np.array(tokens), 9, order).shares(np.array(context))
    assert abs(shares.sum() - 1) < 1e-9
    assert shares.min() > 0


@given(TOKENS)
def test_a_bigram_is_the_formula(tokens):
    found = NGrams(np.array(tokens), 8, 2)
    pairs = list(itertools.pairwise(tokens))
    kinds = set(pairs)
    alone = np.array([sum(b == t for _, b in kinds) + 0.1 for t in range(8)])
    alone /= alone.sum()
    first = tokens[0]
    follow = [b for a, b in pairs if a == first]
    want = DISCOUNT * len(set(follow)) / len(follow) * alone
    for token in set(follow):
        want[token] += (follow.count(token) - DISCOUNT) / len(follow)
    assert np.allclose(found.shares(np.array([first])), want)


def test_the_longest_context_decides():
    tokens = np.array([1, 2, 3, 4, 5] * 20 + [9, 3, 7] * 20)
    found = NGrams(tokens, 10, 5)
    assert found.shares(np.array([1, 2, 3])).argmax() == 4
    assert found.shares(np.array([7, 9, 3])).argmax() == 7
