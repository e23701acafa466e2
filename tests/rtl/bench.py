"""What cocotb benches share: clock and reset, settings, stream drivers, coverage, reports."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly

CLOCK_NS = 4


def setting(name: str, default: Any) -> Any:
    """A value that `simulate(settings=...)` gave."""
    return json.loads(os.environ.get("SPECKV_SETTINGS", "{}")).get(name, default)


def report(**values: object) -> None:
    """Adds to what `simulate()` returns; the values must be JSON's."""
    path = Path(os.environ["SPECKV_REPORT"])
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | values))


def rng() -> random.Random:
    """The bench's random numbers: the same for the same seed."""
    return random.Random(cocotb.RANDOM_SEED)


async def begin(dut: Any, inputs: Iterable[str] = ()) -> None:
    """Starts clk_i, zeroes the named inputs and holds rst_i for four cycles; returns after a falling edge."""
    cocotb.start_soon(Clock(dut.clk_i, CLOCK_NS, unit="ns").start())
    for name in inputs:
        getattr(dut, name).value = 0
    dut.rst_i.value = 1
    for _ in range(4):
        await FallingEdge(dut.clk_i)
    dut.rst_i.value = 0


@dataclass
class Sender:
    """Offers items on a ready/valid input; with probability `stall` it waits a cycle before offering the next."""

    data: Any  # one handle, or several for an item that is a tuple
    valid: Any
    ready: Any
    items: Sequence[Any]
    stall: float = 0.0
    sent: int = 0
    offered: bool = False

    def drive(self, chance: random.Random) -> None:
        """Before the rising edge: decides whether an item is on offer."""
        if not self.offered and self.sent < len(self.items) and chance.random() >= self.stall:
            self.offered = True
            item = self.items[self.sent]
            if isinstance(self.data, tuple):
                for handle, value in zip(self.data, item, strict=True):
                    handle.value = value
            else:
                self.data.value = item
        self.valid.value = self.offered

    def settle(self) -> None:
        """In the read-only phase: notes whether this edge takes the item."""
        self.taken = self.offered and bool(self.ready.value)

    def advance(self) -> None:
        if self.taken:
            self.sent += 1
            self.offered = False

    @property
    def done(self) -> bool:
        return self.sent == len(self.items)


@dataclass
class Receiver:
    """Takes items from a ready/valid output; with probability `stall` a cycle it is not ready. Checks that an
    offer stands, unchanged, until it is taken."""

    data: Any
    valid: Any
    ready: Any
    stall: float = 0.0
    items: list[Any] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)  # when each item was taken
    cycle: int = 0
    waiting: Any = None

    def drive(self, chance: random.Random) -> None:
        self.is_ready = chance.random() >= self.stall
        self.ready.value = self.is_ready

    def settle(self) -> None:
        self.cycle += 1
        if not self.valid.value:
            assert self.waiting is None, f"cycle {self.cycle}: an offer was withdrawn"
            return
        handles = self.data if isinstance(self.data, tuple) else (self.data,)
        item = tuple(int(handle.value) for handle in handles)
        assert self.waiting in (None, item), f"cycle {self.cycle}: an offer changed while it waited"
        self.waiting = None if self.is_ready else item
        if self.is_ready:
            self.items.append(item if isinstance(self.data, tuple) else item[0])
            self.cycles.append(self.cycle)

    def advance(self) -> None:
        pass


async def run_streams(
    dut: Any, chance: random.Random, ends: Sequence[Any], *, until: Any, most_cycles: int
) -> int:
    """Clocks the ends (Sender, Receiver, or anything with drive, settle, advance) until `until()`; returns cycles.

    Inputs change after the falling edge and handshakes are read just before the rising one.
    """
    for cycle in range(most_cycles):
        if until():
            return cycle
        for end in ends:
            end.drive(chance)
        await ReadOnly()
        for end in ends:
            end.settle()
        await FallingEdge(dut.clk_i)
        for end in ends:
            end.advance()
    raise AssertionError(f"not done after {most_cycles} cycles")


class Coverage:
    """Counts what a bench has seen, against what it means to see."""

    def __init__(self, **goals: Iterable[object]) -> None:
        self.goals = {name: [str(goal) for goal in wanted] for name, wanted in goals.items()}
        self.seen: Counter[tuple[str, str]] = Counter()

    def hit(self, name: str, what: object) -> None:
        assert str(what) in self.goals[name], f"{name}: {what} is not a goal"
        self.seen[name, str(what)] += 1

    def missing(self) -> list[str]:
        return [
            f"{name}={goal}"
            for name, goals in self.goals.items()
            for goal in goals
            if not self.seen[name, goal]
        ]

    def finish(self) -> None:
        """Reports the counts and fails on goals not reached."""
        counts = {
            name: {g: self.seen[name, g] for g in goals} for name, goals in self.goals.items()
        }
        report(coverage=counts)
        assert not self.missing(), f"not covered: {', '.join(self.missing())}"
