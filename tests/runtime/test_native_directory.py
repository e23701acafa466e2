"""The native directory against its model: every answer, every block, every count, after every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speckv_pynq import spec
from speckv_pynq.errors import Fenced, LeaseError
from speckv_pynq.native.directory import Answer, Directory, DirectoryAgent, RecallKind
from speckv_pynq.reference.directory import DirectoryModel, Refused

pytestmark = pytest.mark.requires("libspeckv")
LEASE_NS = 100
REFUSALS = (Fenced, LeaseError, ValueError)


class Pair:
    """A directory and its model, given the same calls."""

    def __init__(self) -> None:
        self.native, self.model = Directory(LEASE_NS), DirectoryModel(LEASE_NS)
        self.agents: list[DirectoryAgent] = []  # by the order of registration, fenced ones too

    def register(self, now_ns: int) -> None:
        try:
            number, epoch = self.model.register(now_ns)
        except Refused:
            with pytest.raises(ValueError, match="65 against the limit 64"):
                self.native.register(now_ns)
            return
        agent = self.native.register(now_ns)
        assert (agent.agent, agent.epoch) == (number, epoch)
        assert agent.deadline_ns == self.model.agents[number].deadline_ns
        self.agents.append(agent)

    def acquire(self, i: int, now_ns: int, write: bool, keys: list[int]) -> None:
        agent = self.agents[i]

        def both() -> None:
            want = self.model.acquire(agent.agent, agent.epoch, now_ns, write, keys)
            got = agent.acquire(keys, write=write, now_ns=now_ns)
            assert [Answer(a).name for a in got] == [a.name for a in want]
            assert agent.deadline_ns == self.model.deadline_ns(agent.agent)

        self._or_refused(both, lambda: agent.acquire(keys, write=write, now_ns=now_ns))

    def give(self, i: int, what: str, keys: list[int]) -> None:
        agent, model = self.agents[i], self.model
        calls: dict[str, tuple[Callable[..., None], Callable[[], None]]] = {
            "clean": (
                lambda *a: model.release(*a, False, keys),
                lambda: agent.release(keys, dirty=False),
            ),
            "dirty": (
                lambda *a: model.release(*a, True, keys),
                lambda: agent.release(keys, dirty=True),
            ),
            "write_back": (
                lambda *a: model.write_back(*a, keys),
                lambda: agent.write_back(keys),
            ),
            "ack": (lambda *a: model.acknowledge(*a, keys), lambda: agent.acknowledge(keys)),
        }
        of_model, of_native = calls[what]

        def both() -> None:
            of_model(agent.agent, agent.epoch)
            of_native()

        self._or_refused(both, of_native)

    def poll(self, i: int, now_ns: int) -> None:
        agent = self.agents[i]

        def both() -> None:
            want, deadline_ns = self.model.poll(agent.agent, agent.epoch, now_ns)
            got = agent.poll(now_ns=now_ns)
            assert [(r.key, r.deadline_ns, r.kind == RecallKind.DOWNGRADE) for r in got] == want
            assert agent.deadline_ns == deadline_ns
            assert agent.poll(now_ns=now_ns, most=1) == got[:1]

        self._or_refused(both, lambda: agent.poll(now_ns=now_ns))

    def fence(self, i: int) -> None:
        agent = self.agents[i]

        def both() -> None:
            self.model.fence(agent.agent, agent.epoch)
            agent.fence()

        self._or_refused(both, agent.fence)

    def expire(self, now_ns: int) -> None:
        assert self.native.expire(now_ns) == self.model.expire(now_ns)

    def take_lost(self) -> None:
        assert set(self.native.take_lost().tolist()) == self.model.take_lost()

    def _or_refused(self, both: Callable[[], None], of_native: Callable[[], Any]) -> None:
        try:
            both()
        except Refused:
            with pytest.raises(REFUSALS):
                of_native()

    def check(self, keys: range) -> None:
        for key in keys:
            block = self.model.block(key)
            deadline_ns = 0 if block.waiter is None else block.deadline_ns
            want = (block.state, block.holders, block.waiter, deadline_ns, block.lost)
            view = self.native.look(key)
            assert want == (view.state, view.holders, view.waiter, view.deadline_ns, view.lost)
        stats, model = self.native.stats(), self.model
        held = sum(len(block.holders) for block in model.blocks.values())
        assert (stats.agents, stats.blocks, stats.leases) == (
            len(model.agents), len(model.blocks), held,
        )  # fmt: skip
        counts = (stats.grants, stats.recalls, stats.write_backs, stats.fenced, stats.lost)
        assert counts == (
            model.grants, model.recalls, model.write_backs, model.fenced, model.lost,
        )  # fmt: skip


class DirectoryMachine(RuleBasedStateMachine):
    """Random calls, with times that pass and go back, keys that stand twice, agents that are fenced."""

    KEYS = range(5)
    keys = st.lists(st.sampled_from(KEYS), min_size=0, max_size=3)
    agent = st.integers(0, 5)

    @initialize(agents=st.integers(2, 4))
    def begin(self, agents: int) -> None:
        self.pair, self.now_ns = Pair(), 0
        for _ in range(agents):
            self.pair.register(0)

    def pick(self, place: int) -> int:
        """Mostly of the newest, which live."""
        return max(0, len(self.pair.agents) - 1 - place)

    @rule(step_ns=st.integers(-20, 60))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns = max(0, self.now_ns + step_ns)

    @precondition(lambda self: len(self.pair.model.agents) < 5)
    @rule()
    def register(self) -> None:
        self.pair.register(self.now_ns)

    @rule(place=agent, write=st.booleans(), keys=keys)
    def acquire(self, place: int, write: bool, keys: list[int]) -> None:
        self.pair.acquire(self.pick(place), self.now_ns, write, keys)

    @rule(place=agent, what=st.sampled_from(["clean", "dirty", "write_back", "ack"]), keys=keys)
    def give_any(self, place: int, what: str, keys: list[int]) -> None:
        self.pair.give(self.pick(place), what, keys)

    @rule(place=agent, what=st.sampled_from(["clean", "dirty", "write_back", "ack"]))
    def give_held(self, place: int, what: str) -> None:
        agent = self.pair.agents[self.pick(place)]
        blocks = self.pair.model.blocks.items()
        held = [key for key, block in blocks if agent.agent in block.holders]
        self.pair.give(self.pick(place), what, held[:2])

    @rule(place=agent)
    def poll(self, place: int) -> None:
        self.pair.poll(self.pick(place), self.now_ns)

    @rule()
    def expire(self) -> None:
        self.pair.expire(self.now_ns)

    @rule(place=agent)
    def fence(self, place: int) -> None:
        self.pair.fence(self.pick(place))

    @rule()
    def take_lost(self) -> None:
        self.pair.take_lost()

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check(self.KEYS)

    def no_wait_outlives_its_recall(self) -> None:
        """Whoever waits, polls and answers its own recalls is served when the recall's deadline passes."""
        model = self.pair.model
        waiting = [key for key, block in model.blocks.items() if block.waiter is not None]
        for key in waiting[:1]:
            waiter, deadline_ns = model.block(key).waiter, model.block(key).deadline_ns
            epoch = model.agents[waiter].epoch
            (i,) = (i for i, agent in enumerate(self.pair.agents) if agent.epoch == epoch)
            now_ns = max(self.now_ns, model.now_ns, deadline_ns - 1)
            recalls, _ = model.poll(waiter, epoch, now_ns)
            self.pair.give(i, "clean", [recall.key for recall in recalls])
            self.pair.poll(i, now_ns)
            self.pair.expire(max(now_ns, deadline_ns))
            assert waiter in model.block(key).holders
            assert model.block(key).waiter != waiter
            self.pair.check(self.KEYS)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.no_wait_outlives_its_recall()
            for i in range(len(self.pair.agents)):
                self.pair.fence(i)
            self.pair.take_lost()
            self.pair.check(self.KEYS)
            assert self.pair.native.stats().blocks == 0


