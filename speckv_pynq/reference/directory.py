"""The directory in plain Python, from the coherence table of the spec: oracle of the native one and of RTL.

Same calls, same answers as speckv_directory.h. Blocks and agents are immutable values, so that a search over all
interleavings can copy a whole directory cheaply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from speckv_pynq import spec
from speckv_pynq.spec import DirectoryAction as Action
from speckv_pynq.spec import DirectoryEvent as Event
from speckv_pynq.spec import DirectoryState as State

Table = Sequence[Sequence[spec.DirectoryTransition]]
LAST = {
    Event.UPGRADE: Event.UPGRADE_LAST,
    Event.PUT_CLEAN: Event.PUT_CLEAN_LAST,
    Event.ACK: Event.ACK_LAST,
    Event.FENCE: Event.FENCE_LAST,
}


class Refused(Exception):
    """An agent of another epoch, or a block that it does not hold so; nothing has changed."""


class IllegalEvent(Exception):
    """The table has no transition here: the table is wrong, or the directory."""


class Answer(IntEnum):
    """To a request for a lease."""

    GRANTED = 0
    WAITING = 1
    BUSY = 2


class Block(NamedTuple):
    """What the home knows of a block; agents by number."""

    state: State = State.INVALID
    holders: frozenset[int] = frozenset()
    waiter: int | None = None
    recall: int = 0
    deadline_ns: int = 0
    lost: bool = False

    def others(self, agent: int) -> frozenset[int]:
        """Who else holds it, the waiting agent apart."""
        return self.holders - {agent, self.waiter}

    def recalled(self) -> frozenset[int]:
        return frozenset() if self.waiter is None else self.holders - {self.waiter}


class Agent(NamedTuple):
    """A registered agent."""

    epoch: int
    deadline_ns: int


class Recall(NamedTuple):
    """What a poll says of one block."""

    key: int
    deadline_ns: int
    downgrade: bool


class DirectoryModel:
    """All blocks and agents of one home."""

    def __init__(self, lease_ns: int, table: Table = spec.DIRECTORY_TABLE) -> None:
        self.lease_ns, self.table = lease_ns, table
        self.now_ns = self.epochs = 0
        self.grants = self.recalls = self.write_backs = self.fenced = self.lost = 0
        self.blocks: dict[int, Block] = {}
        self.agents: dict[int, Agent] = {}

    def copy(self) -> DirectoryModel:
        other = object.__new__(DirectoryModel)
        other.__dict__.update(self.__dict__)
        other.blocks, other.agents = self.blocks.copy(), self.agents.copy()
        return other

    def register(self, now_ns: int) -> tuple[int, int]:
        """A new agent: its number and epoch. Refused when MAX_AGENTS are there."""
        free = next((i for i in range(spec.MAX_AGENTS) if i not in self.agents), None)
        if free is None:
            raise Refused(f"{spec.MAX_AGENTS} agents are registered")
        self.now_ns = max(self.now_ns, now_ns)
        self.epochs += 1
        self.agents[free] = Agent(self.epochs, self.now_ns + self.lease_ns)
        return free, self.epochs

    def acquire(
        self, agent: int, epoch: int, now_ns: int, write: bool, keys: Sequence[int]
    ) -> list[Answer]:
        self._check(agent, epoch)
        self.now_ns = max(self.now_ns, now_ns)
        return [self._ask(agent, write, key) for key in keys]

    def release(self, agent: int, epoch: int, dirty: bool, keys: Sequence[int]) -> None:
        self._give(agent, epoch, Event.PUT_DIRTY if dirty else Event.PUT_CLEAN, keys)

    def write_back(self, agent: int, epoch: int, keys: Sequence[int]) -> None:
        self._give(agent, epoch, Event.WRITE_BACK, keys)

    def acknowledge(self, agent: int, epoch: int, keys: Sequence[int]) -> None:
        self._give(agent, epoch, Event.ACK, keys)

    def poll(self, agent: int, epoch: int, now_ns: int) -> tuple[list[Recall], int]:
        """Unanswered recalls, oldest first, and until when the agent may use its leases."""
        self._check(agent, epoch)
        self.now_ns = max(self.now_ns, now_ns)
        self.agents[agent] = Agent(epoch, self.now_ns + self.lease_ns)
        return self._recalls(agent), self.deadline_ns(agent)

    def deadline_ns(self, agent: int) -> int:
        return min([self.agents[agent].deadline_ns, *(r.deadline_ns for r in self._recalls(agent))])

    def expire(self, now_ns: int) -> frozenset[int]:
        """Fences whose deadline is over; their numbers."""
        self.now_ns = max(self.now_ns, now_ns)
        late = frozenset(a for a in self.agents if self.deadline_ns(a) <= self.now_ns)
        self._end(late)
        return late

    def fence(self, agent: int, epoch: int) -> None:
        self._check(agent, epoch)
        self._end([agent])

    def take_lost(self) -> set[int]:
        """Blocks whose writer was fenced; told once."""
        lost = {key for key, block in self.blocks.items() if block.lost}
        for key in lost:
            self._keep(key, self.blocks[key]._replace(lost=False))
        return lost

    def block(self, key: int) -> Block:
        return self.blocks.get(key, Block())

    def has_writer(self, state: State) -> bool:
        """The holder of a block in this state may have modified it."""
        return self.table[state][Event.PUT_DIRTY].legal

    def _check(self, agent: int, epoch: int) -> None:
        if agent not in self.agents or self.agents[agent].epoch != epoch:
            raise Refused(f"agent {agent} of epoch {epoch} is fenced")

    def _recalls(self, agent: int) -> list[Recall]:
        mine = [(b.recall, key, b) for key, b in self.blocks.items() if agent in b.recalled()]
        return [
            Recall(key, block.deadline_ns, block.state == State.DOWNGRADE_PENDING)
            for _, key, block in sorted(mine)
        ]

    def _ask(self, agent: int, write: bool, key: int) -> Answer:
        block = self.block(key)
        holds = agent in block.holders
        if holds and (not write or self.has_writer(block.state)):
            return Answer.GRANTED
        if block.waiter == agent:
            return Answer.WAITING
        event = Event.GET_SHARED
        if write:
            event = self._last(block, Event.UPGRADE, agent) if holds else Event.GET_MODIFIED
        actions = self._apply(key, event, agent)
        if Action.GRANT in actions:
            return Answer.GRANTED
        return Answer.WAITING if Action.RECALL in actions else Answer.BUSY

    def _last(self, block: Block, event: Event, agent: int) -> Event:
        return event if event not in LAST or block.others(agent) else LAST[event]

    def _give(self, agent: int, epoch: int, event: Event, keys: Sequence[int]) -> None:
        self._check(agent, epoch)
        for key in keys:
            block = self.block(key)
            writes = event in (Event.PUT_DIRTY, Event.WRITE_BACK)
            holds = agent in block.holders and (not writes or self.has_writer(block.state))
            waits = event == Event.PUT_CLEAN and block.waiter == agent
            if not (holds or waits) or keys.count(key) > 1:
                raise Refused(f"agent {agent} does not hold {key:#x} so")
        for key in keys:
            self._give_up(key, event, agent)

    def _give_up(self, key: int, event: Event, agent: int) -> None:
        if self.block(key).waiter == agent:
            self._apply(key, Event.CANCEL, agent)
        block = self.block(key)
        if agent in block.holders:
            self._apply(key, self._last(block, event, agent), agent)

    def _end(self, fenced: Iterable[int]) -> None:
        """Waits of all first: none of them is served meanwhile."""
        for key in list(self.blocks):
            waiter = self.block(key).waiter
            if waiter is not None and waiter in fenced:
                self._apply(key, Event.CANCEL, waiter)
            for agent in sorted(fenced):
                block = self.block(key)
                if agent in block.holders:
                    self._apply(key, self._last(block, Event.FENCE, agent), agent)
        for agent in fenced:
            del self.agents[agent]
            self.fenced += 1

    def _apply(self, key: int, event: Event, agent: int) -> Action:
        """One cell of the table."""
        block = self.block(key)
        cell = self.table[block.state][event]
        if not cell.legal:
            raise IllegalEvent(f"{event.name} in {block.state.name} of {block}")
        actions, holders, waiter = cell.actions, block.holders, block.waiter
        block = block._replace(state=cell.next)
        if Action.RECALL in actions:
            self.recalls += 1
            waiter = agent
            block = block._replace(recall=self.recalls, deadline_ns=self.now_ns + self.lease_ns)
        if Action.GRANT in actions:
            holders |= {agent}
        if Action.DROP in actions:
            holders -= {agent}
        if Action.SERVE in actions and waiter is not None:
            holders |= {waiter}
        if actions & (Action.SERVE | Action.FORGET):
            waiter = None
        if (cell.next == State.INVALID) != (not holders):
            raise IllegalEvent(f"{event.name} in {block} leads to {cell.next.name} with {holders}")
        self.grants += bool(actions & (Action.GRANT | Action.SERVE))
        self.write_backs += Action.STORE in actions
        self.lost += Action.LOST in actions
        lost = block.lost or Action.LOST in actions
        self._keep(key, block._replace(holders=holders, waiter=waiter, lost=lost))
        return actions

    def _keep(self, key: int, block: Block) -> None:
        if block.state == State.INVALID and not block.lost:
            self.blocks.pop(key, None)
        else:
            self.blocks[key] = block
