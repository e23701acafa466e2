"""Algorithm 1: what is predicted follows the sequence, however it is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import PredictorError
from speckv_pynq.prefetch.speculation import Speculation
from tests.reference.predictors import random_predictor

pytestmark = pytest.mark.requires("libspeckv")
MODEL = replace(random_predictor(seed=5, spread=1), bonus=np.full((8, 4), 32767, np.int16))


@pytest.fixture(scope="module")
def device() -> Iterator[CsimDevice]:
    with CsimDevice(1) as opened:
        yield opened


@pytest.fixture
def speculation(device: CsimDevice) -> Iterator[Speculation]:
    with Speculation(device, MODEL, capacity=256, max_sequences=2) as opened:
        yield opened


def test_a_repeated_passage_points_behind_its_first_standing(speculation: Speculation) -> None:
    motif = [5, 17, 200, 31, 8, 99]
    tokens = [*motif, 1, 2, 3, *motif[:4]]
    assert speculation.positions(1, len(tokens), tokens)[0] == 4  # where motif[4] stands
    # The passage began at position 100 of the sequence: what the predictor has not seen has no position.
    assert speculation.positions(2, 100 + len(tokens), tokens)[0] == 104


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 6), min_size=4, max_size=60), st.lists(st.integers(1, 9), max_size=20)
)
def test_token_by_token_or_many_at_once_is_the_same(
    device: CsimDevice, tokens: list[int], steps: list[int]
) -> None:
    with Speculation(device, MODEL, 256, 2) as told, Speculation(device, MODEL, 256, 2) as whole:
        at = 0
        for step in [*steps, len(tokens)]:
            at = min(len(tokens), at + step)
            window = tokens[max(0, at - 16) : at] if at > 16 else tokens[:at]
            if step > 16:
                window = tokens[:at]
            found = told.positions(7, at, window)
            assert told.positions(7, at, window) == found  # each layer of a step asks
        assert found == whole.positions(7, len(tokens), tokens)
        assert all(0 <= p < len(tokens) for p in found)


def test_a_gap_or_a_crop_begins_anew(speculation: Speculation) -> None:
    speculation.positions(1, 8, [1, 2, 3, 4, 1, 2, 3, 4])
    assert speculation.positions(1, 20, [1, 2, 1])[0] == 18  # knows positions 17..19 alone
    assert speculation.positions(1, 4, [4, 3, 2, 4])[0] == 1


def test_the_request_followed_longest_ago_makes_room(speculation: Speculation) -> None:
    for request in (1, 2, 3):
        speculation.positions(request, 3, [1, 2, 1])
    assert speculation.positions(3, 3, [1, 2, 1])[0] == 1
    speculation.forget(3)
    speculation.forget(99)
    assert speculation.positions(1, 0, []) == ()


def test_a_token_outside_the_vocabulary_changes_nothing(speculation: Speculation) -> None:
    before = speculation.positions(1, 3, [1, 2, 1])
    for tokens in ([1, 2, 1, 300], [2, 1, -1]):
        with pytest.raises(PredictorError, match=r"0\.\.299"):
            speculation.positions(1, 4, tokens)
    with pytest.raises(PredictorError):
        speculation.positions(2, 1, [300])
    assert speculation.positions(1, 3, [1, 2, 1]) == before
