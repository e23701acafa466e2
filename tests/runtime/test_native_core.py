"""The native core against its model in Python: every offset, byte and count, after every call."""

from __future__ import annotations

import mmap
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from speckv_pynq.errors import PoolFull, StaleHandle
from speckv_pynq.native import NO_OFFSET, Core, Tier
from speckv_pynq.native.layout import CoreConfig
from tests.runtime.core_model import CoreModel, Full

pytestmark = pytest.mark.requires("libspeckv")
FRAME = 4096
ROOT = Path(__file__).resolve().parents[2]
LAYERS = 3
SLOT = 3 * 64 * 7  # 21 lines: slots straddle frames
BUDGETS = (5 * FRAME + 100, 3 * FRAME, 6 * FRAME + 4000)


class Memory:
    """A core over memory of its own, whose pages it gives back."""

    def __init__(self, parts: int = 1, budgets: tuple[int, int, int] = BUDGETS) -> None:
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # pages of a shared mapping would stay
        self.pages = [mmap.mmap(-1, max(FRAME, budget), flags=private) for budget in budgets]
        self.arrays = [np.frombuffer(pages, np.uint8) for pages in self.pages]
        config = CoreConfig()
        for i, budget in enumerate(budgets):
            config.base[i], config.bytes[i] = self.arrays[i].ctypes.data, budget
            config.give_back[i] = 1
        config.frame_bytes, config.block_bytes = FRAME, SLOT
        config.parts, config.layers = parts, LAYERS
        self.core = Core(config)

    def put(self, layer: int, positions: list[int], records: list[list[bytes]]) -> np.ndarray:
        staged = b"".join(b"".join(parts) for parts in records)
        sizes = np.array([[len(r) for r in parts] for parts in records], np.uint32)
        ends = np.cumsum(sizes.reshape(-1), dtype=np.uint64)
        offsets = ends.reshape(sizes.shape) - sizes
        at = np.array(positions, np.uint32)
        handles, first, end = self.core.put(
            layer, at, np.frombuffer(staged, np.uint8), offsets, sizes
        )
        assert 0 <= first <= end <= len(self.arrays[2])
        return handles


def record(seed: int, lines: int) -> bytes:
    return np.random.default_rng(seed).bytes(lines * 64)


