"""The coherence protocol, searched whole for a few agents: what it promises holds, and a wrong entry is found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from speckv_pynq import spec
from speckv_pynq.reference.directory import DirectoryModel, Table
from speckv_pynq.spec import DirectoryAction as Action
from speckv_pynq.spec import DirectoryEvent as Event
from speckv_pynq.spec import DirectoryState as State
from tests.reference.directory_search import explore
from tests.reference.directory_world import Violation, begin

LEGAL = [(s, e) for s in State for e in Event if spec.DIRECTORY_TABLE[s][e].legal]


class Wrong(NamedTuple):
    """One entry of the table changed."""

    state: State
    event: Event
    next: State
    actions: Action

    def table(self) -> Table:
        rows = [list(row) for row in spec.DIRECTORY_TABLE]
        rows[self.state][self.event] = spec.DirectoryTransition(True, self.next, self.actions)
        return rows

    def is_found(self) -> bool:
        try:
            explore(begin((0, 0), table=self.table()))
            explore(begin((0, 0, 0), table=self.table()), limit=8_000)
            explore(begin((1, 0), table=self.table()))
            explore(begin((1, 0, 0), table=self.table()), limit=60_000)
        except Violation:
            return True
        return False


def wrong_entries() -> Iterator[Wrong]:
    """Each legal entry with another next state, and with one action left out."""
    for state, event in LEGAL:
        _, following, actions = spec.DIRECTORY_TABLE[state][event]
        for other in State:
            # S for E loses nothing but knowledge: a lone reader upgrades from both without a recall.
            if other != following and (following, other) != (State.EXCLUSIVE, State.SHARED):
                yield Wrong(state, event, other, actions)
        for action in Action:  # busy alone does nothing; the generator asks for it
            if action in actions and action != Action.BUSY:
                yield Wrong(state, event, following, actions & ~action)


def test_two_agents_one_of_which_may_fall_silent() -> None:
    assert explore(begin((1, 0))) > 20_000


def test_three_agents_as_far_as_time_allows() -> None:
    assert explore(begin((0, 0, 0)), limit=6_000) == 6_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lives", [(1, 1), (2, 0), (0, 0, 0)], ids=str)
def test_more_agents_and_silences(lives: tuple[int, ...]) -> None:
    assert explore(begin(lives)) > 40_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_blocks() -> None:
    assert explore(begin((1, 0), blocks=2), limit=300_000) > 100_000


@pytest.mark.parametrize("seed", range(2))
def test_a_wrong_entry_is_found(seed: int) -> None:
    quick = [w for w in wrong_entries() if w.event not in (Event.FENCE, Event.FENCE_LAST)]
    for wrong in random.Random(seed).sample(quick, 6):
        assert wrong.is_found(), wrong


def test_a_fence_that_reports_no_loss_is_found() -> None:
    wrong = Wrong(State.MODIFIED, Event.FENCE_LAST, State.INVALID, Action.DROP)
    with pytest.raises(Violation, match="lost reported for set"):
        explore(begin((1, 0), table=wrong.table()))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cell", LEGAL, ids=lambda c: f"{c[0].name}-{c[1].name}".lower())
def test_every_wrong_entry_is_found(cell: tuple[State, Event]) -> None:
    for wrong in wrong_entries():
        if (wrong.state, wrong.event) == cell:
            assert wrong.is_found(), wrong


def test_a_message_of_an_old_epoch_is_refused_after_the_number_is_used_again() -> None:
    home = DirectoryModel(10)
    number, epoch = home.register(0)
    home.fence(number, epoch)
    assert home.register(0) == (number, epoch + 1)
    with pytest.raises(Exception, match=f"agent {number} of epoch {epoch} is fenced"):
        home.acquire(number, epoch, 0, True, [1])
    assert home.blocks == {}
