"""SpeckvDriver against a plain model of it, step by step, on a device whose runs the test ends."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from speckv_pynq.driver import command
from speckv_pynq.errors import CommandError, DeviceError, RingFull
from speckv_pynq.spec import CommandStatus, Opcode, Parameter
from tests.runtime.held_device import Held, eventually

pytestmark = pytest.mark.timeout(120)
SLOTS = 4
DMA, PREFETCH, POLL = Opcode.DMA_BATCH, Opcode.PREFETCH, Opcode.POLL_DONE
OWNERS = st.integers(0, 1)
Key = tuple[int, int]  # owner, tag


class Model:
    """One run a lane at a time. A lane's list holds its ring, oldest first, ended ones included."""

    def __init__(self) -> None:
        self.depth = 4
        self.open: dict[Key, Opcode] = {}
        self.lanes: dict[Opcode, list[Key]] = {DMA: [], PREFETCH: []}
        self.running: dict[Opcode, Key | None] = {DMA: None, PREFETCH: None}
        self.stopped: set[Key] = set()
        self.done: dict[int, list[tuple[int, Opcode, CommandStatus]]] = {0: [], 1: []}
        self.started: list[Key] = []

    def lane(self, opcode: Opcode) -> Opcode:
        return PREFETCH if opcode is PREFETCH else DMA

    def has_room(self, owner: int, opcode: Opcode) -> bool:
        lane = self.lane(opcode)
        held = sum(self.lane(code) is lane for _, code, _ in self.done[owner])
        held += sum(self.lane(code) is lane for key, code in self.open.items() if key[0] == owner)
        return held < SLOTS and len(self.lanes[lane]) < SLOTS

    def add(self, key: Key, opcode: Opcode) -> None:
        self.open[key] = opcode
        if opcode is not POLL:
            self.lanes[opcode].append(key)
        if opcode is PREFETCH:
            mine = [k for k in self.lanes[PREFETCH] if k[0] == key[0] and k in self.open]
            for old in mine[: max(0, len(mine) - self.depth)]:
                self.end(old, CommandStatus.SUPERSEDED)
        self.step()

    def end(self, key: Key, status: CommandStatus) -> None:
        self.done[key[0]].append((key[1], self.open.pop(key), status))
        while mine := [k for k in self.open if k[0] == key[0]]:
            if self.open[mine[0]] is not POLL:
                return
            self.done[key[0]].append((mine[0][1], self.open.pop(mine[0]), CommandStatus.OK))

    def step(self) -> None:
        """Polls that nothing precedes end; idle lanes take their oldest command."""
        for owner in (0, 1):
            mine = [k for k in self.open if k[0] == owner]
            while mine and self.open[mine[0]] is POLL:
                self.end(mine[0], CommandStatus.OK)
                mine = [k for k in self.open if k[0] == owner]
        for lane, waiting in self.lanes.items():
            while waiting and waiting[0] not in self.open:
                waiting.pop(0)
            if waiting and self.running[lane] is None:
                self.running[lane] = waiting.pop(0)
                self.started.append(self.running[lane])
            while waiting and waiting[0] not in self.open:
                waiting.pop(0)

    def cancel(self, owner: int, tag: int | None) -> int:
        reached = 0
        for key in [k for k in self.open if k[0] == owner and tag in (None, k[1])]:
            if key not in self.open:
                continue
            if key not in self.running.values():
                self.end(key, CommandStatus.CANCELLED)
                reached += 1
            elif self.open[key] is PREFETCH and key not in self.stopped:
                self.stopped.add(key)
                reached += 1
        self.step()
        return reached


class DriverMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.held, self.tag = Model(), Held(SLOTS), 0
        self.driver = self.held.driver
        self.driver.set_param(Parameter.RUNS_IN_FLIGHT, 1)
        self.driver.set_param(Parameter.PREFETCH_SLICE, 1)

    def settle(self) -> None:
        """Until the driver's threads have done what the model says they will."""
        eventually(
            lambda: (
                self.driver.outstanding() == len(self.model.open)
                and len(self.held.device.runs) == len(self.model.started)
            )
        )

    @rule(owner=OWNERS, opcode=st.sampled_from([DMA, DMA, PREFETCH, PREFETCH, POLL]))
    def submit(self, owner: int, opcode: Opcode) -> None:
        self.tag += 1
        fields = (
            {} if opcode is POLL else {**self.held.fields, "descriptors_line": self.tag, "count": 1}
        )
        row = command(opcode, tag=self.tag, owner=owner, **fields)
        if self.model.has_room(owner, opcode):
            self.driver.submit(row)
            self.model.add((owner, self.tag), opcode)
            self.settle()
        else:
            with pytest.raises(RingFull):
                self.driver.submit(row)

    @precondition(lambda self: self.model.open)
    @rule(data=st.data())
    def submit_a_tag_twice(self, data: st.DataObject) -> None:
        owner, tag = data.draw(st.sampled_from(sorted(self.model.open)))
        with pytest.raises(CommandError):
            self.driver.submit(command(POLL, tag=tag, owner=owner))

    @rule(depth=st.integers(0, 3))
    def set_depth(self, depth: int) -> None:
        self.driver.set_param(Parameter.PREFETCH_DEPTH, depth)
        self.model.depth = depth

    @precondition(lambda self: any(self.model.running.values()))
    @rule(data=st.data(), how=st.sampled_from(["ok", "ok", "block", "error"]))
    def end_a_run(self, data: st.DataObject, how: str) -> None:
        lane = data.draw(st.sampled_from([k for k, v in self.model.running.items() if v]))
        key = self.model.running[lane]
        assert key is not None
        run = self.held.device.run(key[1])
        status = CommandStatus.OK
        if how == "block":
            status = CommandStatus.FAILED_BLOCKS
            run.end(status=16)
        elif how == "error":
            status = CommandStatus.DEVICE_ERROR
            run.end(error=DeviceError("injected"))
        else:
            run.end()
        self.model.running[lane] = None
        self.model.end(key, status)
        self.model.step()
        self.settle()

    @rule(owner=OWNERS, data=st.data(), everything=st.booleans())
    def cancel(self, owner: int, data: st.DataObject, everything: bool) -> None:
        tag = None if everything else data.draw(st.integers(1, self.tag + 1))
        assert self.driver.cancel(owner=owner, tag=tag) == self.model.cancel(owner, tag)
        self.settle()

    @rule(owner=OWNERS, most=st.sampled_from([None, 1, 2]))
    def poll(self, owner: int, most: int | None) -> None:
        got = [
            (d.tag, d.opcode, d.status) for d in self.driver.poll_done(owner=owner, max_count=most)
        ]
        assert got == self.model.done[owner][:most]
        del self.model.done[owner][:most]

    @precondition(lambda self: any(self.model.done.values()))
    @rule(data=st.data())
    def wait_for_one(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from([o for o, done in self.model.done.items() if done]))
        end = data.draw(st.sampled_from(self.model.done[owner]))
        done = self.driver.wait(end[0], owner=owner)
        assert (done.tag, done.opcode, done.status) == end
        self.model.done[owner].remove(end)

    @invariant()
    def same_runs(self) -> None:
        assert sorted(self.held.device.names) == sorted(tag for _, tag in self.model.started)
        for lane in (DMA, PREFETCH):
            for owner in (0, 1):
                assert self.driver.outstanding(owner) == sum(k[0] == owner for k in self.model.open)
            assert self.model.running[lane] is None or self.model.running[lane] in self.model.open

    def teardown(self) -> None:
        self.held.close()
        for owner in (0, 1):
            seen = self.model.done[owner]
            rest = [(d.tag, d.opcode, d.status) for d in self.driver.poll_done(owner=owner)]
            assert rest[: len(seen)] == seen
            assert {tag for tag, _, _ in rest[len(seen) :]} == {
                tag for o, tag in self.model.open if o == owner
            }
            assert len(rest) == len(seen) + sum(o == owner for o, _ in self.model.open)
        assert self.driver.outstanding() == 0


TestDriver = DriverMachine.TestCase
TestDriver.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
