"""When idle units return: what is learned against what was drawn, the index against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.errors import ConfigError
from speckv_pynq.prefetch.return_times import AGES_S, BINS, LEAST_SPAN_S, ReturnTimes, best_rates
from speckv_pynq.prefetch.returns import ReturnPredictor

Turn = tuple[int, float, str]  # unit, gap, kind


def learned(gaps: list[float], kind: str = "") -> ReturnPredictor:
    """From one unit each, that was away so long and is gone then."""
    predictor = ReturnPredictor()
    for unit, gap in enumerate(gaps):
        predictor.began(unit, 0.0)
        predictor.ended(unit, 0.0, kind=kind)
        predictor.began(unit, gap)
        predictor.forget(unit)
    return predictor


def idle(predictor: ReturnPredictor, unit: int, now_s: float, kind: str = "") -> None:
    predictor.began(unit, now_s)
    predictor.ended(unit, now_s, kind=kind)


@pytest.mark.parametrize("mean_s", [1.5, 40.0])
def test_exponential_absences_are_learned_as_such(mean_s: float) -> None:
    """No memory: at any age the same worth, one over the mean; and chances of an exponential."""
    predictor = learned(np.random.default_rng(0).exponential(mean_s, 6000).tolist())
    idle(predictor, -1, 0.0)
    for age_s in (0.0, mean_s / 2, mean_s):
        assert predictor.worth([-1], age_s)[0] == pytest.approx(1 / mean_s, rel=0.2)
        for window_s in (mean_s / 2, mean_s, 2 * mean_s):
            ((_, chance),) = predictor.likely(age_s, window_s, 0.0)
            assert chance == pytest.approx(1 - math.exp(-window_s / mean_s), abs=0.04)


def test_those_that_stay_away_are_counted() -> None:
    predictor = ReturnPredictor()
    for unit in range(2000):  # half of them come back after a second
        idle(predictor, unit, 0.0)
    for unit in range(0, 2000, 2):
        predictor.began(unit, 1.0)
    for i in range(600):  # others, so that absences that go on are looked at
        idle(predictor, 5000, 1e4 + 2 * i)
        predictor.began(5000, 1e4 + 2 * i + 1)
        predictor.forget(5000)
    idle(predictor, -1, 2e4)
    chance = dict(predictor.likely(2e4, 10.0, 0.0))[-1]
    assert chance == pytest.approx((1000 + 600) / 2600, abs=0.05)


def test_sooner_is_worth_more_and_long_gone_less() -> None:
    predictor = learned([1.0] * 100, "tool")
    for unit in range(100):
        idle(predictor, 1000 + unit, 0.0, "person")
        predictor.began(1000 + unit, 300.0)
        predictor.forget(1000 + unit)
    idle(predictor, -1, 0.0, "tool")
    idle(predictor, -2, 0.0, "person")
    tool, person, unknown = predictor.worth([-1, -2, -3], 0.1)
    assert tool > 10 * person > unknown == 0
    assert predictor.worth([-1], 500.0)[0] < predictor.worth([-2], 200.0)[0]
    predictor.began(-2, 10.0)
    assert predictor.worth([-2], 10.0)[0] == math.inf


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=BINS, max_size=BINS))
def test_the_index_is_the_best_of_all_spans(hazards: list[float]) -> None:
    survival = np.append(1.0, np.cumprod(1 - np.minimum(hazards, 0.99)))
    widths = np.append(np.diff(AGES_S), AGES_S[-1])
    rates = best_rates(survival)
    for first in range(0, BINS, 5):
        spans = []
        held = 0.0
        for end in range(first, BINS):
            held += widths[end] * (survival[end] + survival[end + 1]) / 2
            length = AGES_S[end] + widths[end] - AGES_S[first]
            whole = AGES_S[-1] + widths[-1] - AGES_S[first]
            if length >= min(whole, max(LEAST_SPAN_S, AGES_S[first])) - 1e-6:
                spans.append((survival[first] - survival[end + 1]) / held)
        assert rates[first] == pytest.approx(max(spans), rel=1e-6, abs=1e-12)


TURNS = st.lists(
    st.tuples(st.integers(0, 5), st.floats(0, 1e5), st.sampled_from(["", "tool", "x"])),
    max_size=60,
)


def replay(turns: list[Turn]) -> tuple[ReturnPredictor, float]:
    predictor, now_s = ReturnPredictor(), 0.0
    for unit, gap, kind in turns:
        now_s += gap
        predictor.began(unit, now_s)
        predictor.ended(unit, now_s, kind=kind)
    return predictor, now_s


@settings(max_examples=30, deadline=None)
@given(TURNS, st.floats(0, 1e6), st.floats(0.1, 1e4))
def test_chances_are_chances_and_the_same_again(
    turns: list[Turn], later_s: float, window_s: float
) -> None:
    predictor, now_s = replay(turns)
    again, _ = replay(turns)
    units = list(range(-1, 6))
    worth = predictor.worth(units, now_s + later_s)
    assert worth.tolist() == again.worth(units, now_s + later_s).tolist()
    assert (worth >= 0).all()
    assert np.isfinite(worth).all()
    found = predictor.likely(now_s + later_s, window_s, 0.0)
    assert {unit for unit, _ in found} == {unit for unit, _, _ in turns}
    chances = [chance for _, chance in found]
    assert chances == sorted(chances, reverse=True)
    assert all(0 <= chance <= 1 for chance in chances)
    wider = dict(predictor.likely(now_s + later_s, 2 * window_s, 0.0))
    assert all(wider[unit] >= chance - 1e-9 for unit, chance in found)


def test_a_part_has_the_past_of_the_whole() -> None:
    predictor, now_s = replay([(0, 1.0, "")] * 5)
    predictor.split(0, 1)
    worth = predictor.worth([0, 1], now_s + 3.0)
    assert worth[0] == worth[1] > 0
    with pytest.raises(ConfigError, match="unit 1"):
        predictor.split(0, 1)
    predictor.split(77, 78)  # of what is not known, nothing is known
    assert len(predictor) == 2


def test_turns_overlap_and_what_is_unknown_does_not_end() -> None:
    predictor = ReturnPredictor()
    with pytest.raises(ConfigError, match="unit 4"):
        predictor.ended(4, 0.0)
    predictor.began(4, 0.0)
    predictor.began(4, 1.0)
    predictor.ended(4, 2.0)
    assert predictor.worth([4], 3.0)[0] == math.inf
    predictor.ended(4, 4.0)
    assert math.isfinite(predictor.worth([4], 5.0)[0])
    predictor.forget(4)
    predictor.forget(4)
    assert len(predictor) == 0


def test_a_new_class_leans_on_the_broader_one() -> None:
    times = ReturnTimes()
    broad = times.place((("a", False), 0, 0))
    for _ in range(200):
        times.returned(broad, 0, 1.0)
    narrow, other = times.place((("a", False), 0, 3)), times.place((("b", True), 0, 0))
    near = times.chance(np.array([narrow, other]), np.zeros(2), 2.0)
    assert near[0] > 0.9
    assert near[1] > 0.5  # what is known of all
