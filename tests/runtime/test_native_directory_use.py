"""The native directory as an agent meets it: leases, recalls, fencing, refusals, memory, threads."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.errors import Fenced, LeaseError
from speckv_pynq.native.directory import Answer, Directory, DirectoryAgent, RecallKind

pytestmark = pytest.mark.requires("libspeckv")
ROOT = Path(__file__).resolve().parents[2]
LEASE_NS = 100


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
    with pytest.raises(ValueError, match="element 2: block 0x1 stands twice"):
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
    directory = Directory(LEASE_NS)
    numbers = [directory.register(0).agent for _ in range(spec.MAX_AGENTS)]
    assert numbers == list(range(spec.MAX_AGENTS))
    with pytest.raises(ValueError, match="65 against the limit 64"):
        directory.register(0)


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
