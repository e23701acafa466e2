"""The two memory systems that a soak runs on, behind one interface, each with its own accounts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np

from speckv_pynq import spec
from speckv_pynq.allocator import OVERWRITE, WRITE, AllocatorConfig, SpeckvAllocator
from speckv_pynq.bench.soak_world import (
    BLOCK_BYTES,
    HEAD_DIM,
    HEADS,
    LAYERS,
    TOKENS,
    Held,
    World,
    check,
    decoded,
    place,
    record_bytes,
    written,
)
from speckv_pynq.config import TierConfig
from speckv_pynq.native.directory import Answer
from speckv_pynq.spec import Scheme
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig

L1_BLOCKS: Final = 64
L2_BLOCKS: Final = 16
METADATA_BYTES_EACH: Final = 640  # at most, for each block that any sequence ever had at once
METADATA_BYTES: Final = 64 << 10  # and this beside them
LEASE_S: Final = 0.02


class Engine(Protocol):
    """A memory system and the checks of its accounts; calls raise PoolFull and change nothing then."""

    world: World
    scheme: Scheme  # of blocks that are made from now on

    def open(self, request: int, cells: int) -> None: ...

    def write(self, request: int, cell: int, pattern: int) -> None: ...

    def read(self, request: int) -> Iterator[Held]:
        """Each block of a sequence, after its bytes were compared; CheckFailed where they differ."""
        ...

    def fork(self, request: int, new: int) -> None: ...

    def free(self, request: int) -> None: ...

    def turn(self, number: int) -> None:
        """Something that comes only now and then."""
        ...

    def check(self) -> None:
        """CheckFailed where an account differs from the model's."""
        ...

    def held_bytes(self) -> int:
        """Memory of all tiers and tables."""
        ...

    def evictions(self, first_reads: int) -> int: ...

    def close(self) -> None:
        """After all sequences have gone: CheckFailed where something stayed."""
        ...


