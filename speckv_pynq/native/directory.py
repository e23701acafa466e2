"""The directory: which agents hold which blocks. speckv_directory.h and docs/coherence.md say what agents must do."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.errors import DependencyMissing, Fenced, LeaseError
from speckv_pynq.native import binding
from speckv_pynq.native.binding import U8, U64, address, as_u64
from speckv_pynq.native.layout import Error

_BAD_ARGUMENT, _FENCED, _NOT_HELD = 1, 16, 17
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64
_RECALL = np.dtype([("key", "<u8"), ("deadline_ns", "<u8"), ("kind", "<u4"), ("pad", "<u4")])


class Answer(IntEnum):
    """To a request for a lease on one block."""

    GRANTED = 0
    WAITING = 1  # holders were recalled: ask again, or release
    BUSY = 2  # another agent waits for the block: ask again
    NO_MEMORY = 3  # the host has none; this block is as it was


class RecallKind(IntEnum):
    """What a recalled agent has to do before the deadline."""

    INVALIDATE = 0  # write back if modified, then release or acknowledge
    DOWNGRADE = 1  # write back; it may read on


class Recall(NamedTuple):
    """A lease that the home wants back; unanswered at the deadline, the agent is fenced."""

    key: int
    deadline_ns: int
    kind: RecallKind


@dataclass(frozen=True)
class BlockView:
    """What the home knows of a block; agents by number."""

    state: spec.DirectoryState
    holders: frozenset[int]
    waiter: int | None
    deadline_ns: int  # of a pending recall, else 0
    lost: bool


class _Agent(ctypes.Structure):
    _fields_ = (("epoch", _U64), ("deadline_ns", _U64), ("agent", _U32), ("pad", _U32))


class _Block(ctypes.Structure):
    _fields_ = (
        ("holders", _U64), ("deadline_ns", _U64), ("state", _U32), ("waiter", _U32), ("lost", _U32),
        ("pad", _U32),
    )  # fmt: skip


class DirectoryStats(ctypes.Structure):
    """agents, blocks, leases, metadata_bytes: now; the others: since the start."""

    agents: int
    blocks: int
    leases: int
    grants: int
    recalls: int
    write_backs: int
    fenced: int
    lost: int
    metadata_bytes: int
    _fields_ = tuple(
        (name, _U64)
        for name in ("agents", "blocks", "leases", "grants", "recalls", "write_backs", "fenced",
                     "lost", "metadata_bytes")
    )  # fmt: skip


@functools.cache
def _load() -> ctypes.CDLL:
    cdll = binding.load()
    pointer, i32 = ctypes.c_void_p, ctypes.c_int32
    agent, batch = [pointer, _U32, _U64], [_U32, pointer]
    tables: dict[str, tuple[list[type], type | None]] = {
        "create": ([_U64, pointer], i32),
        "destroy": ([pointer], None),
        "register": ([pointer, _U64, pointer, pointer], i32),
        "acquire": ([*agent, _U64, _U32, *batch, pointer, pointer, pointer], i32),
        "release": ([*agent, _U32, *batch, pointer], i32),
        "write_back": ([*agent, *batch, pointer], i32),
        "acknowledge": ([*agent, *batch, pointer], i32),
        "poll": ([*agent, _U64, *batch, pointer, pointer, pointer], i32),
        "expire": ([pointer, _U64, pointer], i32),
        "fence": ([*agent, pointer], i32),
        "take_lost": ([pointer, _U64, pointer], _U64),
        "look": ([pointer, _U64, pointer], None),
        "get_stats": ([pointer, pointer], None),
    }
    try:
        for name, (arguments, result) in tables.items():
            function = getattr(cdll, f"speckv_directory_{name}")
            function.argtypes, function.restype = arguments, result
    except AttributeError as error:
        raise DependencyMissing(
            f"libspeckv.so lacks the directory ({error}): build it anew from this source tree"
        ) from error
    return cdll


class Directory:
    """The home of all blocks; may be called from any thread.

    lease_ns: how long an agent may stay silent, and a recall unanswered. Times are nanoseconds of one clock that all
    agents share, such as time.monotonic_ns of one host.
    """

    def __init__(self, lease_ns: int) -> None:
        self._lib = _load()
        self._directory: ctypes.c_void_p | None = None
        made = ctypes.c_void_p()
        status = self._lib.speckv_directory_create(_time(lease_ns), ctypes.byref(made))
        error = Error(0, 0, lease_ns, 1 << 62)
        _check(status, error, "lease_ns")
        self._directory = made

    def register(self, now_ns: int) -> DirectoryAgent:
        """A new agent; ValueError when spec.MAX_AGENTS are registered."""
        made, error = _Agent(), Error()
        status = self._lib.speckv_directory_register(
            self._handle(), _time(now_ns), ctypes.byref(made), ctypes.byref(error)
        )
        _check(status, error, "agents")
        return DirectoryAgent(self, made.agent, made.epoch, made.deadline_ns)

    def expire(self, now_ns: int) -> frozenset[int]:
        """Fences every agent that is past a deadline; their numbers. To be called regularly."""
        fenced = _U64()
        status = self._lib.speckv_directory_expire(
            self._handle(), _time(now_ns), ctypes.byref(fenced)
        )
        _check(status, Error(), "expire")
        return _agents(fenced.value)

    def take_lost(self, most: int = 4096) -> U64:
        """Keys of at most `most` blocks whose fenced writer may have lost modifications; each told once."""
        keys = np.empty(most, np.uint64)
        told = self._lib.speckv_directory_take_lost(self._handle(), most, address(keys))
        return keys[:told]

    def look(self, key: int) -> BlockView:
        """A block as its home sees it."""
        block = _Block()
        self._lib.speckv_directory_look(self._handle(), key, ctypes.byref(block))
        waiter = None if block.waiter == spec.MAX_AGENTS else block.waiter
        return BlockView(
            spec.DirectoryState(block.state), _agents(block.holders), waiter, block.deadline_ns,
            bool(block.lost),
        )  # fmt: skip

    def stats(self) -> DirectoryStats:
        stats = DirectoryStats()
        self._lib.speckv_directory_get_stats(self._handle(), ctypes.byref(stats))
        return stats

    def close(self) -> None:
        """Frees it, when no call is under way; later calls raise ValueError."""
        directory, self._directory = self._directory, None
        if directory is not None:
            self._lib.speckv_directory_destroy(directory)

    def _handle(self) -> ctypes.c_void_p:
        if self._directory is None:
            raise ValueError("the directory is closed")
        return self._directory

    def __del__(self) -> None:
        if getattr(self, "_directory", None) is not None:
            self.close()


class DirectoryAgent:
    """One agent's side; Directory.register makes it. Fenced from every call once the home has fenced it.

    keys: (n,) uint64. deadline_ns: until when the agent may use its leases, as told last.
    """

    def __init__(self, directory: Directory, agent: int, epoch: int, deadline_ns: int) -> None:
        self._directory = directory
        self.agent, self.epoch, self.deadline_ns = agent, epoch, deadline_ns

    def acquire(self, keys: npt.ArrayLike, *, write: bool, now_ns: int) -> U8:
        """Asks for leases; an Answer for each key, (n,)."""
        keys = as_u64(keys)
        answers, deadline = np.empty(len(keys), np.uint8), _U64()
        self._call(
            "acquire", _time(now_ns), int(write), len(keys), address(keys), address(answers),
            ctypes.byref(deadline),
        )  # fmt: skip
        self.deadline_ns = deadline.value
        return answers

    def release(self, keys: npt.ArrayLike, *, dirty: bool) -> None:
        """Gives leases and waits up; dirty: the blocks were modified and are written back.

        LeaseError where one is not held (dirty: for writing), ValueError where a key stands twice; then all stay.
        """
        keys = as_u64(keys)
        self._call("release", int(dirty), len(keys), address(keys))

    def write_back(self, keys: npt.ArrayLike) -> None:
        """Modified blocks are written back, their write leases become read leases; errors as for release."""
        keys = as_u64(keys)
        self._call("write_back", len(keys), address(keys))

    def acknowledge(self, keys: npt.ArrayLike) -> None:
        """Recalled copies are used no longer and were not modified; errors as for release."""
        keys = as_u64(keys)
        self._call("acknowledge", len(keys), address(keys))

    def poll(self, *, now_ns: int, most: int = 256) -> list[Recall]:
        """Says that the agent lives; at most `most` of its unanswered recalls, oldest first."""
        found, count, deadline = np.empty(most, _RECALL), _U32(), _U64()
        self._call(
            "poll", _time(now_ns), most, address(found), ctypes.byref(count), ctypes.byref(deadline)
        )
        self.deadline_ns = deadline.value
        return [
            Recall(int(r["key"]), int(r["deadline_ns"]), RecallKind(r["kind"]))
            for r in found[: min(most, count.value)]
        ]

    def fence(self) -> None:
        """Ends all leases and waits of this agent: it leaves, or is known to be gone."""
        self._call("fence")

    def _call(self, name: str, *arguments: object) -> None:
        error = Error()
        function = getattr(self._directory._lib, f"speckv_directory_{name}")
        status = function(
            self._directory._handle(), self.agent, self.epoch, *arguments, ctypes.byref(error)
        )
        what = f"{name} of agent {self.agent}"
        if status == _BAD_ARGUMENT:
            raise ValueError(f"{what}: element {error.index}: block {error.value:#x} stands twice")
        _check(status, error, what)


def _check(status: int, error: Error, what: str) -> None:
    if status == _FENCED:
        raise Fenced(
            f"{what}: epoch {error.value} is fenced (now {error.limit}): drop all copies, register again"
        )
    if status == _NOT_HELD:
        state = spec.DirectoryState(error.limit).name.lower()
        raise LeaseError(
            f"{what}: element {error.index}: no lease for this on block {error.value:#x} ({state})"
        )
    if status:
        binding.raise_error(status, error, what)


def _time(ns: int) -> int:
    if not 0 <= ns < 1 << 64:
        raise ValueError(f"{ns} ns: times are from 0 to 2^64 - 1 nanoseconds")
    return ns


def _agents(bits: int) -> frozenset[int]:
    return frozenset(i for i in range(spec.MAX_AGENTS) if bits >> i & 1)
