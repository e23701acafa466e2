"""What the driver holds: commands that wait, run or have ended unread. Not locked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device.protocol import DeviceBuffer
from speckv_pynq.driver.commands import MOVING, Commands, Move, resolve
from speckv_pynq.driver.completion import Completion
from speckv_pynq.driver.parameters import Parameters
from speckv_pynq.driver.ring import Ring
from speckv_pynq.driver.work import Outcome
from speckv_pynq.errors import CommandError, ConfigError

_OUTCOME_FIELDS = (
    "status",
    "bytes",
    "blocks",
    "failed",
    "first_failed",
    "block_status",
    "value",
    "limit",
)
DEMAND, PREFETCH = 0, 1  # lanes: each has its own slots, so that neither fills the other's


def lane_of(opcode: int) -> int:
    return PREFETCH if opcode == spec.Opcode.PREFETCH else DEMAND


@dataclass(eq=False)
class Entry:
    """A command that has not ended."""

    tag: int
    owner: int
    opcode: int
    move: Move | None
    decoding: bool
    since_ns: int = field(default_factory=time.monotonic_ns)
    running: bool = False
    ended: bool = False
    stop: bool = False  # a running prefetch looks at this between slices

    def stopped(self) -> bool:
        return self.stop


class Book:
    """The rings, the commands open and the completions not read yet.

    Each lane has a ring of `slots` for what waits, shared by all owners; it empties as commands
    run. Apart from that an owner has `slots` commands a lane, open or unread: one that does not
    read its completions stops nobody else.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.parameters = Parameters()
        self._rings = (Ring(slots), Ring(slots))
        self._waiting: tuple[dict[int, Entry], dict[int, Entry]] = ({}, {})  # by ring number
        self._held: Counter[tuple[int, int]] = Counter()  # by owner and lane
        self._open: dict[tuple[int, int], Entry] = {}  # by owner and tag, oldest first
        self._open_of: Counter[int] = Counter()
        self._unread: dict[int, dict[int, Completion]] = {}

    def resolve(self, commands: Commands, buffers: dict[int, DeviceBuffer]) -> list[Move | None]:
        """The buffers of each command; an error, and nothing has happened, if one is bad."""
        seen: set[tuple[int, int]] = set()
        moves = []
        for row in commands:
            moves.append(resolve(row, buffers))
            name = int(row["owner"]), int(row["tag"])
            if name in seen or name in self._open or name[1] in self._unread.get(name[0], {}):
                raise CommandError(
                    f"command {name[1]} of owner {name[0]}: another with this tag is open or unread"
                )
            seen.add(name)
        for _, need in self._needs(commands).items():
            if need > self.slots:
                raise ConfigError(f"a batch of {need} commands in a ring of {self.slots} slots")
        return moves

    def has_room(self, commands: Commands) -> bool:
        rings = [0, 0]
        for (owner, lane), need in self._needs(commands).items():
            rings[lane] += need
            if self._held[owner, lane] + need > self.slots:
                return False
        return all(ring.free >= need for ring, need in zip(self._rings, rings, strict=True))

    def add(self, commands: Commands, moves: list[Move | None]) -> None:
        """Takes commands that resolve() and has_room() let through."""
        for row, move in zip(commands, moves, strict=True):
            self._add(row, move)
        for owner in {int(r["owner"]) for r in commands if lane_of(int(r["opcode"])) == PREFETCH}:
            self._supersede(owner)
        for owner in {int(owner) for owner in commands["owner"]}:
            self._end_polls(owner)

    def ready(self, lane: int) -> int:
        """Commands that wait in a lane, ended ones between them included; 0: none."""
        return len(self._waiting[lane])

    def take(self, lane: int) -> tuple[np.void, Entry]:
        """The oldest command of a lane that has waiting ones; it runs from now on."""
        ring = self._rings[lane]
        number, row = ring.head, ring.pop()
        entry = self._waiting[lane].pop(number)
        entry.running = True
        self._trim(lane)
        return row[0], entry

    def end(self, entry: Entry, outcome: Outcome) -> None:
        """Makes a command's completion, once; and those of polls that waited for it."""
        if not entry.ended:
            self._end(entry, outcome)
            self._end_polls(entry.owner)

    def cancel(
        self, status: spec.CommandStatus, owner: int | None, tag: int | None = None
    ) -> list[Entry]:
        """Ends what waits, stops running prefetches; those that it reached. None: any."""
        reached = []
        for entry in list(self._open.values()):
            if (owner is not None and entry.owner != owner) or (
                tag is not None and entry.tag != tag
            ):
                continue
            if not entry.running:
                if not entry.ended:
                    self.end(entry, Outcome(status))
                    reached.append(entry)
            elif entry.opcode == spec.Opcode.PREFETCH and not entry.stop:
                entry.stop = True
                reached.append(entry)
        self._trim(DEMAND)
        self._trim(PREFETCH)
        return reached

    def open(self, owner: int | None = None) -> int:
        """Commands that have not ended, of one owner or of all."""
        return len(self._open) if owner is None else self._open_of[owner]

    def is_open(self, owner: int, tag: int) -> bool:
        return (owner, tag) in self._open

    def entries(self) -> Iterator[Entry]:
        return iter(list(self._open.values()))

    def unread(self, owner: int) -> dict[int, Completion]:
        """Completions of an owner by tag, in order of finishing."""
        return self._unread.get(owner, {})

    def read(self, owner: int, tag: int) -> Completion:
        """Takes an unread completion; its slot is free again."""
        mine = self._unread[owner]
        completion = mine.pop(tag)
        if not mine:
            del self._unread[owner]
        slot = owner, lane_of(completion.opcode)
        self._held[slot] -= 1
        if not self._held[slot]:
            del self._held[slot]
        return completion

    def _needs(self, commands: Commands) -> Counter[tuple[int, int]]:
        """Commands by owner and lane."""
        pairs = zip(commands["owner"].tolist(), commands["opcode"].tolist(), strict=True)
        return Counter((owner, lane_of(opcode)) for owner, opcode in pairs)

    def _add(self, row: np.void, move: Move | None) -> None:
        tag, owner, opcode = (int(row[name]) for name in ("tag", "owner", "opcode"))
        entry = Entry(tag, owner, opcode, move, int(row["move"]) == spec.Move.DECOMPRESS)
        self._open[owner, tag] = entry
        self._open_of[owner] += 1
        lane = lane_of(opcode)
        self._held[owner, lane] += 1
        if opcode in MOVING:
            self._waiting[lane][self._rings[lane].push(row)] = entry
        elif opcode == spec.Opcode.SET_PARAM:
            self.parameters = self.parameters.changed(int(row["param"]), int(row["value"]))
            self._end(entry, Outcome())

    def _supersede(self, owner: int) -> None:
        waiting = [e for e in self._waiting[PREFETCH].values() if e.owner == owner and not e.ended]
        for entry in waiting[: max(0, len(waiting) - self.parameters.prefetch_depth)]:
            self._end(entry, Outcome(spec.CommandStatus.SUPERSEDED))
        self._trim(PREFETCH)

    def _trim(self, lane: int) -> None:
        """Takes ended commands off the head, so that their slots of the ring are free."""
        ring, waiting = self._rings[lane], self._waiting[lane]
        while waiting and waiting[ring.head].ended:
            del waiting[ring.head]
            ring.pop()

    def _end(self, entry: Entry, outcome: Outcome) -> None:
        entry.ended = True
        del self._open[entry.owner, entry.tag]
        self._open_of[entry.owner] -= 1
        if not self._open_of[entry.owner]:
            del self._open_of[entry.owner]
        row = np.zeros(1, spec.COMMAND_COMPLETION)[0]
        for name in ("tag", "owner", "opcode"):
            row[name] = getattr(entry, name)
        for name in _OUTCOME_FIELDS:
            row[name] = getattr(outcome, name)
        row["duration_ns"] = time.monotonic_ns() - entry.since_ns
        done = Completion(row, outcome.cause, entry.decoding)
        self._unread.setdefault(entry.owner, {})[entry.tag] = done

    def _end_polls(self, owner: int) -> None:
        """Ends the owner's polls that have no older command before them."""
        while self._open_of[owner]:
            oldest = next(entry for entry in self._open.values() if entry.owner == owner)
            if oldest.opcode != spec.Opcode.POLL_DONE:
                return
            self._end(oldest, Outcome())
