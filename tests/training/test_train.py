"""Training of the token predictor: what comes out predicts, and its integers do what the floats did."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from speckv_pynq import spec  # noqa: E402
from speckv_pynq.errors import ConfigError  # noqa: E402
from speckv_pynq.predictor.model import RANK  # noqa: E402
from speckv_pynq.reference.predictor import History, State, step  # noqa: E402
from speckv_pynq.training import Settings, train  # noqa: E402
from speckv_pynq.training.classes import classes_of  # noqa: E402
from speckv_pynq.training.export import predictor_of, sigmoid_table  # noqa: E402
from speckv_pynq.training.network import TokenNetwork  # noqa: E402
from speckv_pynq.training.settings import MULTIPLY_ADDS, plan  # noqa: E402

VOCABULARY = 64


def chain(count: int, seed: int) -> np.ndarray:
    """Tokens of which each is followed by one of two others."""
    rng = np.random.default_rng(seed)
    followers = np.random.default_rng(7).integers(0, VOCABULARY, (VOCABULARY, 2))
    tokens = [0]
    for choice in rng.integers(0, 2, count - 1).tolist():
        tokens.append(int(followers[tokens[-1], choice]))
    return np.array(tokens)


@pytest.fixture(scope="module")
def trained():
    lines: list[str] = []
    torch.set_num_threads(1)  # models this small lose by threads
    small = Settings(epochs=6, rows=16, steps=8, learning_rate=2e-2, always=16)
    made = train(chain(6_000, 0), VOCABULARY, small, lambda line, _: lines.append(line))
    return made, lines


def test_learns_what_follows(trained):
    made, lines = trained
    assert len(lines) == len(made.epochs)
    assert made.epochs[-1].fake
    assert (
        made.epochs[-1].held_out < 1.0
    )  # two followers, ln 2 = 0.69; knowing nothing, ln 64 = 4.2
    tokens, state, hits = chain(300, 1), State(History(512)), 0
    for token, following in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
        named = [c.token for c in step(made.predictor, state, token, 2)]
        hits += following in named
    assert hits > 0.9 * 299


def test_says_what_it_was_made_of(trained):
    made, _ = trained
    assert made.predictor.metadata["text_hash"] == made.digest
    assert int(made.predictor.metadata["trained_tokens"]) == made.tokens
    assert 0 < made.class_hit <= 1


def test_integers_score_as_the_floats_did():
    torch.manual_seed(0)
    network = TokenNetwork(VOCABULARY, 6)
    network.fake = True
    classes = np.arange(VOCABULARY, dtype=np.uint16) % 7
    nothing = np.zeros((spec.PREDICTOR_MATCH, spec.PREDICTOR_COUNT), np.int16)
    predictor = predictor_of(network, classes, 6, nothing)
    tokens, state = chain(40, 2), State(History(64))
    for token in tokens.tolist():
        found = step(predictor, state, token)
    with torch.no_grad():
        rows = network.fixed_rows()
        encoded, _ = network.encode(rows, torch.from_numpy(tokens)[None], None)
        logits = network.logits(rows, encoded[0, -1]).numpy()
    scores = np.array([c.score for c in found]) / 1024
    assert np.abs(scores - logits[[c.token for c in found]]).max() < 0.15


@given(st.integers(64, spec.PREDICTOR_MAX_VOCABULARY))
def test_every_vocabulary_stays_within_the_limit(vocabulary):
    parts = plan(vocabulary, 1024)
    lstm = 2 * (512 * (64 + 64) + 64 * 128)
    scored = parts.always + parts.classes + parts.opened * parts.size + spec.PREDICTOR_WALK
    assert lstm + 64 * scored <= MULTIPLY_ADDS
    assert parts.always + parts.classes * parts.size >= vocabulary


@settings(max_examples=20, deadline=None)
@given(st.integers(40, 400), st.integers(0, 99))
def test_classes_hold_all_others_and_none_too_many(vocabulary, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (vocabulary, RANK)).astype(np.float32)
    counts = rng.integers(0, 50, vocabulary)
    parts = plan(vocabulary, 16)
    sizes = np.bincount(classes_of(rows, counts, parts, seed), minlength=parts.classes + 1)
    assert sizes[-1] == parts.always
    assert sizes[:-1].max() <= parts.size


def test_the_sigmoid_is_one():
    table = sigmoid_table().astype(int)
    assert table[spec.PREDICTOR_SIGMOID // 2] == 1 << 14
    assert np.abs(table + table[::-1] - (1 << 15)).max() <= 64  # 1 / 128 at the steepest
    assert abs(table[0] / (1 << 15) - 1 / (1 + math.exp(8))) < 1e-4


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (np.zeros(10, int), "at least 1000"),
        (np.full(2000, VOCABULARY), "0..63"),
        (np.full(2000, -1), "-1..-1"),
    ],
)
def test_bad_tokens(tokens, words):
    with pytest.raises(ConfigError, match=words):
        train(tokens, VOCABULARY, Settings(), lambda *_: None)


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"always": 2}, {"minutes": 0}, {"learning_rate": math.nan}]
)
def test_bad_settings(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Settings(**bad)


def test_too_many_always_scored():
    with pytest.raises(ConfigError, match="multiply-accumulates"):
        plan(150_000, 4096)
