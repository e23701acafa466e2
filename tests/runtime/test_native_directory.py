"""The native directory against its model: every answer, every block, every count, after every call."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speckv_pynq import spec
from speckv_pynq.errors import Fenced, LeaseError
from speckv_pynq.native.directory import Answer, Directory, DirectoryAgent, RecallKind
from speckv_pynq.reference.directory import DirectoryModel, Refused

pytestmark = pytest.mark.requires("libspeckv")
ROOT = Path(__file__).resolve().parents[2]
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

    def teardown(self) -> None:
        if hasattr(self, "pair"):
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


def test_a_write_lease_waits_for_every_reader_and_brings_the_write_back() -> None:
    directory = Directory(LEASE_NS)
    one, two, three = (directory.register(0) for _ in range(3))
    assert one.acquire([1], write=False, now_ns=0) == [Answer.GRANTED]
    assert two.acquire([1], write=False, now_ns=0) == [Answer.GRANTED]
    assert three.acquire([1], write=True, now_ns=5) == [Answer.WAITING]
    (recall,) = one.poll(now_ns=6)
    assert recall == (1, 105, RecallKind.INVALIDATE)
    assert one.deadline_ns == 105
    one.acknowledge([1])
    assert three.acquire([1], write=True, now_ns=7) == [Answer.WAITING]
    assert one.acquire([1], write=False, now_ns=7) == [Answer.BUSY]
    two.release([1], dirty=False)
    assert three.acquire([1], write=True, now_ns=8) == [Answer.GRANTED]
    assert one.acquire([1], write=False, now_ns=9) == [Answer.WAITING]
    assert three.poll(now_ns=10)[0].kind == RecallKind.DOWNGRADE
    three.write_back([1])
    assert directory.look(1).holders == {one.agent, three.agent}


def test_a_silent_writer_is_fenced_and_its_lost_write_reported_once() -> None:
    directory = Directory(LEASE_NS)
    zombie, other = directory.register(0), directory.register(0)
    zombie.acquire([3], write=True, now_ns=0)
    assert other.acquire([3], write=True, now_ns=50) == [Answer.WAITING]
    other.poll(now_ns=90)
    assert directory.expire(99) == frozenset()
    assert directory.expire(100) == {zombie.agent}
    assert other.acquire([3], write=True, now_ns=101) == [Answer.GRANTED]
    for call in (
        lambda: zombie.release([3], dirty=True),
        lambda: zombie.write_back([3]),
        lambda: zombie.acknowledge([3]),
        lambda: zombie.acquire([3], write=False, now_ns=101),
        lambda: zombie.poll(now_ns=101),
        zombie.fence,
    ):
        with pytest.raises(Fenced, match=f"epoch {zombie.epoch} is fenced"):
            call()
    assert directory.look(3).holders == {other.agent}
    assert directory.take_lost().tolist() == [3]
    assert directory.take_lost().tolist() == []
    again = directory.register(102)
    assert again.agent == zombie.agent
    assert again.epoch > other.epoch


def test_an_agent_that_polls_but_leaves_a_recall_unanswered_is_fenced() -> None:
    directory = Directory(LEASE_NS)
    lazy, other = directory.register(0), directory.register(0)
    lazy.acquire([1], write=False, now_ns=0)
    other.acquire([1], write=True, now_ns=10)
    for now_ns in range(20, 110, 30):
        assert len(lazy.poll(now_ns=now_ns)) == 1
        other.poll(now_ns=now_ns)
        assert lazy.deadline_ns == 110
        assert directory.expire(now_ns) == frozenset()
    assert directory.expire(110) == {lazy.agent}
    assert other.acquire([1], write=True, now_ns=111) == [Answer.GRANTED]
    assert directory.take_lost().size == 0  # it only read


def test_refusals_name_block_and_state_and_change_nothing() -> None:
    directory = Directory(LEASE_NS)
    agent = directory.register(0)
    agent.acquire([1, 2], write=True, now_ns=0)
    with pytest.raises(LeaseError, match=r"element 1: no lease for this on block 0x9 \(invalid\)"):
        agent.release([1, 9], dirty=False)
    with pytest.raises(ValueError, match="element 2"):
        agent.release([1, 2, 1], dirty=True)
    agent.write_back([2])
    with pytest.raises(LeaseError, match=r"block 0x2 \(exclusive\)"):
        agent.release([1, 2], dirty=True)
    assert directory.stats().leases == 2


@pytest.mark.parametrize("lease_ns", [0, 1 << 63, -1])
def test_a_wrong_lease_is_refused(lease_ns: int) -> None:
    with pytest.raises(ValueError, match=str(lease_ns)):
        Directory(lease_ns)


def test_the_65th_agent_is_refused() -> None:
    pair = Pair()
    for _ in range(spec.MAX_AGENTS + 1):
        pair.register(0)
    assert len(pair.agents) == spec.MAX_AGENTS


def test_a_closed_directory_is_refused() -> None:
    directory = Directory(LEASE_NS)
    agent = directory.register(0)
    directory.close()
    for call in (directory.stats, agent.fence, lambda: directory.look(1)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_memory_is_counted_and_given_back() -> None:
    directory = Directory(LEASE_NS)
    empty = directory.stats().metadata_bytes
    agent = directory.register(0)
    keys = np.arange(20_000, dtype=np.uint64) << np.uint64(28)
    agent.acquire(keys, write=False, now_ns=0)
    full = directory.stats().metadata_bytes
    assert 50 * len(keys) < full - empty < 100 * len(keys)
    agent.release(keys, dirty=False)
    assert directory.stats().metadata_bytes - empty < 20 * len(keys)  # buckets stay


HEADER_AND_FAULTS = [
    pytest.param(
        ["gcc", "-std=c11", "-fsyntax-only", "-x", "c", "{native}/speckv_directory.h"],
        id="header is C11",
        marks=pytest.mark.requires("gcc"),
    ),
    pytest.param(
        [
            "g++", "-std=c++17", "-g", "-fsanitize=address", "{here}/directory_faults.cpp", "{native}/directory.cpp",
            "{native}/directory_api.cpp", "-o", "{out}",
        ],
        id="allocations that fail",
        marks=[pytest.mark.requires("g++"), pytest.mark.sanitizer],
    ),
]  # fmt: skip


@pytest.mark.parametrize("command", HEADER_AND_FAULTS)
def test_compiled(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "program"
    places = {"native": ROOT / "speckv_pynq/native", "here": Path(__file__).parent, "out": out}
    flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"]
    paths = ["-I", str(places["native"]), "-I", str(ROOT / "hls/generated")]
    subprocess.run([c.format(**places) for c in command] + flags + paths, check=True)
    if out.exists():
        done = subprocess.run([out], check=False, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert "every allocation failed once" in done.stdout


def test_threads_see_one_writer_at_a_time() -> None:
    """Each agent's thread adds one to a block's value under write leases; none of the sums is lost."""
    directory, values, rounds = Directory(1 << 40), [0, 0], 60
    agents = [directory.register(0) for _ in range(4)]
    start = threading.Barrier(len(agents))

    def serve(agent: DirectoryAgent) -> None:
        for recall in agent.poll(now_ns=0):
            if recall.key in directory_holds[agent.agent]:
                directory_holds[agent.agent].discard(recall.key)
                agent.release([recall.key], dirty=True)

    def work(agent: DirectoryAgent) -> None:
        start.wait(timeout=10)
        for turn in range(rounds):
            key = turn % 2
            for _ in range(10**6):
                if agent.acquire([key], write=True, now_ns=0) == [Answer.GRANTED]:
                    break
                serve(agent)
            directory_holds[agent.agent].add(key)
            values[key] += 1
            serve(agent)
        for key in list(directory_holds[agent.agent]):
            agent.release([key], dirty=True)

    directory_holds: dict[int, set[int]] = {agent.agent: set() for agent in agents}
    threads = [threading.Thread(target=work, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert values == [len(agents) * rounds // 2] * 2
    assert directory.stats().leases == 0
