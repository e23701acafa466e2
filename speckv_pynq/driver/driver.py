"""SpeckvDriver: commands in, completions out, with a lane for demand and one for prefetch."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable

from speckv_pynq import spec
from speckv_pynq.closing import Closing
from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, Device, DeviceBuffer, Run
from speckv_pynq.driver.book import DEMAND, PREFETCH, Book, Entry
from speckv_pynq.driver.commands import Commands, Move, command
from speckv_pynq.driver.completion import Completion
from speckv_pynq.driver.parameters import MAX_RUNS_IN_FLIGHT, Parameters
from speckv_pynq.driver.work import Outcome, ended, execute
from speckv_pynq.errors import (
    CommandError,
    ConfigError,
    DeviceError,
    DeviceTimeout,
    RingFull,
)

_FIRST_OWN_TAG = 1 << 63  # tags that dma_batch() and prefetch() give; callers use smaller ones


class SpeckvDriver(Closing):
    """Submits commands to a device and completes each exactly once; safe from several threads.

    A command names buffers by the numbers that register() gives. From submission to completion the
    driver keeps them alive, and the caller leaves alone what the command writes, and its table and
    source. Free them after the completion: one freed before makes a waiting command end with
    bad_buffer. After status device_timeout the run may still write to the target: until late_runs
    is 0, further commands that name it end with status fenced.

    Commands are not ordered among one another: read the completion before submitting one that uses
    the result. DMA_BATCH has slots and threads of its own and waits for no prefetch; on the engines
    it finds at most one slice of a prefetch ahead of it (Parameters.prefetch_slice).

    The device stays the caller's; close the driver first. A context manager, which closes it.
    """

    def __init__(
        self, device: Device, slots: int = spec.RING_SLOTS, *, prefetches_in_flight: int = 1
    ) -> None:
        """prefetches_in_flight: commands of PREFETCH that run at once; with two, records of one move while another's
        are decoded, and a demand may find a slice of each ahead of it.
        """
        if not 1 <= prefetches_in_flight <= MAX_RUNS_IN_FLIGHT:
            raise ConfigError(
                f"prefetches_in_flight {prefetches_in_flight} is not within 1..{MAX_RUNS_IN_FLIGHT}"
            )
        self.device, self._prefetches = device, prefetches_in_flight
        self._book = Book(slots)
        self._buffers: dict[int, DeviceBuffer] = {}
        self._numbers, self._tags = itertools.count(1), itertools.count(_FIRST_OWN_TAG)
        self._late: list[tuple[Run, Move]] = []
        self._running = [0, 0]
        self._closed, self._pid = False, os.getpid()
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # for callers: a completion, or room
        self._work = (threading.Condition(lock), threading.Condition(lock))  # for the lanes
        lanes = [DEMAND] * MAX_RUNS_IN_FLIGHT + [PREFETCH] * prefetches_in_flight
        self._threads = [
            threading.Thread(
                target=self._serve, args=(lane,), name=f"speckv-driver-{i}", daemon=True
            )
            for i, lane in enumerate(lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def parameters(self) -> Parameters:
        """The settings at this moment."""
        return self._book.parameters

    def outstanding(self, owner: int | None = None) -> int:
        """Commands of an owner (None: of all) that have not ended."""
        with self._changed:
            return self._book.open(owner)

    @property
    def late_runs(self) -> int:
        """Runs of ended commands that the device has not finished."""
        with self._changed:
            return len(self._prune())

    def register(self, buffer: DeviceBuffer) -> int:
        """A number, from 1 on, by which commands name a buffer of the device; never given twice."""
        with self._changed:
            self._check_open()
            number = next(self._numbers)
            self._buffers[number] = buffer
            return number

    def unregister(self, number: int) -> None:
        """Forgets a buffer; commands submitted before still use it. CommandError: not registered."""
        with self._changed:
            if self._buffers.pop(number, None) is None:
                raise CommandError(f"buffer {number} is not registered")

    def submit(self, commands: Commands, timeout_s: float = 0.0) -> None:
        """Takes commands, (n,) spec.COMMAND, all or none.

        Waits up to timeout_s for room, then RingFull: what waits, of all owners, has `slots` slots
        for DMA_BATCH and as many for PREFETCH, and so have an owner's commands that are open or whose
        completions are unread. CommandError, ConfigError (SET_PARAM out of range, more commands than slots) or
        DeviceBufferError: a command is bad. SET_PARAM takes effect at once. POLL_DONE completes
        when every earlier command of its owner has.
        """
        if commands.dtype != spec.COMMAND or commands.ndim != 1:
            raise CommandError(f"{commands.ndim}-D {commands.dtype}, not 1-D spec.COMMAND")
        commands = commands.copy()
        with self._changed:
            self._check_open()
            moves = self._book.resolve(commands, self._buffers)
            if not self._book.has_room(commands):
                self._wait(lambda: self._closed or self._book.has_room(commands), timeout_s)
                self._check_open()
                moves = self._book.resolve(commands, self._buffers)
                if not self._book.has_room(commands):
                    raise RingFull(
                        f"{len(commands)} commands do not fit {self._book.slots} slots after "
                        f"{timeout_s:g} s: read completions with poll_done(), or use more slots"
                    )
            self._book.add(commands, moves)
            self._notify()

    def dma_batch(self, *, ring_timeout_s: float = 0.0, **fields: int) -> int:
        """Submits one DMA_BATCH, given by fields of spec.COMMAND; its tag. Errors as of submit()."""
        return self._submit_one(spec.Opcode.DMA_BATCH, ring_timeout_s, fields)

    def prefetch(self, *, ring_timeout_s: float = 0.0, **fields: int) -> int:
        """Submits one PREFETCH, given by fields of spec.COMMAND; its tag. Errors as of submit().

        When its owner then has more than Parameters.prefetch_depth waiting, the oldest end with
        status superseded.
        """
        return self._submit_one(spec.Opcode.PREFETCH, ring_timeout_s, fields)

    def set_param(self, parameter: spec.Parameter, value: int) -> None:
        """SET_PARAM without a slot and a completion; ConfigError names value and limits."""
        with self._changed:
            self._check_open()
            self._book.parameters = self._book.parameters.changed(parameter, value)
            self._notify()

    def poll_done(
        self, timeout_s: float = 0.0, *, owner: int = 0, max_count: int | None = None
    ) -> list[Completion]:
        """Completions of an owner, in order of finishing; each is given once and frees its slot.

        Waits up to timeout_s for a first one, not at all when the owner has no command open; an
        empty list means that none came.
        """
        with self._changed:
            book = self._book
            self._wait(lambda: bool(book.unread(owner)) or not book.open(owner), timeout_s)
            tags = list(book.unread(owner))[:max_count]
            done = [book.read(owner, tag) for tag in tags]
            if done:
                self._notify()
            return done

    def wait(self, tag: int, timeout_s: float = DEFAULT_TIMEOUT_S, *, owner: int = 0) -> Completion:
        """The completion of one command, taken out of poll_done()'s order; Completion.check() is the caller's.

        DeviceTimeout: none after timeout_s; the command goes on. CommandError: no such command is
        open or unread.
        """
        with self._changed:
            book = self._book
            self._wait(lambda: not book.is_open(owner, tag), timeout_s)
            if tag in book.unread(owner):
                done = book.read(owner, tag)
                self._notify()
                return done
            if not book.is_open(owner, tag):
                raise CommandError(f"command {tag} of owner {owner} is neither open nor unread")
            raise DeviceTimeout(f"command {tag} of owner {owner} not done after {timeout_s:g} s")

    def cancel(self, *, owner: int = 0, tag: int | None = None) -> int:
        """Ends commands of an owner (tag None: all) that do not run yet; how many it reached.

        A running prefetch ends after its slice, with status cancelled unless that was the last;
        a running DMA_BATCH is not reached.
        """
        with self._changed:
            reached = self._book.cancel(spec.CommandStatus.CANCELLED, owner, tag)
            self._notify()
            return len(reached)

    def drain(
        self,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        owner: int | None = None,
        tag: int | None = None,
    ) -> None:
        """Waits until every command of an owner (None: of all) has ended; completions stay unread.

        tag: of one of the owner's commands, to wait for that alone. DeviceTimeout: some have not after timeout_s.
        """

        def left() -> int:
            if owner is None or tag is None:
                return self._book.open(owner)
            return int(self._book.is_open(owner, tag))

        with self._changed:
            if not self._wait(lambda: not left(), timeout_s):
                raise DeviceTimeout(f"{left()} commands not done after {timeout_s:g} s")

    def close(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Ends waiting commands with status closed, lets running ones finish; harmless when repeated.

        DeviceTimeout: the device did not finish in timeout_s; those commands end with status
        closed too, and what their runs write to must not be used before the device is closed.
        Completions can still be read.
        """
        deadline = _deadline(timeout_s)
        with self._changed:
            self._closed = True
            self._book.cancel(spec.CommandStatus.CLOSED, None)
            self._notify()
        if os.getpid() != self._pid:  # a forked child has none of the threads
            return
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            for entry in self._book.entries():
                self._book.end(entry, Outcome(spec.CommandStatus.CLOSED))
            self._notify()
            stuck, late = sum(thread.is_alive() for thread in self._threads), self._prune()
        for run, _ in late:
            _settle(run, max(0.0, deadline - time.monotonic()))
        still = sum(not ended(run) for run, _ in late)
        if stuck or still:
            raise DeviceTimeout(
                f"device not done {timeout_s:g} s after close(): {stuck} commands, {still} late runs"
            )
        self._buffers.clear()

    def _submit_one(self, opcode: spec.Opcode, timeout_s: float, fields: dict[str, int]) -> int:
        tag = fields.pop("tag", None)
        tag = next(self._tags) if tag is None else tag
        self.submit(command(opcode, tag=tag, **fields), timeout_s)
        return tag

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("the driver is closed")
        if os.getpid() != self._pid:
            raise DeviceError("the driver was made before a fork: make one in this process")

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Waits on the lock that the caller holds; whether the condition came."""
        _deadline(timeout_s)
        return condition() or (timeout_s > 0 and self._changed.wait_for(condition, timeout_s))

    def _notify(self) -> None:
        """Wakes whom a change may concern. The caller holds the lock."""
        self._changed.notify_all()
        for lane, work in enumerate(self._work):
            if self._closed:
                work.notify_all()
            elif self._may_take(lane):
                work.notify(self._book.ready(lane))

    def _may_take(self, lane: int) -> bool:
        limit = self._book.parameters.runs_in_flight if lane == DEMAND else self._prefetches
        return self._book.ready(lane) > 0 and self._running[lane] < limit

    def _serve(self, lane: int) -> None:
        while True:
            with self._changed:
                self._work[lane].wait_for(lambda: self._closed or self._may_take(lane))
                if self._closed:
                    return
                row, entry = self._book.take(lane)
                self._running[lane] += 1
                parameters, fence = self._book.parameters, self._fence(entry)
            assert entry.move is not None
            outcome = fence or execute(self.device, row, entry.move, parameters, entry.stopped)
            with self._changed:
                self._running[lane] -= 1
                if outcome.late is not None:
                    self._late.append((outcome.late, entry.move))
                self._book.end(entry, outcome)
                self._changed.notify_all()  # this thread itself looks for the lane's next command
            del entry, outcome, row, fence  # or an idle lane would keep the last buffers alive

    def _fence(self, entry: Entry) -> Outcome | None:
        """An outcome for a command with a buffer that a late run may write to."""
        move = entry.move
        assert move is not None
        mine = (move.source, move.target, move.codebooks, move.table, move.results)
        if any(late.target is buffer for _, late in self._prune() for buffer in mine):
            return Outcome(
                spec.CommandStatus.FENCED,
                DeviceError("a run that missed its deadline may still write to a buffer of this"),
            )
        return None

    def _prune(self) -> list[tuple[Run, Move]]:
        """Forgets late runs that are over; those that are not."""
        self._late = [(run, move) for run, move in self._late if not ended(run)]
        return self._late


def _deadline(timeout_s: float) -> float:
    if not 0 <= timeout_s <= threading.TIMEOUT_MAX:
        raise ConfigError(f"timeout_s {timeout_s} is not within 0..{threading.TIMEOUT_MAX:.0f}")
    return time.monotonic() + timeout_s


def _settle(run: Run, timeout_s: float) -> None:
    """Waits for a late run; what it raises was or will be nobody's."""
    try:
        run.wait(timeout_s)
    except Exception:
        return
