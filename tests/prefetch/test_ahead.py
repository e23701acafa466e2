"""What is brought up ahead stays within room and within what may be in vain."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.errors import ConfigError
from speckv_pynq.prefetch.ahead import MARGIN, ReturnsAhead
from speckv_pynq.prefetch.returns import ReturnPredictor


def known(gap_s: float, units: int = 10) -> ReturnPredictor:
    """Units that are idle since 1000 s, after returns that took gap_s."""
    return copy.deepcopy(_known(gap_s, units))


@functools.cache
def _known(gap_s: float, units: int) -> ReturnPredictor:
    predictor = ReturnPredictor()
    for i in range(20):
        for unit in range(units):
            predictor.began(unit, i * gap_s)
            predictor.ended(unit, i * gap_s)
    for unit in range(units):
        predictor.began(unit, 20 * gap_s)
        predictor.ended(unit, 1000.0)
    return predictor


def test_those_sure_to_return_come_up_as_far_as_there_is_room() -> None:
    ahead = ReturnsAhead(known(2.0), window_s=10.0)
    assert ahead.choose(lambda unit: 7 if unit else 0, 1000.0, 30) == [1, 2, 3, 4]
    assert ahead.up_bytes == 28
    assert ahead.choose(lambda unit: 7, 1000.5, 0) == []
    assert ahead.began(3)
    assert not ahead.began(3)
    assert ahead.settle(1011.0) == [1, 2, 4]
    assert (ahead.used_bytes, ahead.wasted_bytes, ahead.up_bytes) == (7, 21, 0)
    assert ahead.waste == 0.75


def test_those_that_return_later_do_not() -> None:
    assert ReturnsAhead(known(16.0), window_s=1.0).choose(lambda unit: 1, 1000.0, 100) == []


def test_after_waste_less_comes_up() -> None:
    """Nothing ever returns, whatever the past says."""
    predictor = known(2.0, units=200)
    ahead = ReturnsAhead(predictor, window_s=10.0)
    now_s = 1000.0
    for _ in range(50):
        ahead.choose(lambda unit: 10, now_s, 20)
        now_s += 11.0
    ahead.settle(now_s)
    assert 0 < ahead.wasted_bytes <= 40


@settings(max_examples=40, deadline=None)
@given(
    limit=st.floats(0, 1),
    seed=st.integers(0, 99),
    returning=st.floats(0, 1),
    room=st.integers(0, 50),
)
def test_doubt_stays_under_the_limit(limit: float, seed: int, returning: float, room: int) -> None:
    rng = np.random.default_rng(seed)
    predictor = known(3.0, units=30)
    ahead = ReturnsAhead(predictor, 5.0, limit)
    now_s, up, wasted, total = 1000.0, dict[int, int](), 0, 0
    for _ in range(10):
        wasted += sum(up.pop(unit) for unit in ahead.settle(now_s))
        chosen = ahead.choose(lambda unit: unit + 1, now_s, room)
        assert sum(unit + 1 for unit in chosen) <= room
        assert not set(chosen) & set(up)
        up.update({unit: unit + 1 for unit in chosen})
        total += sum(unit + 1 for unit in chosen)
        if chosen:
            assert wasted <= MARGIN * limit * total
        for unit in list(up):
            if rng.random() < returning:
                assert ahead.began(unit)
                del up[unit]
        now_s += 2.0
        assert ahead.up_bytes == sum(up.values())
        assert ahead.wasted_bytes == wasted


def test_settings_out_of_range() -> None:
    for window_s, limit in ((0.0, 0.2), (1.0, -0.1), (1.0, 1.1), (float("nan"), 0.2)):
        with pytest.raises(ConfigError):
            ReturnsAhead(ReturnPredictor(), window_s, limit)
