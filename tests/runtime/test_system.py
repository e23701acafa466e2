"""The C library's memory system against a dict: every byte, error and count, after every call."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speckv_pynq.allocator import OVERWRITE, READ, WRITE, View
from speckv_pynq.errors import LeaseTimeout, NotWritten, PoolFull, RecordError, StaleHandle
from speckv_pynq.spec import Scheme
from tests.runtime.system import (
    BLOCK,
    FRAME,
    RECORD,
    SHAPE,
    TOKENS,
    block_of,
    coded,
    pool_of,
    records_in,
    small,
)

pytestmark = pytest.mark.requires("libspeckv")
REQUESTS, BLOCKS = st.integers(0, 3), st.integers(0, 3)
KEYS = st.tuples(st.integers(0, 1), BLOCKS)
MODES = st.sampled_from([READ, READ, READ, WRITE, WRITE, OVERWRITE])
HOLD = st.sampled_from([False] * 7 + [True])
CALLS = st.lists(
    st.tuples(st.integers(0, 1) | REQUESTS, KEYS, MODES, HOLD), min_size=6, max_size=12
)


@dataclass(eq=False)
class Content:
    """A block: what was written, or once it is seen coded, what that decodes to."""

    bits: np.ndarray
    scheme: Scheme
    layer: int
    block: int
    written: bool = True  # since it was last coded, as far as anybody can see
    damaged: bool = False  # perhaps: records do not say whose they are

    def see(self, got: np.ndarray) -> None:
        if got.tobytes() == self.bits.tobytes():
            return
        assert self.written
        assert got.tobytes() == coded(self.bits, self.scheme, self.layer, self.block).tobytes()
        self.bits, self.written = got.copy(), False


@dataclass(eq=False)
class Held:
    view: View
    content: Content
    mode: int


@dataclass
class Request:
    blocks: int = 0
    contents: dict[tuple[int, int], Content] = field(default_factory=dict)


class SystemMachine(RuleBasedStateMachine):
    """Random calls on system and model side by side; nobody waits, so outcomes are known at once."""

    schemes = (Scheme.RAW,)

    @initialize(
        data=st.data(),
        slots=st.integers(1, 4),
        frames=st.integers(2, 24),
        policy=st.sampled_from(["lru", "dense"]),
        threads=st.integers(0, 1),
    )
    def begin(self, data: Any, slots: int, frames: int, policy: str, threads: int) -> None:
        self.scheme = data.draw(st.sampled_from(self.schemes))
        self.slots, self.frames = slots, frames
        self.system = small(
            scheme=self.scheme, policy=policy, threads=threads, l1_bytes=slots * BLOCK + 100,
            l3_bytes=frames * FRAME + 100,
        )  # fmt: skip
        self.base_bytes = self.system.stats().metadata_bytes
        self.requests: dict[int, Request] = {}
        self.held: list[Held] = []
        self.seed = 0
        for request in (0, 1):
            self.alloc(request, 4)

    def teardown(self) -> None:
        if not hasattr(self, "system"):
            return
        for held in self.held:
            self.system.release(held.view)
        for request in self.requests:
            self.system.free(request)
        stats, deadline = self.system.stats(), time.monotonic() + 10
        # A block on its way lives until its fetch ends.
        while stats.blocks and time.monotonic() < deadline:
            time.sleep(0.001)
            stats = self.system.stats()
        assert (stats.requests, stats.blocks, stats.dirty_blocks, stats.leases) == (0, 0, 0, 0)
        assert stats.held_bytes[0] == stats.held_bytes[2] == stats.used_bytes[2] == 0
        assert stats.metadata_bytes < self.base_bytes + 2000
        self.system.close()

    def users(self, content: Content) -> int:
        return sum(c is content for r in self.requests.values() for c in r.contents.values())

    def pinned(self) -> list[Content]:
        return list({id(h.content): h.content for h in self.held}.values())

    def conflict(self, content: Content | None, mode: int) -> bool:
        modes = [h.mode for h in self.held if h.content is content]
        if mode == READ or (content is not None and self.users(content) > 1):
            return any(m != READ for m in modes)
        return bool(modes)

    def may_hold(self) -> bool:
        """A system whose slots are all held does nothing any more: rarely."""
        return len(self.held) < self.slots - 1 or self.seed % 16 == 0

    def attempt(self, request: int, layer: int, block: int, mode: int) -> View | None:
        """A view, or None where an error is right."""
        mine = self.requests.get(request, Request())
        content = mine.contents.get((layer, block))
        position = block * TOKENS + self.seed % TOKENS
        if block >= mine.blocks or (content is None and mode == READ):
            with pytest.raises(NotWritten):
                self.system.access(request, layer, 0, position, 0, mode)
            return None
        try:
            view = self.system.access(request, layer, 0, position, self.seed % 2, mode)
        except LeaseTimeout:
            assert self.conflict(content, mode) or len(self.pinned()) == self.slots
        except RecordError:
            assert content is not None
            assert content.damaged
            assert mode != OVERWRITE
        except PoolFull:  # so many records are there that another may not fit
            assert self.frames * FRAME - self.system.stats().used_bytes[2] < 2 * RECORD
        else:
            assert not self.conflict(content, mode)
            return view
        return None

    def open_for_writing(self, request: int, layer: int, block: int, mode: int) -> Held | None:
        view = self.attempt(request, layer, block, mode)
        if view is None:
            return None
        contents = self.requests[request].contents
        content, got = contents.get((layer, block)), view.array.view(np.uint16)
        if content is None:
            assert not got.any()
            content = Content(got.copy(), self.scheme, layer, block)
        elif self.users(content) > 1:
            if mode == WRITE:
                whole = Content(content.bits, content.scheme, layer, block, content.written)
                whole.see(got)
            content = Content(got.copy(), self.scheme, layer, block)
        elif mode == WRITE:
            content.see(got)
        contents[layer, block] = content
        content.bits, content.written, content.damaged = got.copy(), True, False
        return Held(view, content, mode)

    @rule(request=REQUESTS, blocks=BLOCKS)
    def alloc(self, request: int, blocks: int) -> None:
        self.system.alloc(request, blocks * TOKENS - (blocks > 0))
        mine = self.requests.setdefault(request, Request())
        mine.blocks = max(mine.blocks, blocks)

    @rule(calls=CALLS)
    def work(self, calls: list[tuple[int, tuple[int, int], int, bool]]) -> None:
        for request, key, mode, hold in calls:
            if request not in self.requests and self.seed % 4:
                self.alloc(request, 4)
            if mode == READ:
                self.read(request, key, hold)
            else:
                self.write(request, key, mode, hold)
            self.views_keep_their_bytes()
            self.counts_agree()

    def write(self, request: int, key: tuple[int, int], mode: int, hold: bool) -> None:
        self.seed += 1
        held = self.open_for_writing(request, *key, mode)
        if held is None:
            return
        new = block_of(self.seed)
        if mode == WRITE and self.seed % 3:
            held.view.entry.view(np.uint16)[:] = new[0, 0, 0]
            kind, token = self.seed % 2, self.seed % TOKENS
            held.content.bits[kind, token, 0] = new[0, 0, 0]
        else:
            held.view.array.view(np.uint16)[:] = held.content.bits[:] = new
        if hold and self.may_hold():
            self.held.append(held)
        else:
            self.system.release(held.view)

    def read(self, request: int, key: tuple[int, int], hold: bool) -> None:
        self.seed += 1
        view = self.attempt(request, *key, READ)
        if view is None:
            return
        content = self.requests[request].contents[key]
        content.see(view.array.view(np.uint16))
        entry = content.bits[self.seed % 2, self.seed % TOKENS, 0]
        assert view.entry.tobytes() == entry.tobytes()
        assert view.first_position == key[1] * TOKENS
        if hold and self.may_hold():
            self.held.append(Held(view, content, READ))
        else:
            self.system.release(view)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        held = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        stale = View.from_buffer_copy(held.view)
        self.system.release(held.view)
        for view in (held.view, stale):
            with pytest.raises(StaleHandle):
                self.system.release(view)

    @rule(source=REQUESTS, copy=REQUESTS)
    def fork(self, source: int, copy: int) -> None:
        if source != copy and copy in self.requests and self.seed % 4:
            self.free(copy)
        mine = self.requests.get(source)
        if mine is None or copy in self.requests:
            with pytest.raises((NotWritten, ValueError)):
                self.system.fork(source, copy)
            return
        written = [h.content for h in self.held if h.mode != READ]
        if any(c is w for c in mine.contents.values() for w in written):
            with pytest.raises(LeaseTimeout):
                self.system.fork(source, copy)
            return
        self.system.fork(source, copy)
        self.requests[copy] = Request(mine.blocks, dict(mine.contents))

    @rule(request=REQUESTS)
    def free(self, request: int) -> None:
        if self.requests.pop(request, None) is None:
            with pytest.raises(NotWritten):
                self.system.free(request)
        else:
            self.system.free(request)

    @rule(request=REQUESTS, layer=st.integers(0, 1), depth=st.integers(0, 5))
    def prefetch(self, request: int, layer: int, depth: int) -> None:
        if request in self.requests:
            self.system.prefetch(request, layer, 0, depth)

    @rule(data=st.data())
    def change_scheme(self, data: Any) -> None:
        self.scheme = data.draw(st.sampled_from(self.schemes))
        self.system.set_compression_scheme(self.scheme)

    @rule(key=KEYS, data=st.data())
    def damage(self, key: tuple[int, int], data: Any) -> None:
        pool = pool_of(self.system)
        for start, size in records_in(pool, *key):
            pool[start + data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(st.integers(0, 7))
        for content in {
            *self.pinned(),
            *(c for r in self.requests.values() for c in r.contents.values()),
        }:
            content.damaged |= (content.layer, content.block) == key

    @invariant()
    def views_keep_their_bytes(self) -> None:
        for held in getattr(self, "held", ()):
            assert held.view.array.tobytes() == held.content.bits.tobytes()

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "system"):
            return
        stats = self.system.stats()
        contents = {c for r in self.requests.values() for c in r.contents.values()}
        assert stats.blocks == len(contents | set(self.pinned()))
        assert (stats.requests, stats.leases) == (len(self.requests), len(self.held))
        assert all(h <= b for h, b in zip(stats.held_bytes, stats.budget_bytes, strict=True))
        assert len(self.pinned()) <= stats.held_bytes[0] // BLOCK <= self.slots
        assert stats.held_bytes[0] % BLOCK == 0
        assert stats.dirty_blocks * BLOCK <= stats.held_bytes[0]
        self.check_records(stats.used_bytes[2], stats.blocks - stats.dirty_blocks)

    def check_records(self, used_bytes: int, records: int) -> None:
        assert used_bytes == records * RECORD


class LossySystemMachine(SystemMachine):
    """The same with schemes that lose: every byte is what was written, or what the reference decodes."""

    schemes = (Scheme.INT4, Scheme.INT8_DELTA_RLE, Scheme.LOSSLESS)

    def check_records(self, used_bytes: int, records: int) -> None:
        assert records * 64 <= used_bytes <= records * RECORD


TestSystem = SystemMachine.TestCase
TestSystem.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestLossySystem = LossySystemMachine.TestCase
TestLossySystem.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_shape_of_a_block_is_as_the_layout_says() -> None:
    with small() as system:
        system.alloc(0, TOKENS)
        with system.access(0, 1, 0, 5, 1, WRITE) as view:
            view.entry[:] = 7
            assert view.array.shape == SHAPE
            assert np.argwhere(view.array.any(axis=-1)).tolist() == [[1, 5, 0]]
