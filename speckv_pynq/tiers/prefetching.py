"""Blocks brought into L2 while others call: commands for a driver, taken in once they have ended."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.codec import Codec
from speckv_pynq.device.protocol import DeviceBuffer
from speckv_pynq.driver import SpeckvDriver
from speckv_pynq.driver.commands import Commands
from speckv_pynq.driver.completion import Completion
from speckv_pynq.errors import DeviceTimeout
from speckv_pynq.native import U64, Core, Tier
from speckv_pynq.prefetch.dense import ByteBudget
from speckv_pynq.tiers.staging import Staging

# Of one command: the most that a get of its blocks waits for, enough to be worth the hand-over.
COMMAND_DESCRIPTORS: Final = 16
_NO_SLOTS: Final = np.empty(0, np.uint64)
# One command's records move while another's are decoded: no more, for a get waits for those that run.
COMMANDS_IN_FLIGHT: Final = 2
# How long a get waits for a command that runs; after that it decodes the block itself.
PATIENCE_S: Final = 0.1
_OWNER: Final = 1
_S = spec.CommandStatus
_CANCELLED: Final = (_S.CANCELLED, _S.SUPERSEDED)
# No run of a command that ended like this writes any more.
_OVER: Final = (_S.OK, _S.FAILED_BLOCKS, _S.FENCED, *_CANCELLED)


@dataclass(eq=False)
class Table:
    """Descriptors, then completions, of the commands of one prefetch. commands: not ended yet."""

    buffer: DeviceBuffer
    number: int
    commands: int


@dataclass(eq=False)
class Batch:
    """The blocks of one command, (n,): handles, 0 where nobody wants it any more, and reserved slots of L2."""

    handles: U64
    slots: U64
    table: Table
    results_line: int


class Prefetcher:
    """The way up ahead of need; for one caller at a time, but for wait() and wait_all().

    Slots stay reserved in the core until nothing writes to them: a block that is released or read meanwhile is only
    not wanted any more. So no call has to wait for a run of a prefetch.
    """

    def __init__(
        self, codec: Codec, core: Core, staging: Staging, memories: list[DeviceBuffer | None]
    ) -> None:
        self._codec, self._core, self._staging, self._memories = codec, core, staging, memories
        self._driver: SpeckvDriver | None = None
        self._tags = itertools.count(1)
        self._batches: dict[int, Batch] = {}  # by tag
        self._pending: dict[int, int] = {}  # handle: tag
        self._ended: list[Completion] = []
        self._late: list[U64] = []  # slots that a late run may still write to
        self._reserved = 0
        self.table_bytes = 0
        self.decoded = self.fetched = self.failed = self.cancelled = 0  # blocks

    @property
    def under_way(self) -> int:
        """Blocks whose commands have not been taken in."""
        return sum(len(batch.handles) for batch in self._batches.values())

    def start(self, handles: U64, budget: ByteBudget | None = None, *, keep: bool = False) -> int:
        """Submits commands for blocks that are in L3 alone and not on their way; how many blocks.

        budget: of record bytes. keep: those of the handles that are up already stay; others leave L2 for the new ones.
        """
        self.collect()
        plan = self._core.plan_get(handles, counted=False)
        each = max(1, COMMAND_DESCRIPTORS // len(self._codec.parts))
        room = min(
            self._core.total_slots(Tier.L2) - self._reserved,
            (spec.RING_SLOTS - len(self._batches)) * each,
        )
        new = [i for i, h in enumerate(plan.handles.tolist()) if h not in self._pending][:room]
        if keep and new:
            new = new[: self._make_room(len(new), handles)]
        if budget is not None:
            new = new[: budget.take(plan.record_bytes[new].sum(axis=1), time.monotonic())]
        if not new:
            return 0
        driver = self._driver or self._open()
        table, slots = self._table(driver, len(new), each), _NO_SLOTS
        try:
            slots = self._reserve(len(new))
            rows = self._staging.describe_decode(plan, new, slots)
            table.buffer.array[: rows.nbytes] = rows.view(np.uint8)
            commands = self._commands(table, len(rows), each)
            self._book(commands, table, plan.handles[new], slots)
            driver.submit(commands)
        except Exception:  # no command was taken
            self._undo(table, slots)
            raise
        return len(new)

    def collect(self) -> None:
        """Takes in what has ended, without waiting."""
        driver = self._driver
        if driver is None or not (self._batches or self._late):
            return
        self._ended += driver.poll_done(owner=_OWNER)
        self._take_in_ended()
        if self._late and not driver.late_runs:
            for slots in self._late:
                self._install(np.zeros_like(slots), slots)
            self._late.clear()

    def claim(self, handles: U64) -> list[int]:
        """Ahead of a get of these: of their commands those that have ended are taken in, those that wait cancelled.

        Tags of those that run. Other commands are left alone: taking them in is not this get's to pay for.
        StaleHandle, and nothing has changed, where a handle is stale.
        """
        if not self._pending:
            return []
        tags = {self._pending[h] for h in self._pending.keys() & set(handles.tolist())}
        if not tags:
            return []
        self._core.plan_get(handles, counted=False)
        driver, running = self._driver, []
        assert driver is not None
        for tag in tags:
            driver.cancel(owner=_OWNER, tag=tag)
            try:
                self._ended.append(driver.wait(tag, 0.0, owner=_OWNER))
            except DeviceTimeout:
                running.append(tag)
            self._take_in_ended()
        return running

    def wait(self, tags: list[int]) -> None:
        """Waits for commands, not longer than PATIENCE_S. Needs no lock."""
        assert self._driver is not None
        deadline = time.monotonic() + PATIENCE_S
        with contextlib.suppress(DeviceTimeout):
            for tag in tags:
                self._driver.drain(max(0.0, deadline - time.monotonic()), owner=_OWNER, tag=tag)

    def wait_all(self, timeout_s: float) -> None:
        """Waits for all commands; DeviceTimeout. Needs no lock."""
        if self._driver is not None:
            self._driver.drain(timeout_s, owner=_OWNER)

    def give_up(self, handles: U64, *, stale_only: bool = False) -> None:
        """These blocks, or those that are stale, need not come up any more."""
        if not self._pending:
            return
        for handle in self._pending.keys() & set(handles.tolist()):
            if stale_only and self._core.block(handle)[0]:
                continue
            tag = self._pending.pop(handle)
            batch = self._batches[tag]
            batch.handles[batch.handles == handle] = 0
            if not batch.handles.any():
                assert self._driver is not None
                self._driver.cancel(owner=_OWNER, tag=tag)

    def close(self) -> None:
        """Ends everything; DeviceTimeout when a run goes on. The core must not be used any more."""
        try:
            if self._driver is not None:
                self._driver.close()
        finally:
            for table in {batch.table for batch in self._batches.values()}:
                table.buffer.free()
            self._batches.clear()

    def _open(self) -> SpeckvDriver:
        driver = SpeckvDriver(self._codec.device, prefetches_in_flight=COMMANDS_IN_FLIGHT)
        driver.set_param(spec.Parameter.PREFETCH_DEPTH, spec.RING_SLOTS)
        pool, memory = self._memories[Tier.L3], self._memories[Tier.L2]
        assert pool is not None
        assert memory is not None
        self._source, self._target = driver.register(pool), driver.register(memory)
        codebooks = self._codec.codebook_memory
        self._codebooks = 0 if codebooks is None else driver.register(codebooks)
        self._driver = driver
        return driver

    def _table(self, driver: SpeckvDriver, blocks: int, each: int) -> Table:
        parts, commands = len(self._codec.parts), -(-blocks // each)
        lines = blocks * parts + commands * _result_lines(each * parts)
        buffer = self._codec.device.allocate(lines * spec.LINE_BYTES)
        self.table_bytes += buffer.nbytes
        return Table(buffer, driver.register(buffer), commands)

    def _drop(self, table: Table) -> None:
        assert self._driver is not None
        self._driver.unregister(table.number)
        self.table_bytes -= table.buffer.nbytes
        table.buffer.free()

    def _reserve(self, count: int) -> U64:
        evictions = max(0, count - self._core.free_slots(Tier.L2))
        slots = self._core.reserve(Tier.L2, count, evictions)
        self._reserved += count
        return slots

    def _make_room(self, count: int, keep: U64) -> int:
        """Slots of L2 that are free, up to count, after the oldest of other blocks than these left."""
        core = self._core
        short = count - core.free_slots(Tier.L2)
        if short > 0:
            there = core.resident(Tier.L2)
            core.evict(Tier.L2, there[~np.isin(there, keep)][:short])
        return min(count, core.free_slots(Tier.L2))

    def _install(self, handles: U64, slots: U64) -> int:
        self._reserved -= len(slots)
        return self._core.install(Tier.L2, handles, slots)

    def _book(self, commands: Commands, table: Table, handles: U64, slots: U64) -> None:
        """Ahead of their submission: a command that got away with an interrupt is still taken in."""
        parts, first = len(self._codec.parts), 0
        for command in commands:
            end = first + int(command["count"]) // parts
            batch = Batch(handles[first:end], slots[first:end], table, int(command["results_line"]))
            self._batches[int(command["tag"])] = batch
            self._pending.update(dict.fromkeys(batch.handles.tolist(), int(command["tag"])))
            first = end

    def _undo(self, table: Table, slots: U64) -> None:
        for tag, batch in list(self._batches.items()):
            if batch.table is table:
                del self._batches[tag]
                for handle in batch.handles.tolist():
                    del self._pending[handle]
        self._install(np.zeros_like(slots), slots)
        self._drop(table)

    def _commands(self, table: Table, descriptors: int, each: int) -> Commands:
        """Commands of `each` blocks for the descriptors in a table."""
        each *= len(self._codec.parts)
        firsts = np.arange(0, descriptors, each)
        commands = np.zeros(len(firsts), spec.COMMAND)
        commands["tag"] = [next(self._tags) for _ in firsts]
        commands["opcode"], commands["owner"] = spec.Opcode.PREFETCH, _OWNER
        commands["move"] = spec.Move.DECOMPRESS
        commands["source"], commands["target"] = self._source, self._target
        commands["codebooks"] = self._codebooks
        commands["descriptors"] = commands["results"] = table.number
        commands["descriptors_line"] = firsts
        commands["count"] = np.minimum(each, descriptors - firsts)
        commands["results_line"] = descriptors + np.arange(len(firsts)) * _result_lines(each)
        return commands

    def _take_in_ended(self) -> None:
        while self._ended:  # kept there: if one cannot be taken in, the others still are
            done = self._ended.pop(0)
            self._take_in(self._batches.pop(done.tag), done)

    def _take_in(self, batch: Batch, done: Completion) -> None:
        """Sound blocks become hits; slots that nothing writes to any more go back."""
        for handle in batch.handles[batch.handles != 0].tolist():
            del self._pending[handle]
        sound, ran = self._sound(batch, int(done.row["blocks"]))
        self._sync(batch.slots[sound])
        over = sound | (done.status in _OVER)
        came = self._install(np.where(sound, batch.handles, 0)[over], batch.slots[over])
        if not over.all():
            self._late.append(batch.slots[~over])
        tried = np.arange(len(sound)) < (ran if done.status in _CANCELLED else len(sound))
        failed = int((tried & ~sound & (batch.handles != 0)).sum())
        self.decoded += int(sound.sum())
        self.fetched += came
        self.failed += failed
        self.cancelled += len(sound) - came - failed
        batch.table.commands -= 1
        if not batch.table.commands:
            self._drop(batch.table)

    def _sound(self, batch: Batch, descriptors: int) -> tuple[npt.NDArray[np.bool_], int]:
        """Which blocks were decoded and checked, (n,), and how many were tried, of a command that ran so far."""
        parts, at = len(self._codec.parts), batch.results_line * spec.LINE_BYTES
        nbytes = len(batch.handles) * parts * spec.COMPLETION.itemsize
        fine = batch.table.buffer.array[at : at + nbytes].view(spec.COMPLETION)["status"] == 0
        fine[descriptors:] = False
        return fine.reshape(-1, parts).all(axis=1), -(-descriptors // parts)

    def _sync(self, slots: U64) -> None:
        if not len(slots):
            return
        memory = self._memories[Tier.L2]
        assert memory is not None
        low, high = int(slots.min()), int(slots.max()) + self._staging.slot_bytes
        memory.sync_from_device(low, min(high, memory.nbytes) - low)


def _result_lines(descriptors: int) -> int:
    """Lines of the completions of a command."""
    return -(-descriptors * spec.COMPLETION.itemsize // spec.LINE_BYTES)