class CoreMachine(RuleBasedStateMachine):
    """Random calls on core and model side by side."""

    @initialize(parts=st.sampled_from([1, 1, 3]))
    def begin(self, parts: int) -> None:
        self.parts = parts
        self.memory = Memory(parts)
        self.core = self.memory.core
        self.model = CoreModel(SLOT, BUDGETS)
        self.stale: list[int] = []
        self.seed = 0
        self.hits, self.misses = [0, 0], 0

    def teardown(self) -> None:
        if not hasattr(self, "core"):
            return
        for tier in (Tier.L1, Tier.L2):
            lines = np.array(self.model.reserved[tier], np.uint64)
            assert self.core.install(tier, np.zeros_like(lines), lines * np.uint64(64)) == 0
        live = list(self.model.blocks.items())
        self.core.release(np.repeat([h for h, _ in live], [b.references for _, b in live]))
        stats = self.core.stats()
        assert (stats.blocks, stats.references, stats.record_bytes, stats.free_runs) == (0, 0, 0, 0)
        assert list(stats.held_bytes) == [0, 0, 0]
        assert stats.metadata_bytes < 1200
        self.core.close()

    def pick(self, data: Any, most: int = 4, tier: int | None = None) -> list[int]:
        """Different live blocks, without a slot in `tier`."""
        handles = [h for h, b in self.model.blocks.items() if tier not in b.slots]
        return (
            data.draw(st.lists(st.sampled_from(handles), max_size=most, unique=True))
            if handles
            else []
        )

    @rule(data=st.data(), layer=st.integers(0, LAYERS - 1), count=st.integers(0, 4))
    def put(self, data: Any, layer: int, count: int) -> None:
        sizes = st.lists(st.integers(1, 40), min_size=self.parts, max_size=self.parts)
        records = []
        for _ in range(count):
            self.seed += 1
            records.append([record(self.seed, n) for n in data.draw(sizes)])
        positions = list(range(self.seed, self.seed + count))
        try:
            blocks = self.model.put(layer, positions, records)
        except Full:
            with pytest.raises(PoolFull):
                self.memory.put(layer, positions, records)
            return
        handles = self.memory.put(layer, positions, records).tolist() if count else []
        assert not set(handles) & (set(self.model.blocks) | set(self.stale))
        self.model.blocks.update(zip(handles, blocks, strict=True))

    @rule(data=st.data())
    def retain(self, data: Any) -> None:
        handles = self.pick(data) * 2
        self.core.retain(handles)
        for handle in handles:
            self.model.blocks[handle].references += 1

    @rule(data=st.data())
    def release(self, data: Any) -> None:
        handles = self.pick(data)
        self.core.release(handles)
        for handle in handles:
            self.model.release(handle)
            if handle not in self.model.blocks:
                self.stale.append(handle)

    @precondition(lambda self: self.model.blocks)
    @rule(data=st.data())
    def release_once_too_often(self, data: Any) -> None:
        handle = data.draw(st.sampled_from(list(self.model.blocks)))
        others = self.pick(data)
        count = self.model.blocks[handle].references + 1 - others.count(handle)
        with pytest.raises(StaleHandle, match=f"{handle:#x}"):
            self.core.release([*others, *[handle] * count])

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def use_a_stale_handle(self, data: Any) -> None:
        handles = [*self.pick(data), data.draw(st.sampled_from(self.stale))]
        calls = (
            self.core.plan_get, self.core.retain, self.core.release, self.core.touch,
            lambda h: self.core.evict(Tier.L1, h), lambda h: self.core.admit(Tier.L1, h),
        )  # fmt: skip
        for call in calls:
            with pytest.raises(StaleHandle, match=f"element {len(handles) - 1}"):
                call(handles)

    @rule(data=st.data(), tier=st.sampled_from([Tier.L1, Tier.L2]))
    def admit(self, data: Any, tier: Tier) -> None:
        handles = self.pick(data, 4, tier)
        evictions = data.draw(st.integers(0, min(3, len(self.model.order[tier]))))
        if len(handles) > self.model.free_slots(tier) + evictions:
            with pytest.raises(PoolFull):
                self.core.admit(tier, handles, evictions)
            return
        offsets = self.core.admit(tier, handles, evictions).tolist()
        self.model.admit(tier, handles, evictions)
        assert offsets == [self.model.blocks[h].slots[tier] * 64 for h in handles]

    @rule(data=st.data(), tier=st.sampled_from([Tier.L1, Tier.L2]), count=st.integers(0, 3))
    def reserve(self, data: Any, tier: Tier, count: int) -> None:
        evictions = data.draw(st.integers(0, min(3, len(self.model.order[tier]))))
        if count > self.model.free_slots(tier) + evictions:
            with pytest.raises(PoolFull):
                self.core.reserve(tier, count, evictions)
            return
        offsets = self.core.reserve(tier, count, evictions).tolist()
        assert offsets == [line * 64 for line in self.model.reserve(tier, count, evictions)]

    @rule(data=st.data(), tier=st.sampled_from([Tier.L1, Tier.L2]))
    def install(self, data: Any, tier: Tier) -> None:
        reserved = self.model.reserved[tier]
        lines = data.draw(st.permutations(reserved))[: data.draw(st.integers(0, 3))]
        anyone = st.sampled_from([*self.model.blocks, *self.stale, 0])
        handles = [data.draw(anyone) for _ in lines]
        offsets = np.array(lines, np.uint64) * np.uint64(64)
        for bad in (
            1,
            SLOT * 99,
            *(b.slots[tier] * 64 for b in self.model.blocks.values() if tier in b.slots),
        ):
            with pytest.raises(ValueError, match=f"install in {tier.name}: element {len(lines)}"):
                self.core.install(tier, [*handles, 0], np.append(offsets, np.uint64(bad)))
        if lines:
            with pytest.raises(ValueError, match=f"element {len(lines)}"):
                self.core.install(tier, [*handles, 0], np.append(offsets, offsets[0]))
        assert self.core.install(tier, handles, offsets) == self.model.install(tier, handles, lines)

    @rule(data=st.data(), tier=st.sampled_from([Tier.L1, Tier.L2]))
    def evict(self, data: Any, tier: Tier) -> None:
        handles = self.pick(data)
        self.core.evict(tier, handles)
        for handle in handles:
            self.model.evict(tier, handle)

    @rule(data=st.data())
    def touch(self, data: Any) -> None:
        handles = self.pick(data)
        self.core.touch(handles)
        self.model.touch(handles)

    @rule(data=st.data())
    def plan(self, data: Any) -> None:
        live = list(self.model.blocks)
        handles = data.draw(st.lists(st.sampled_from(live), max_size=6)) if live else []
        plan = self.core.plan_get(handles)
        misses = list(dict.fromkeys(h for h in handles if not self.model.blocks[h].slots))
        assert plan.handles.tolist() == misses
        for i, handle in enumerate(handles):
            block = self.model.blocks[handle]
            tier = min(block.slots, default=2)
            assert plan.tiers[i] == tier
            if tier == 2:
                self.misses += 1
                assert plan.offsets[i] == NO_OFFSET
                assert plan.handles[plan.sources[i]] == handle
            else:
                self.hits[tier] += 1
                assert plan.offsets[i] == block.slots[tier] * 64
        for i, handle in enumerate(misses):
            block = self.model.blocks[handle]
            assert (plan.positions[i], plan.layers[i]) == (block.position, block.layer)
            assert plan.record_offsets[i].tolist() == [line * 64 for line in block.lines]
            assert plan.record_bytes[i].tolist() == [len(r) for r in block.records]

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "core"):
            return
        stats, model = self.core.stats(), self.model
        assert stats.blocks == len(model.blocks)
        assert stats.references == sum(b.references for b in model.blocks.values())
        assert list(stats.held_bytes) == [tier.held_bytes() for tier in model.tiers]
        assert list(stats.used_bytes) == [tier.used_bytes() for tier in model.tiers]
        assert all(h <= b for h, b in zip(stats.held_bytes, BUDGETS, strict=True))
        assert stats.record_bytes == sum(len(r) for b in model.blocks.values() for r in b.records)
        assert stats.free_runs == model.tiers[2].free_runs()
        assert (list(stats.hits), stats.misses) == (self.hits, self.misses)
        by_layer = [0] * LAYERS
        for block in model.blocks.values():
            by_layer[block.layer] += sum(len(r) for r in block.records)
        assert self.core.layer_bytes().tolist() == by_layer
        for tier in (Tier.L1, Tier.L2):
            assert self.core.resident(tier).tolist() == list(model.order[tier])
            assert self.core.free_slots(tier) == model.free_slots(tier)

    @invariant()
    def records_are_whole(self) -> None:
        if not hasattr(self, "core"):
            return
        pool = self.memory.arrays[2]
        for handle, block in self.model.blocks.items():
            references, offsets, sizes = self.core.block(handle)
            assert references == block.references
            for offset, size, data in zip(offsets, sizes, block.records, strict=True):
                assert pool[int(offset) : int(offset) + int(size)].tobytes() == data


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_empty_frames_go_back_to_the_system() -> None:
    memory = Memory(budgets=(FRAME, FRAME, 64 * FRAME))
    handles = memory.put(0, list(range(32)), [[record(i, 64)] for i in range(32)])
    memory.core.release(handles[8:24])
    assert memory.core.stats().held_bytes[2] == 16 * FRAME
    frames = memory.arrays[2][: 32 * FRAME].reshape(32, FRAME).any(axis=1)
    assert frames.tolist() == [True] * 8 + [False] * 16 + [True] * 8


