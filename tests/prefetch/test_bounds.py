"""Key bounds: laws that hold for any keys, and the native promise against the same sums in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.prefetch.bounds import KeyBounds

pytestmark = pytest.mark.requires("libspeckv")

ROWS, KV_HEADS, GROUP, BLOCK = 2, 2, 3, 16
lengths = st.lists(st.integers(1, 70), min_size=1, max_size=4)
dims = st.sampled_from((8, 20, 64))


def drawn(seed: int, head_dim: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    keys = rng.normal(0, 2, (ROWS, KV_HEADS, tokens, head_dim)).astype(np.float32)
    return keys, rng.normal(size=(ROWS, KV_HEADS * GROUP, head_dim)).astype(np.float32)


def held(keys: np.ndarray, steps: list[int]) -> KeyBounds:
    bounds = KeyBounds(ROWS, KV_HEADS, keys.shape[3], BLOCK)
    at = 0
    for tokens in steps:
        bounds.extend(keys[:, :, at : at + tokens])
        at += tokens
    return bounds


def products(keys: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(rows, q_heads, tokens)."""
    grouped = query.reshape(ROWS, KV_HEADS, GROUP, -1)
    return (grouped @ keys.swapaxes(2, 3)).reshape(ROWS, KV_HEADS * GROUP, -1)


def by_block(values: np.ndarray, reduce: np.ufunc) -> np.ndarray:
    return reduce.reduceat(values, np.arange(0, values.shape[-1], BLOCK), axis=-1)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), head_dim=dims, steps=lengths)
def test_no_product_is_above_its_bound(seed, head_dim, steps):
    keys, query = drawn(seed, head_dim, sum(steps))
    most = held(keys, steps).most(query)
    assert (by_block(products(keys, query), np.maximum) <= most + 1e-4).all()


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), steps=lengths, cut=st.floats(0, 1), more=st.integers(1, 40))
def test_bounds_hold_behind_a_crop(seed, steps, cut, more):
    """Of a block cut in two only bits are left, but its bounds are still bounds, and it goes on from there."""
    keys, query = drawn(seed, 8, sum(steps) + more)
    bounds = held(keys, steps)
    kept = max(1, int(cut * bounds.length))
    bounds.crop(kept)
    bounds.extend(keys[:, :, -more:])
    now = np.concatenate((keys[:, :, :kept], keys[:, :, -more:]), axis=2)
    assert (by_block(products(now, query), np.maximum) <= bounds.most(query) + 1e-4).all()
    assert bounds.promise(query, 1.0).shape == (ROWS, -(-(kept + more) // BLOCK))


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), head_dim=dims, steps=lengths, scale=st.floats(0.05, 1))
def test_promise_is_softmax_over_middles_of_halves(seed, head_dim, steps, scale):
    keys, query = drawn(seed, head_dim, sum(steps))
    known = keys.copy()
    for at in range(0, keys.shape[2] - BLOCK + 1, BLOCK):  # the unfinished block is exact
        block = keys[:, :, at : at + BLOCK]
        low, high = block.min(2, keepdims=True), block.max(2, keepdims=True)
        part = np.where(block > (low + high) / 2, 0.75, 0.25)
        known[:, :, at : at + BLOCK] = low + part * (high - low)
    scores = products(known.astype(np.float64), scale * query)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    want = by_block(shares, np.add).mean(1)
    got = held(keys, steps).promise(query, scale)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), steps=lengths)
def test_steps_of_any_size_give_the_same(seed, steps):
    keys, query = drawn(seed, 20, sum(steps))
    one, many = held(keys, [sum(steps)]), held(keys, steps)
    assert one.promise(query, 0.2).tobytes() == many.promise(query, 0.2).tobytes()
    assert one.most(query).tobytes() == many.most(query).tobytes()


def test_select_takes_rows_along():
    keys, query = drawn(0, 20, 100)
    bounds = held(keys, [100])
    before = bounds.promise(query, 0.2)
    bounds.select(np.array([1, 1, 0]))
    np.testing.assert_array_equal(bounds.promise(query[[1, 1, 0]], 0.2), before[[1, 1, 0]])