class CEngine:
    """The C library. Both schemes at once: each turn the other one, for blocks made from then on."""

    def __init__(self, l3_bytes: int, seed: int) -> None:
        self.world, self.scheme = World(share_equal=False), Scheme.RAW
        self._rng = np.random.default_rng(seed)
        self._system = SpeckvAllocator(
            AllocatorConfig(
                LAYERS, HEADS, HEAD_DIM, TOKENS, scheme=Scheme.RAW, l1_bytes=L1_BLOCKS * BLOCK_BYTES,
                l2_bytes=L2_BLOCKS * BLOCK_BYTES, l3_bytes=l3_bytes, threads=1,
            )
        )  # fmt: skip
        self._sizes = record_bytes(1, Scheme.INT4), record_bytes(1, Scheme.RAW)

    def open(self, request: int, cells: int) -> None:
        self._system.alloc(request, place(cells - 1)[1] + TOKENS)

    def write(self, request: int, cell: int, pattern: int) -> None:
        row = self.world.sequences[request]
        old = row[cell] if cell < len(row) else None
        look = old is not None and self._rng.random() < 0.5
        layer, position = place(cell)
        with self._system.access(
            request, layer, 0, position, 0, WRITE if look else OVERWRITE
        ) as view:
            if look and old is not None:
                same(old, view.array.tobytes(), may_be_exact=True)
            view.array.view(np.uint16)[:] = written(pattern)

    def read(self, request: int) -> Iterator[Held]:
        for layer in range(LAYERS):
            self._system.prefetch(request, layer, 0, L2_BLOCKS // LAYERS)
        for cell, held in enumerate(self.world.sequences[request]):
            layer, position = place(cell)
            with self._system.access(request, layer, 0, position) as view:
                same(held, view.array.tobytes(), may_be_exact=True)
            yield held

    def fork(self, request: int, new: int) -> None:
        self._system.fork(request, new)

    def free(self, request: int) -> None:
        self._system.free(request)

    def turn(self, number: int) -> None:
        self.scheme = (Scheme.RAW, Scheme.INT4)[number % 2]
        self._system.set_compression_scheme(self.scheme)

    def check(self) -> None:
        world, stats = self.world, self._system.stats()
        check(stats.blocks == world.blocks, "blocks", stats.blocks, world.blocks)
        check(stats.requests == len(world.sequences), "requests", stats.requests)
        check(stats.leases == 0, "leases", stats.leases)
        small, large = self._sizes
        coded = stats.blocks - stats.dirty_blocks  # how many have a record is known, which is not
        rest = stats.used_bytes[2] - coded * small
        check(rest % (large - small) == 0, "L3's bytes are no sum of records", stats.used_bytes[2])
        of_all = (world.record_bytes - world.blocks * small) // (large - small)
        found = rest // (large - small)
        fits = of_all - stats.dirty_blocks <= found <= of_all
        check(fits, "records of full size", found, of_all, stats.dirty_blocks)
        check(stats.used_bytes[0] % BLOCK_BYTES == 0, "L1's bytes", stats.used_bytes[0])
        for name, held, used, budget in zip(
            ("L1", "L2", "L3"), stats.held_bytes, stats.used_bytes, stats.budget_bytes, strict=True
        ):
            check(used <= held <= budget, name, used, held, budget)
        bound = METADATA_BYTES + METADATA_BYTES_EACH * world.most_references
        check(world.blocks * 32 <= stats.metadata_bytes <= bound, "metadata", stats.metadata_bytes)

    def held_bytes(self) -> int:
        stats = self._system.stats()
        return sum(stats.held_bytes) + stats.metadata_bytes + stats.staging_bytes

    def evictions(self, first_reads: int) -> int:
        return self._system.stats().evictions

    def close(self) -> None:
        stats = self._system.stats()
        check(sum(stats.held_bytes[::2]) == stats.blocks == stats.requests == 0, "left", stats)
        self._system.close()


class PythonEngine:
    """CXLSpecKVSystem, with agents that hold leases and fall silent."""

    def __init__(self, scheme: Scheme, l3_bytes: int) -> None:
        self.world, self.scheme = World(share_equal=True), scheme
        config = SystemConfig(
            scheme=scheme.name.lower(), block_tokens=TOKENS, lease_s=LEASE_S, num_fpga_engines=1
        )
        slots = L2_BLOCKS * (2 * BLOCK_BYTES + spec.LINE_BYTES)
        tiers = TierConfig(L1_BLOCKS * BLOCK_BYTES, slots, l3_bytes, "lru", share_equal=True)
        geometry = Geometry(LAYERS, HEADS, HEAD_DIM, spec.DType.FP16)
        self._system = CXLSpecKVSystem(geometry, config, tiers=tiers)
        self._budgets, self._reads, self._fenced = tiers, 0, 0

    def open(self, request: int, cells: int) -> None:
        """Room comes with the blocks."""

    def write(self, request: int, cell: int, pattern: int) -> None:
        layer, position = place(cell)
        k, v = written(pattern).view(np.float16)
        self._system.put(request, layer, position, k, v)

    def read(self, request: int) -> Iterator[Held]:
        row = self.world.sequences[request]
        last, depth = LAYERS - 1, L2_BLOCKS // 2  # what follows the last layer is the first one
        self._system.prefetch_step(request, last, len(row) * TOKENS, depth_k=depth)
        for layer in range(min(LAYERS, len(row))):
            cells = row[layer::LAYERS]
            k, v = self._system.get(request, layer, 0, len(cells) * TOKENS)
            self._reads += len(cells)
            for i, held in enumerate(cells):
                at = slice(i * TOKENS, (i + 1) * TOKENS)
                data = np.ascontiguousarray(k[at]).tobytes() + np.ascontiguousarray(v[at]).tobytes()
                same(held, data, may_be_exact=False)
                yield held

    def fork(self, request: int, new: int) -> None:
        self._system.fork(request, new)

    def free(self, request: int) -> None:
        self._system.free(request)

    def turn(self, number: int) -> None:
        """An agent takes a lease and falls silent: the write that follows has to fence it."""
        request = next(reversed(self.world.sequences))
        agent = self._system.leases.register()
        keys = self._system.leases.keys(request, 0, 0)
        answers = agent.acquire(keys, write=False, now_ns=time.monotonic_ns())
        check(answers.tolist() == [Answer.GRANTED], "lease", answers)
        self.write(request, 0, self.world.sequences[request][0].pattern)
        self._fenced += 1

    def check(self) -> None:
        world, stats = self.world, self._system.stats()
        tiers = stats.tiers
        check(tiers.blocks == world.blocks, "blocks", tiers.blocks, world.blocks)
        for count in (tiers.references, stats.mapped_blocks):
            check(count == world.references, "references", count, world.references)
        requests = world.written_sequences
        check(stats.requests == requests, "requests", stats.requests, requests)
        check(tiers.record_bytes == world.record_bytes, "bytes", tiers.record_bytes)
        used = tiers.l3_bytes - tiers.l3_slack_bytes
        check(used == sum(tiers.record_bytes_by_layer) == world.record_bytes, "L3", used)
        for held, budget in (
            (tiers.l1_bytes, self._budgets.l1_bytes),
            (tiers.l2_bytes, self._budgets.l2_bytes),
            (tiers.l3_bytes, self._budgets.l3_bytes),
        ):
            check(held <= budget, "held over budget", held, budget)
        found = tiers.hits_l1 + tiers.hits_l2 + tiers.misses
        check(found == self._reads, "blocks looked up", found, self._reads)
        check((stats.agents, stats.leases) == (0, 0), "leases", stats.agents, stats.leases)
        check(stats.fenced_agents == self._fenced, "fenced", stats.fenced_agents, self._fenced)
        bound = METADATA_BYTES + METADATA_BYTES_EACH * world.most_references
        metadata = tiers.metadata_bytes + stats.metadata_bytes
        check(world.blocks * 32 <= metadata <= bound, "metadata", metadata, bound)

    def held_bytes(self) -> int:
        return self._system.stats().held_bytes

    def evictions(self, first_reads: int) -> int:
        return self._system.stats().tiers.misses - first_reads  # at least: misses of known blocks

    def close(self) -> None:
        stats = self._system.stats()
        left = stats.tiers.blocks + stats.tiers.l3_bytes + stats.tiers.l1_bytes
        check(left == stats.mapped_blocks == 0, "left", stats)
        device = self._system.device
        self._system.close()
        check(getattr(device, "live_buffers", 0) == 0, "buffers left")


def same(held: Held, data: bytes, *, may_be_exact: bool) -> None:
    """CheckFailed unless these bytes are the block's. may_be_exact: it may not have been coded yet."""
    if data == decoded(held.pattern, held.scheme):
        held.coded = held.coded or data != written(held.pattern).tobytes()
        return
    exact = may_be_exact and not held.coded
    if not exact or data != written(held.pattern).tobytes():
        check(False, "wrong bytes: pattern", held.pattern, "scheme", held.scheme.name, "cell", held.cell)  # fmt: skip
