"""What a step of the predictor takes: figures that belong together."""

from __future__ import annotations

import math

import numpy as np

from speckv_pynq.bench.predictor_speed import measure, zipf_tokens
from tests.reference.predictors import random_predictor


def test_measured_figures_belong_together() -> None:
    model = random_predictor()
    speed = measure(model, steps=300, tokens=zipf_tokens(100, model.vocabulary), python_steps=20)
    assert speed.steps == 300
    assert 0 < speed.p50_us <= speed.p99_us
    assert 0 < speed.advance_p50_us < speed.p99_us
    assert speed.python_p50_us > speed.p50_us
    assert speed.multiply_adds == model.multiply_adds
    assert math.isnan(speed.peak_share) or 0 < speed.peak_share < 1


def test_tokens_without_text_stay_in_the_vocabulary_and_repeat() -> None:
    tokens = zipf_tokens(2000, 500)
    assert tokens.max() < 500
    assert np.bincount(tokens).max() > 200
    assert (tokens == zipf_tokens(2000, 500)).all()
