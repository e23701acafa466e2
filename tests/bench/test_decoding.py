"""Lanes and texts of the measurements."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from speckv_pynq.bench.decoding import Lane, decode, same_prefix  # noqa: E402
from speckv_pynq.bench.models import sequences  # noqa: E402
from speckv_pynq.errors import ConfigError  # noqa: E402


def test_same_prefix():
    assert same_prefix([], [1]) == 0
    assert same_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert same_prefix([1, 2], [1, 2]) == 2


class Counting(Lane):
    """Chooses the token after the one it is fed, and notes in `order` when."""

    def __init__(self, name, order, step):
        super().__init__(name, None, next_token=0)
        self.order, self.by = order, step

    def step(self, model, token=None):
        chosen = self.next_token if token is None else token
        self.tokens.append(chosen)
        self.next_token = chosen + self.by
        self.order.append(self.name)


def test_lanes_take_turns_and_run_free():
    order = []
    lanes = [Counting("a", order, 1), Counting("b", order, 2)]
    decode(None, lanes, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [lane.tokens for lane in lanes] == [[0, 1, 2], [0, 2, 4]]


def test_forced_lanes_take_what_the_first_chose():
    lanes = [Counting("a", [], 1), Counting("b", [], 2)]
    decode(None, lanes, 4, forced=True)
    assert lanes[0].tokens == lanes[1].tokens == [0, 1, 2, 3]


def test_sequences_are_distinct_pieces():
    got = sequences(torch.arange(105), 10, 27, seed=5)
    assert got.shape == (3, 10)  # 27 scored tokens: 9 of each
    assert {int(row[0]) % 10 for row in got} == {0}
    assert len({int(row[0]) for row in got}) == 3
    assert torch.equal(got, sequences(torch.arange(105), 10, 27, seed=5))
    assert sequences(torch.arange(105), 10, None, seed=5).shape == (10, 10)
    with pytest.raises(ConfigError, match="fewer than one context"):
        sequences(torch.arange(9), 10, None, seed=0)