TestDirectoryMachine = DirectoryMachine.TestCase
TestDirectoryMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


class Call(NamedTuple):
    """A call of Pair."""

    name: str
    arguments: tuple[Any, ...]


def calls(agents: int) -> list[Call]:
    """Everything that can be asked about one block."""
    out = [Call("take_lost", ())]
    for i in range(agents):
        out += [Call("acquire", (i, 0, write, [7])) for write in (False, True)]
        out += [Call("give", (i, what, [7])) for what in ("clean", "dirty", "write_back", "ack")]
        out += [Call("poll", (i, 0)), Call("fence", (i,))]
    return out


def after(agents: int, path: tuple[Call, ...]) -> Pair:
    pair = Pair()
    for _ in range(agents):
        pair.register(0)
    for call in path:
        getattr(pair, call.name)(*call.arguments)
    return pair


@pytest.mark.parametrize("agents", [2, 3])
def test_every_call_in_every_state_of_one_block(agents: int) -> None:
    """All sequences of calls of any length, in effect: each state of the home once, each call in it."""

    def state(pair: Pair) -> tuple:
        block = pair.model.block(7)
        return block.state, block.holders, block.waiter, block.lost, frozenset(pair.model.agents)

    seen, paths = {state(after(agents, ()))}, [()]
    for path in paths:
        for call in calls(agents):
            pair = after(agents, (*path, call))
            pair.check(range(7, 8))
            if state(pair) not in seen:
                seen.add(state(pair))
                paths.append((*path, call))
    assert {reached[0] for reached in seen} == set(spec.DirectoryState)