def test_a_frame_with_one_line_in_use_stays() -> None:
    memory = Memory(budgets=(FRAME, FRAME, 4 * FRAME))
    handles = memory.put(0, [0, 1, 2], [[record(1, 63)], [record(2, 2)], [record(3, 63)]])
    memory.core.release(handles[[0, 2]])
    stats = memory.core.stats()
    assert (stats.held_bytes[2], stats.used_bytes[2]) == (2 * FRAME, 128)


def test_slack_stays_small_when_records_of_all_sizes_come_and_go() -> None:
    budget = 2048 * FRAME
    memory = Memory(budgets=(FRAME, FRAME, budget))
    rng, live, worst = np.random.default_rng(11), [], 0.0
    for step in range(3000):
        if step < 600 or rng.random() < 0.5:
            size = int(rng.integers(60, 240))
            live += memory.put(0, [step], [[b"\1" * 64 * size]]).tolist()
        else:
            memory.core.release([live.pop(int(rng.integers(len(live))))])
        stats = memory.core.stats()
        if step > 600:
            worst = max(worst, 1 - stats.used_bytes[2] / stats.held_bytes[2])
    assert worst < 0.12


def test_metadata_is_a_small_part() -> None:
    memory = Memory(budgets=(FRAME, FRAME, 16384 * FRAME))
    for _ in range(64):
        memory.put(0, list(range(128)), [[b"\1" * 64 * 110]] * 128)
    assert memory.core.stats().metadata_bytes < 100 * 64 * 128


