"""A thousand sequences come, fork, diverge and go: exact accounting at every step, flat memory."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from speckv_pynq.allocator import OVERWRITE
from tests.runtime.system import BLOCK, FRAME, RECORD, SHAPE, TOKENS, small

pytestmark = pytest.mark.requires("libspeckv")
SEQUENCES, BLOCKS = 1000, 6
PATTERN = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Soak:
    """Random calls, and what must come back: a number for each block's content."""

    def __init__(self) -> None:
        self.system = small(
            l1_bytes=64 * BLOCK, l2_bytes=16 * BLOCK, l3_bytes=8192 * FRAME, threads=1
        )
        self.rng = np.random.default_rng(8)
        self.sequences: dict[int, list[int]] = {}
        self.users: Counter[int] = Counter()  # of a content
        self.next_request = self.next_content = 0

    def some(self) -> int:
        ids = list(self.sequences)
        return ids[int(self.rng.integers(len(ids)))]

    def write(self, request: int, block: int) -> None:
        self.next_content += 1
        with self.system.access(request, 0, 0, block * TOKENS, 0, OVERWRITE) as view:
            np.bitwise_xor(PATTERN, self.next_content & 0xFFFF, out=view.array.view(np.uint16))
        contents = self.sequences[request]
        if block < len(contents):
            self.leave(contents[block])
            contents[block] = self.next_content
        else:
            contents.append(self.next_content)
        self.users[self.next_content] += 1

    def leave(self, content: int) -> None:
        self.users[content] -= 1
        if not self.users[content]:
            del self.users[content]

    def read(self, request: int) -> None:
        self.system.prefetch(request, 0, 0, BLOCKS)
        for block, content in enumerate(self.sequences[request]):
            with self.system.access(request, 0, 0, block * TOKENS) as view:
                expected = PATTERN ^ np.uint16(content & 0xFFFF)
                assert view.array.tobytes() == expected.tobytes()

    def come(self) -> None:
        request, self.next_request = self.next_request, self.next_request + 1
        if self.sequences and self.rng.random() < 0.5:
            source = self.some()
            self.system.fork(source, request)
            self.sequences[request] = list(self.sequences[source])
            self.users.update(self.sequences[source])
            self.write(request, len(self.sequences[request]) - 1)  # diverges at its end
        else:
            self.system.alloc(request, BLOCKS * TOKENS)
            self.sequences[request] = []
            for block in range(int(self.rng.integers(1, BLOCKS + 1))):
                self.write(request, block)

    def go(self, request: int) -> None:
        self.system.free(request)
        for content in self.sequences.pop(request):
            self.leave(content)

    def step(self) -> None:
        if len(self.sequences) < SEQUENCES or self.rng.random() < 0.3:
            self.come()
        if len(self.sequences) > SEQUENCES:
            self.go(self.some())
        request = self.some()
        self.read(request)
        self.write(request, int(self.rng.integers(len(self.sequences[request]))))
        stats = self.system.stats()
        assert stats.blocks == len(self.users)
        assert stats.requests == len(self.sequences)
        assert stats.used_bytes[2] == (stats.blocks - stats.dirty_blocks) * RECORD
        assert all(h <= b for h, b in zip(stats.held_bytes, stats.budget_bytes, strict=True))
        assert stats.leases == 0

    def run(self, seconds: float) -> None:
        while len(self.sequences) < SEQUENCES:
            self.step()
        for _ in range(1000):
            self.step()
        start, deadline = resident_bytes(), time.monotonic() + seconds
        while time.monotonic() < deadline:
            for _ in range(100):
                self.step()
        held = sum(self.system.stats().held_bytes)
        assert (
            resident_bytes() - start < held // 5
        )  # what comes and goes: neither leaks nor peaks stay
        for request in list(self.sequences):
            self.go(request)
        assert sum(self.system.stats().held_bytes[::2]) == 0


def test_a_thousand_sequences() -> None:
    Soak().run(1.0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_sequences_for_ten_minutes() -> None:
    Soak().run(600.0)
