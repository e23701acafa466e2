"""The tier core in plain Python: the oracle of its tests, slow and short enough to be read."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

FRAME_LINES = 64
LINE = 64


class Full(Exception):
    """No run of lines is long enough."""


class Lines:
    """Best fit, lowest first, below the highest line in use; above it when nothing there fits."""

    def __init__(self, lines: int) -> None:
        self.used = [False] * lines

    def take(self, count: int) -> int:
        top = max((i + 1 for i, used in enumerate(self.used) if used), default=0)
        fitting = [run for run in self._free_runs(top) if run[0] >= count]
        if not fitting and len(self.used) - top < count:
            raise Full
        first = min(fitting)[1] if fitting else top
        self.used[first : first + count] = [True] * count
        return first

    def give(self, first: int, count: int) -> None:
        assert all(self.used[first : first + count])
        self.used[first : first + count] = [False] * count

    def held_bytes(self) -> int:
        frames = range(0, len(self.used), FRAME_LINES)
        return sum(any(self.used[f : f + FRAME_LINES]) for f in frames) * FRAME_LINES * LINE

    def used_bytes(self) -> int:
        return sum(self.used) * LINE

    def free_runs(self) -> int:
        top = max((i + 1 for i, used in enumerate(self.used) if used), default=0)
        return len(self._free_runs(top))

    def _free_runs(self, top: int) -> list[tuple[int, int]]:
        """(lines, first) of each free run below top."""
        runs, start = [], None
        for i in range(top):
            if self.used[i]:
                if start is not None:
                    runs.append((i - start, start))
                start = None
            elif start is None:
                start = i
        return runs


@dataclass
class ModelBlock:
    layer: int
    position: int
    records: list[bytes]
    lines: list[int]
    references: int = 1
    slots: dict[int, int] = field(default_factory=dict)  # tier -> first line


class CoreModel:
    """Blocks by a key that the caller chooses."""

    def __init__(self, slot_bytes: int, budgets: tuple[int, int, int]) -> None:
        self.slot_lines = slot_bytes // LINE
        self.tiers = [Lines(b // (FRAME_LINES * LINE) * FRAME_LINES) for b in budgets]
        self.blocks: dict[int, ModelBlock] = {}
        self.order: list[OrderedDict[int, None]] = [OrderedDict(), OrderedDict()]  # oldest first
        self.reserved: list[list[int]] = [[], []]  # first lines

    def total_slots(self, tier: int) -> int:
        return len(self.tiers[tier].used) // self.slot_lines

    def put(self, layer: int, positions: list[int], records: list[list[bytes]]) -> list[ModelBlock]:
        """All blocks, or Full and none."""
        pool, new = self.tiers[2], []
        taken: list[tuple[int, int]] = []
        try:
            for position, parts in zip(positions, records, strict=True):
                lines = []
                for record in parts:
                    lines.append(pool.take(len(record) // LINE))
                    taken.append((lines[-1], len(record) // LINE))
                new.append(ModelBlock(layer, position, parts, lines))
        except Full:
            for first, count in taken:
                pool.give(first, count)
            raise
        return new

    def release(self, key: int) -> None:
        block = self.blocks[key]
        block.references -= 1
        if block.references:
            return
        for tier in list(block.slots):
            self.evict(tier, key)
        for first, record in zip(block.lines, block.records, strict=True):
            self.tiers[2].give(first, len(record) // LINE)
        del self.blocks[key]

    def admit(self, tier: int, keys: list[int], evictions: int) -> None:
        for _ in range(evictions):
            self.evict(tier, next(iter(self.order[tier])))
        for key in keys:
            self.blocks[key].slots[tier] = self.tiers[tier].take(self.slot_lines)
            self.order[tier][key] = None

    def reserve(self, tier: int, count: int, evictions: int) -> list[int]:
        """First lines of the slots."""
        self.admit(tier, [], evictions)
        lines = [self.tiers[tier].take(self.slot_lines) for _ in range(count)]
        self.reserved[tier] += lines
        return lines

    def install(self, tier: int, keys: list[int], lines: list[int]) -> int:
        """How many became a block's."""
        installed = 0
        for key, line in zip(keys, lines, strict=True):
            self.reserved[tier].remove(line)
            if key in self.blocks and tier not in self.blocks[key].slots:
                self.blocks[key].slots[tier] = line
                self.order[tier][key] = None
                installed += 1
            else:
                self.tiers[tier].give(line, self.slot_lines)
        return installed

    def free_slots(self, tier: int) -> int:
        return self.total_slots(tier) - len(self.order[tier]) - len(self.reserved[tier])

    def evict(self, tier: int, key: int) -> None:
        if tier in self.blocks[key].slots:
            self.tiers[tier].give(self.blocks[key].slots.pop(tier), self.slot_lines)
            del self.order[tier][key]

    def touch(self, keys: list[int]) -> None:
        for key in keys:
            if key in self.order[0]:
                self.order[0].move_to_end(key)
