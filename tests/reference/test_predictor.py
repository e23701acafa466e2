"""The token predictor's oracle and its file."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.errors import PredictorError
from speckv_pynq.predictor import Predictor
from speckv_pynq.predictor.model import HIDDEN, RANK
from speckv_pynq.reference.predictor import NOWHERE, History, State, step
from tests.reference.predictors import random_predictor

MODEL = random_predictor()
SEQUENCES = st.lists(st.integers(0, 9), min_size=1, max_size=60)


def float_step(model: Predictor, token: int, p: np.ndarray, c: np.ndarray) -> None:
    """A step of the LSTM with projections in floats by the textbook; changes p and c."""
    below = model.rows[token] / 32
    for layer in (0, 1):
        gates = model.input[layer] / 64 @ below + model.recurrent[layer] / 64 @ p[layer]
        gates += model.bias[layer] / 8192
        i, f, g, o = gates.reshape(4, HIDDEN)
        i, f, o = (1 / (1 + np.exp(-x)) for x in (i, f, o))
        c[layer] = f * c[layer] + i * np.tanh(g)
        p[layer] = below = model.projection[layer] / 64 @ (o * np.tanh(c[layer]))


def test_integers_follow_the_lstm_in_floats() -> None:
    model, state = random_predictor(spread=6, seed=3), State(History(64))
    p, c = np.zeros((2, RANK)), np.zeros((2, HIDDEN))
    for token in np.random.default_rng(0).integers(0, model.vocabulary, 30).tolist():
        float_step(model, token, p, c)
        step(model, state, token)
    assert np.abs(state.p / 32 - p).max() < 0.1
    assert np.abs(state.c / 4096 - c).max() < 0.05


@given(SEQUENCES, st.integers(4, 80))
def test_followers_are_what_followed_the_newest_token(tokens: list[int], capacity: int) -> None:
    history = History(capacity)
    for token in tokens:
        history.push(token)
    newest = len(tokens) - 1
    for token, (match, count, position) in history.followers().items():
        assert tokens[position] == token
        assert history.oldest < position <= newest
        assert 1 <= match <= 8
        assert 1 <= count <= 4
        assert tokens[position - match : position] == tokens[newest - match + 1 :]
    for token in set(tokens):
        at = history.last(token)
        assert at == NOWHERE or (tokens[at] == token and token not in tokens[at + 1 :])


@settings(deadline=None, max_examples=30)
@given(SEQUENCES, st.integers(1, 8))
def test_candidates_come_best_first_and_once(tokens: list[int], top: int) -> None:
    state = State(History(32))
    for token in tokens:
        found = step(MODEL, state, token, top)
    order = [(-c.score, c.token) for c in found]
    assert order == sorted(set(order))
    assert len({c.token for c in found}) == len(found) == top
    for candidate in found:
        assert candidate.position == NOWHERE or tokens[candidate.position] == candidate.token


def test_a_long_repetition_is_followed() -> None:
    model = replace(random_predictor(spread=1), bonus=np.full((8, 4), 32767, np.int16))
    state, motif = State(History(256)), [5, 17, 200, 31, 8, 99, 123, 250, 77]
    hits = [step(model, state, token)[0].token for token in motif * 3]
    assert hits[len(motif) : -1] == (motif * 3)[len(motif) + 1 :]


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    model = replace(MODEL, metadata={"text": "none"})
    model.save(tmp_path / "p.safetensors")
    found = Predictor.load(tmp_path / "p.safetensors")
    assert found.fingerprint == model.fingerprint
    assert found.metadata["text"] == "none"
    assert found.multiply_adds == model.multiply_adds


@settings(deadline=None, max_examples=150)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, at: float, flip: int, cut: bool
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "p.safetensors"
    MODEL.save(path)
    data = bytearray(path.read_bytes())
    place = int(at * len(data))
    if cut:
        del data[place:]
    else:
        data[place] ^= flip
    path.write_bytes(data)
    with contextlib.suppress(PredictorError):
        assert Predictor.load(path).fingerprint == MODEL.fingerprint  # a byte that means nothing


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(PredictorError, match="codes holds"):
        replace(MODEL, codes=np.full_like(MODEL.codes, 9))
    with pytest.raises(PredictorError, match="projection is"):
        replace(MODEL, projection=MODEL.projection[:, :, :5])
    with pytest.raises(PredictorError, match="always scored"):
        replace(MODEL, classes=np.zeros_like(MODEL.classes))
    with pytest.raises(PredictorError, match="opened 9"):
        replace(MODEL, opened=9)
    with pytest.raises(ValueError, match="token 300"):
        step(MODEL, State(History(8)), 300)