@pytest.mark.parametrize(
    ("field", "value"),
    [("frame_bytes", 1000), ("block_bytes", 100), ("parts", 0), ("layers", 0)],
)
def test_a_wrong_configuration_is_refused(field: str, value: int) -> None:
    config = CoreConfig()
    config.frame_bytes, config.block_bytes, config.parts, config.layers = FRAME, SLOT, 1, 1
    setattr(config, field, value)
    with pytest.raises(ValueError, match="core configuration"):
        Core(config)


def test_admitting_twice_is_refused() -> None:
    memory = Memory()
    (handle,) = memory.put(0, [0], [[record(0, 1)]])
    memory.core.admit(Tier.L1, [handle])
    for handles in ([handle], [handle, handle]):
        with pytest.raises(ValueError, match="admit to L1"):
            memory.core.admit(Tier.L1, handles)
    with pytest.raises(ValueError, match="admit to L2: element 1"):
        memory.core.admit(Tier.L2, [handle, handle])


def test_sizes_that_are_not_whole_lines_are_refused() -> None:
    memory = Memory()
    with pytest.raises(ValueError, match="element 1: 65 "):
        memory.put(0, [0, 1], [[record(0, 2)], [b"\0" * 65]])
    assert memory.core.stats().held_bytes[2] == 0


@pytest.mark.sanitizer
@pytest.mark.requires("g++")
def test_every_allocation_may_fail_once(tmp_path: Path) -> None:
    """The call that meets it is refused and changes nothing, or does without; nothing stays in the end."""
    native, out = ROOT / "speckv_pynq/native", tmp_path / "core_faults"
    sources = [str(native / f"{name}.cpp") for name in ("core", "block_table", "line_allocator")]
    command = [
        *("g++", "-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address", "-pthread"),
        *("-I", str(native), "-I", str(ROOT / "hls/generated")),
        *(str(Path(__file__).parent / "core_faults.cpp"), *sources, "-o", str(out)),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    done = subprocess.run([out], check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "every allocation failed once" in done.stdout
