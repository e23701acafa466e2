"""Faults in the C library's memory system: damaged records, and a full L3."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Final

import numpy as np

from speckv_pynq import spec
from speckv_pynq.allocator import OVERWRITE, READ, WRITE, AllocatorConfig, SpeckvAllocator
from speckv_pynq.bench.soak_world import (
    BLOCK_BYTES,
    HEAD_DIM,
    HEADS,
    TOKENS,
    check,
    decoded,
    record_bytes,
    written,
)
from speckv_pynq.errors import (
    PoolFull,
    RecordError,
    SpeckvError,
)
from speckv_pynq.native import system as native
from speckv_pynq.spec import Scheme

Rng = np.random.Generator
Inject = Callable[[Rng], None]
BLOCKS: Final = 12
IN_L1: Final = 3
FIRST: Final = 1  # pattern of block 0; the first that int4 codes


def refused(call: Callable[[], object], error: type[SpeckvError], what: str) -> None:
    """CheckFailed unless the call raises just this."""
    try:
        call()
    except error:
        return
    check(False, f"{what}: not refused")


class LibraryTarget:
    """Int4 blocks of one request, all but IN_L1 of them as records alone; and a system whose L3 is full."""

    def __init__(self) -> None:
        self._system = self._filled(BLOCKS, IN_L1, 64 << 12)
        self._records = BLOCKS - IN_L1
        # Of each block, once it was coded and before.
        self._wanted = [
            (decoded(pattern, Scheme.INT4), written(pattern).tobytes())
            for pattern in (FIRST + block % 7 for block in range(2 * BLOCKS))
        ]
        self._pool = self._memory(self._system)
        self._places = [self._find(block) for block in range(self._records)]
        self._full = self._filled(
            BLOCKS, IN_L1, 4096 * -(-9 * record_bytes(FIRST, Scheme.INT4) // 4096)
        )
        self._more()
        self._sound(0)  # and with it every block has a record
        self._before = [self._counts(system) for system in (self._system, self._full)]

    def kinds(self) -> dict[str, Inject]:
        return {
            "library: flipped bit": self.flip,
            "library: truncated record": self.truncate,
            "library: swapped records": self.swap,
            "library: full pool": self.fill,
        }

    def flip(self, rng: Rng) -> None:
        block = int(rng.integers(self._records))
        start, size = self._places[block]
        at, bit = start + int(rng.integers(size)), np.uint8(1 << int(rng.integers(8)))
        self._pool[at] ^= bit
        self._damaged(block)
        self._pool[at] ^= bit
        self._sound(block)

    def truncate(self, rng: Rng) -> None:
        """What was not written to the end: the rest is zeros."""
        block = int(rng.integers(self._records))
        start, size = self._places[block]
        tail = self._pool[start + int(rng.integers(size)) : start + size]
        saved = tail.copy()
        tail[:] = 0
        if not saved.any():  # it ended in zeros: then what belongs to the header goes
            tail = self._pool[start : start + size]
            saved = tail.copy()
            tail[:] = 0
        self._damaged(block)
        tail[:] = saved
        self._sound(block)

    def swap(self, rng: Rng) -> None:
        a, b = rng.choice(self._records, 2, replace=False).tolist()
        self._exchange(a, b)
        self._damaged(a)
        self._damaged(b)
        self._exchange(a, b)
        self._sound(a)

    def fill(self, rng: Rng) -> None:
        """A write that needs a record's room where there is none; what there is stays."""
        system = self._full
        block = BLOCKS + int(rng.integers(4))
        refused(lambda: system.access(0, 0, 0, block * TOKENS, 0, OVERWRITE), PoolFull, "full pool")
        with system.access(0, 0, 0, self._kept * TOKENS) as view:
            self._same(view.array.tobytes(), self._kept)

    def leaks(self) -> int:
        after = [self._counts(system) for system in (self._system, self._full)]
        return int(after != self._before)

    def close(self) -> int:
        left = 0
        for system in (self._system, self._full):
            system.free(0)
            stats = system.stats()
            left += stats.blocks + stats.leases + sum(stats.held_bytes[::2])
            system.close()
        return left

    def _damaged(self, block: int) -> None:
        """For reading and for writing."""
        access, what = self._system.access, f"block {block}"
        refused(lambda: access(0, 0, 0, block * TOKENS, 0, READ), RecordError, what)
        refused(lambda: access(0, 0, 0, block * TOKENS, 0, WRITE), RecordError, what)

    def _sound(self, block: int) -> None:
        """It is back, from its record; the blocks that were in L1 return there."""
        if block % 4:  # now and then is enough
            return
        with self._system.access(0, 0, 0, block * TOKENS) as view:
            self._same(view.array.tobytes(), block)
        for other in range(self._records, BLOCKS):
            with self._system.access(0, 0, 0, other * TOKENS) as view:
                self._same(view.array.tobytes(), other)

    def _same(self, data: bytes, block: int) -> None:
        check(data in self._wanted[block], "wrong bytes of block", block)

    def _exchange(self, a: int, b: int) -> None:
        (start, size), (second, _) = self._places[a], self._places[b]
        one, other = self._pool[start : start + size], self._pool[second : second + size]
        saved = one.copy()
        one[:] = other
        other[:] = saved

    @staticmethod
    def _counts(system: SpeckvAllocator) -> tuple[object, ...]:
        s = system.stats()
        return s.blocks, s.requests, s.leases, s.used_bytes[2], s.held_bytes[2], s.dirty_blocks

    def _filled(self, blocks: int, in_l1: int, l3_bytes: int) -> SpeckvAllocator:
        system = SpeckvAllocator(
            AllocatorConfig(
                1, HEADS, HEAD_DIM, TOKENS, scheme=Scheme.INT4, l1_bytes=in_l1 * BLOCK_BYTES, l2_bytes=0,
                l3_bytes=l3_bytes, threads=0, lease_timeout_ms=0, wait_timeout_ms=0,
            )
        )  # fmt: skip
        system.alloc(0, 2 * blocks * TOKENS)
        for block in range(blocks):
            self._write(system, block)
        return system

    @staticmethod
    def _write(system: SpeckvAllocator, block: int) -> None:
        with system.access(0, 0, 0, block * TOKENS, 0, OVERWRITE) as view:
            view.array.view(np.uint16)[:] = written(FIRST + block % 7)

    def _more(self) -> None:
        """Fills what is left of L3 of the full system, up to the first refusal."""
        self._kept = BLOCKS - 1
        for block in range(BLOCKS, 2 * BLOCKS):
            try:
                self._write(self._full, block)
            except PoolFull:
                return
            self._kept = block
        check(False, "L3 is not full")

    @staticmethod
    def _memory(system: SpeckvAllocator) -> np.ndarray:
        """L3's memory, uint8."""
        strides = native.Strides()
        system.lib.speckv_layout(system._system, ctypes.byref(strides))
        memory = (ctypes.c_uint8 * strides.l3_bytes).from_address(strides.l3)
        return np.frombuffer(memoryview(memory), np.uint8)

    def _find(self, block: int) -> tuple[int, int]:
        """First byte of a block's record, and its bytes without padding."""
        lines = self._pool.view(np.uint32)[:: spec.LINE_BYTES // 4]
        for line in np.flatnonzero(lines == spec.MAGIC).tolist():
            start = line * spec.LINE_BYTES
            size = spec.RECORD_HEADER.itemsize
            header = self._pool[start : start + size].view(spec.RECORD_HEADER)[0]
            if header["first_position"] == block * TOKENS:
                return start, size + int(header["payload_bytes"])
        raise AssertionError(f"no record of block {block}")
