"""What the bench of coherence_directory expects: the reference directory with a bounded number of entries.

An eviction is the home asking for a write lease as a further agent, and giving it up as soon as it is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from speckv_pynq.reference.crc32c import crc32c
from speckv_pynq.reference.directory import Agent, Answer, Block, DirectoryModel, Refused
from speckv_pynq.spec import DirectoryAction as Action
from speckv_pynq.spec import DirectoryEvent as Event
from speckv_pynq.spec import DirectoryState as State
from speckv_pynq.spec import HomeAnswer, HomeRequest

HOME = 1000  # the home's number among the agents
FOREVER = 1 << 62
ANSWERS = {
    Answer.GRANTED: HomeAnswer.GRANTED,
    Answer.WAITING: HomeAnswer.WAITING,
    Answer.BUSY: HomeAnswer.BUSY,
}


class Request(NamedTuple):
    op: HomeRequest
    agent: int
    key: int = 0


class Notice(NamedTuple):
    """What the home says about one block; recalled: bit set of agents; served: an agent or None."""

    key: int
    recalled: int = 0
    downgrade: bool = False
    evict: bool = False
    served: int | None = None
    write: bool = False
    lost: bool = False


class Applied(NamedTuple):
    key: int
    state: State
    event: Event
    actions: Action
    waiter: int | None


class RecordingModel(DirectoryModel):
    """Tells which cells of the table were applied."""

    def __init__(self) -> None:
        super().__init__(lease_ns=1)
        self.applied: list[Applied] = []

    def _apply(self, key: int, event: Event, agent: int) -> Action:
        block = self.block(key)
        actions = super()._apply(key, event, agent)
        waiter = None if Action.SERVE not in actions else block.waiter
        self.applied.append(Applied(key, block.state, event, actions, waiter))
        return actions


class ExpectedHome:
    """entries_of: key -> set; ways: of each set."""

    def __init__(self, set_of: Callable[[int], int], ways: int) -> None:
        self.set_of, self.ways = set_of, ways
        self.model = RecordingModel()
        self.model.agents[HOME] = Agent(0, FOREVER)

    def block(self, key: int) -> Block:
        return self.model.block(key)

    def neighbours(self, key: int) -> dict[int, Block]:
        """The blocks that hold entries of the key's set."""
        return {
            k: b
            for k, b in self.model.blocks.items()
            if b.state != State.INVALID and self.set_of(k) == self.set_of(key)
        }

    def victims(self, request: Request) -> list[int] | None:
        """None: there is room. Otherwise the keys of which one is evicted: none where one already is, or where
        all are waited for."""
        inside = self.neighbours(request.key)
        asks = request.op in (HomeRequest.GET_SHARED, HomeRequest.GET_MODIFIED)
        joined = request.agent in self.model.agents
        if not (asks and joined) or request.key in inside or len(inside) < self.ways:
            return None
        if any(block.waiter == HOME for block in inside.values()):
            return []
        return [key for key, block in inside.items() if block.waiter is None]

    def evict(self, key: int) -> Notice:
        self.model.acquire(HOME, 0, 0, True, [key])
        return self._notices()[0]

    def ask(self, request: Request) -> tuple[HomeAnswer, list[Notice]]:
        """Of a request for which `victims` is None."""
        answer = self._answer(request)
        for key, block in list(self.model.blocks.items()):
            if HOME in block.holders:
                self.model.release(HOME, 0, False, [key])
                self.model.applied.pop()
                assert self.block(key).state == State.INVALID
        self.model.take_lost()
        return answer, self._notices()

    def _answer(self, request: Request) -> HomeAnswer:
        op, agent, key = request
        model = self.model
        if op == HomeRequest.JOIN:
            if agent in model.agents:
                return HomeAnswer.REFUSED
            model.agents[agent] = Agent(0, FOREVER)
            return HomeAnswer.DONE
        try:
            if op in (HomeRequest.GET_SHARED, HomeRequest.GET_MODIFIED):
                write = op == HomeRequest.GET_MODIFIED
                return ANSWERS[model.acquire(agent, 0, 0, write, [key])[0]]
            if op == HomeRequest.FENCE:
                model.fence(agent, 0)
            elif op == HomeRequest.ACK:
                model.acknowledge(agent, 0, [key])
            elif op == HomeRequest.WRITE_BACK:
                model.write_back(agent, 0, [key])
            else:
                model.release(agent, 0, op == HomeRequest.PUT_DIRTY, [key])
        except Refused:
            return HomeAnswer.REFUSED
        return HomeAnswer.DONE

    def _notices(self) -> list[Notice]:
        notices = []
        for key, _, _, actions, waiter in self.model.applied:
            block = self.block(key)
            served = waiter if waiter != HOME else None
            recall = Action.RECALL in actions
            if recall or Action.LOST in actions or served is not None:
                notices.append(
                    Notice(
                        key,
                        sum(1 << a for a in block.recalled()) if recall else 0,
                        recall and block.state == State.DOWNGRADE_PENDING,
                        recall and block.waiter == HOME,
                        served,
                        served is not None and block.state == State.MODIFIED,
                        Action.LOST in actions,
                    )
                )
        return notices

    def cells(self) -> list[tuple[State, Event]]:
        """Cells of the table applied since the last call."""
        cells = [(a.state, a.event) for a in self.model.applied]
        self.model.applied.clear()
        return cells


def set_of(sets: int) -> Callable[[int], int]:
    """Where a directory of that many sets keeps a key."""
    return lambda key: crc32c(key.to_bytes(12, "little")) % sets
