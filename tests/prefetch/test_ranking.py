"""The ranker: what is always chosen, what the choice depends on, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.errors import ConfigError, ShapeError
from speckv_pynq.prefetch.pointers import Pointers, following, joined, standing
from speckv_pynq.prefetch.ranking import DEFAULT, Ranker

pytestmark = pytest.mark.requires("libspeckv")

KV_HEADS, Q_HEADS, HEAD_DIM, BLOCK = 2, 4, 8, 16


def decoded(seed: int, rows: int, tokens: int, steps: int, budget: int, take=None, **named):
    """A ranker after some steps of sparse decoding, and what it chose at each."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(0, 2, (rows, KV_HEADS, tokens + steps, HEAD_DIM)).astype(np.float32)
    queries = rng.normal(size=(steps, rows, Q_HEADS, HEAD_DIM)).astype(np.float32)
    if take is not None:
        keys, queries, rows = keys[take], queries[:, take], len(take)
    ranker = Ranker(1, rows, KV_HEADS, HEAD_DIM, **named)
    ranker.extend(0, keys[:, :, :tokens])
    chosen = []
    for step in range(steps):
        ranker.extend(0, keys[:, :, tokens + step, None])
        blocks = ranker.choose(0, queries[step], budget)
        mass = (blocks + 1.0).astype(np.float32)
        ranker.observe(0, blocks, mass / mass.sum(1, keepdims=True))
        chosen.append(blocks)
    return ranker, chosen


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000), rows=st.integers(1, 3), tokens=st.integers(1, 300),
    budget=st.integers(3, 30), sinks=st.integers(0, 2), padding=st.integers(0, 40),
)  # fmt: skip
def test_budget_holds_and_sinks_and_newest_are_in(seed, rows, tokens, budget, sinks, padding):
    pads = np.minimum(np.arange(rows) * padding, tokens - 1)
    ranker, chosen = decoded(
        seed, rows, tokens, 4, max(budget, sinks + 2), sink_blocks=sinks, padding=pads
    )
    for step, blocks in enumerate(chosen):
        there = -(-(tokens + step + 1) // BLOCK)
        assert blocks.shape == (rows, min(max(budget, sinks + 2), there))
        for row, read in enumerate(blocks):
            assert (np.diff(read) > 0).all()
            first = pads[row] // BLOCK
            must = {*range(first, min(first + sinks, there)), *range(max(0, there - 2), there)}
            assert must <= set(read.tolist())
            if there - first >= blocks.shape[1]:
                assert read[0] >= first  # nothing of padding alone
    assert ranker.ahead(0, ranker.forced(0)).shape[1] == ranker.forced(0)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), order=st.permutations(range(3)))
def test_rows_are_independent_and_runs_repeat(seed, order):
    _, chosen = decoded(seed, 3, 200, 5, 6)
    _, again = decoded(seed, 3, 200, 5, 6, take=list(order))
    _, alone = decoded(seed, 3, 200, 5, 6, take=[order[0]])
    for one, two, single in zip(chosen, again, alone, strict=True):
        np.testing.assert_array_equal(one[list(order)], two)
        np.testing.assert_array_equal(two[:1], single)


def test_select_and_crop_keep_what_was_learned():
    ranker, _ = decoded(1, 2, 300, 3, 6)
    before = ranker.ahead(0, 8)
    ranker.select(np.array([1, 0, 1]))
    np.testing.assert_array_equal(ranker.ahead(0, 8), before[[1, 0, 1]])
    ranker.crop(200)
    assert ranker.blocks(0) == 13
    assert ranker.ahead(0, 8).max() == 12


def test_blocks_that_drew_attention_are_chosen_again():
    ranker, _ = decoded(2, 1, 320, 1, 21, weights=replace(DEFAULT, keys=0, misled=0, age=0))
    mass = np.full((1, 21), 0.001, np.float32)
    mass[0, [4, 9]] = 0.45
    for _ in range(3):
        ranker.observe(0, np.arange(21)[None], mass)
    np.testing.assert_array_equal(ranker.ahead(0, 5), [[0, 4, 9, 19, 20]])


def test_what_is_not_read_is_not_forgotten():
    ranker, _ = decoded(2, 1, 320, 1, 21, weights=replace(DEFAULT, keys=0, misled=0, age=0))
    mass = np.full((1, 21), 0.001, np.float32)
    mass[0, 9] = 0.9
    ranker.observe(0, np.arange(21)[None], mass)
    for _ in range(20):
        ranker.observe(0, np.array([[0, 19, 20]]), np.full((1, 3), 1 / 3, np.float32))
    assert 9 in ranker.ahead(0, 4)


def test_keys_that_answer_the_query_are_chosen():
    ranker = Ranker(1, 1, KV_HEADS, HEAD_DIM)
    keys = np.zeros((1, KV_HEADS, 320, HEAD_DIM), np.float32)
    keys[:, :, 100, 3] = 30
    ranker.extend(0, keys)
    query = np.zeros((1, Q_HEADS, HEAD_DIM), np.float32)
    query[:, :, 3] = 1
    assert 100 // BLOCK in ranker.choose(0, query, 4)


def test_pointers_raise_their_blocks():
    ranker, _ = decoded(3, 1, 320, 1, 21, weights=replace(DEFAULT, pointed=100))
    there = Pointers(np.array([[-1, 117, 5000]]), np.ones((1, 3), np.float32))
    assert 117 // BLOCK in ranker.ahead(0, 4, there)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 3))
def test_following_and_standing_are_where_the_tokens_say(tokens, guess):
    row, ones = np.array([tokens]), np.ones((1, 1), np.float32)
    after = following(row, np.array([[guess]]), ones)
    where = standing(row, np.array([[guess]]), ones)
    assert {p - 1 for p in after.positions[0].tolist()} == set(where.positions[0].tolist())
    assert where.positions[0].tolist() == [i for i, token in enumerate(tokens) if token == guess]
    pairs = after.weights[0] > 1
    for place, pair in zip(after.positions[0] - 1, pairs, strict=True):
        assert pair == (place > 0 and tokens[place - 1] == tokens[-1])
    assert joined(after, where).positions.shape[1] == 2 * where.positions.shape[1]


def test_bad_input_is_told_and_changes_nothing():
    ranker, _ = decoded(4, 2, 200, 2, 6)
    before = ranker.ahead(0, 6)
    with pytest.raises(ConfigError, match="budget_blocks 2 < 3"):
        ranker.choose(0, np.zeros((2, Q_HEADS, HEAD_DIM), np.float32), 2)
    with pytest.raises(ShapeError, match=r"keys \(2, 2, 1, 9\)"):
        ranker.extend(0, np.zeros((2, 2, 1, 9), np.float32))
    with pytest.raises(ShapeError, match=r"query \(1, 4, 8\)"):
        ranker.choose(0, np.zeros((1, Q_HEADS, HEAD_DIM), np.float32), 6)
    with pytest.raises(ShapeError, match="mass"):
        ranker.observe(0, np.zeros((2, 3), np.int64), np.zeros((2, 2), np.float32))
    with pytest.raises(ConfigError, match="sink_blocks -1"):
        Ranker(1, 1, 1, 8, sink_blocks=-1)
    np.testing.assert_array_equal(ranker.ahead(0, 6), before)
