"""The memory system alone: look-ups, hits from C and from Python, blocks from L3 to L1 beside the codec."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from speckv_pynq import spec
from speckv_pynq.address import pack_address
from speckv_pynq.allocator import OVERWRITE, AllocatorConfig, SpeckvAllocator
from speckv_pynq.block import BlockShape, block_ids
from speckv_pynq.codec import Codec
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.native import PageTable, block_keys

LOOKUP_BLOCKS = (
    1 << 20
)  # 2 GB of decoded blocks of the smallest shape; the table is larger than any cache
HIT_BLOCKS = 256
LAYERS = 8
SHAPE = BlockShape(32, 8, 128, spec.DType.FP16)  # 8 KV heads of 128, as in Llama 3.1 8B
CASES = 6


@dataclass(frozen=True)
class Figures:
    """Medians on one core. Speeds in GB (1e9 bytes) of FP16."""

    lookups_per_s: float
    access_hit_us: float  # a cursor's read: address to array
    access_view_us: float  # access(), its array, release()
    access_hit_c_us: float  # speckv_access and speckv_release
    fetch_gb_s: float  # a miss: L3 to L1
    codec_gb_s: float  # kv_decompress of the same records


def measure(repeats: int, blocks: int = 256, advance: Callable[[], None] = lambda: None) -> Figures:
    """Each case `repeats` times, interleaved, after one round to warm up; `blocks` for the fetches."""
    if repeats < 1 or blocks < 2:
        raise ValueError(f"repeats {repeats} < 1 or blocks {blocks} < 2")
    hits, misses = (
        _system(HIT_BLOCKS, HIT_BLOCKS, spec.Scheme.RAW),
        _system(1, blocks, spec.Scheme.INT4),
    )
    with hits, misses, CsimDevice(1) as device:
        cases = {
            "lookups_per_s": _lookups(),
            "access_hit_us": _cursor_reads(hits),
            "access_view_us": _views(hits),
            "access_hit_c_us": _native(hits, HIT_BLOCKS, 100, 1e6),
            "fetch_gb_s": _fetches(misses, blocks),
            "codec_gb_s": _decodes(device, blocks),
        }
        rounds: dict[str, list[float]] = {name: [] for name in cases}
        for i in range(repeats + 1):
            for name, case in cases.items():
                figure = case()
                advance()
                if i:
                    rounds[name].append(figure)
        del cases  # a cursor holds a block until it goes
    return Figures(**{name: statistics.median(figures) for name, figures in rounds.items()})


def _block() -> np.ndarray:
    shape = (2, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float16)


def _system(slots: int, blocks: int, scheme: spec.Scheme) -> SpeckvAllocator:
    """Request 0 with `blocks` blocks over all layers, `slots` of them in L1."""
    config = AllocatorConfig(
        LAYERS, SHAPE.heads, SHAPE.head_dim, dtype=SHAPE.dtype, scheme=scheme, threads=0,
        l1_bytes=slots * SHAPE.block_bytes, l2_bytes=0, l3_bytes=2 * blocks * SHAPE.slot_bytes,
    )  # fmt: skip
    system = SpeckvAllocator(config)
    system.alloc(0, -(-blocks // LAYERS) * SHAPE.tokens)
    block = _block()
    for i in range(blocks):
        with system.access(0, i % LAYERS, 0, i // LAYERS * SHAPE.tokens, 0, OVERWRITE) as view:
            view.array[:] = block
    return system


def _addresses(blocks: int) -> list[tuple[int, int]]:
    """One entry of each block, in an order that no cache line prefetcher knows."""
    order = np.random.default_rng(1).permutation(blocks).tolist()
    return [
        pack_address(0, i % LAYERS, i % SHAPE.heads, i // LAYERS * SHAPE.tokens + i % SHAPE.tokens, i % 2)
        for i in order
    ]  # fmt: skip


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _lookups() -> Callable[[], float]:
    table, places = PageTable(), np.arange(LOOKUP_BLOCKS)
    keys = block_keys(places // 4096, places % 32, places % 4096 // 32)
    table.map(keys, (places + 1).astype(np.uint64))
    shuffled = np.ascontiguousarray(keys[np.random.default_rng(2).permutation(LOOKUP_BLOCKS)])
    return lambda: LOOKUP_BLOCKS / _timed(lambda: table.lookup(shuffled))


def _cursor_reads(system: SpeckvAllocator) -> Callable[[], float]:
    cursor, addresses = system.cursor(), _addresses(HIT_BLOCKS) * 20

    def read() -> None:
        for high, low in addresses:
            cursor.read(high, low)

    return lambda: 1e6 * _timed(read) / len(addresses)


def _views(system: SpeckvAllocator) -> Callable[[], float]:
    places = [(i % LAYERS, i // LAYERS * SHAPE.tokens) for i in range(HIT_BLOCKS)] * 20

    def read() -> None:
        for layer, pos in places:
            view = system.access(0, layer, 0, pos)
            _ = view.entry
            system.release(view)

    return lambda: 1e6 * _timed(read) / len(places)


def _native(system: SpeckvAllocator, blocks: int, rounds: int, scale: float) -> Callable[[], float]:
    addresses = np.array(_addresses(blocks), np.uint64)
    return lambda: scale * system.measure_hits(addresses, rounds) / (blocks * rounds)


def _fetches(system: SpeckvAllocator, blocks: int) -> Callable[[], float]:
    seconds = _native(system, blocks, 1, 1.0)
    return lambda: SHAPE.block_bytes / 1e9 / seconds()


def _decodes(device: CsimDevice, blocks: int) -> Callable[[], float]:
    codec = Codec(device, SHAPE, spec.Scheme.INT4)
    block = _block()
    source = device.allocate(SHAPE.block_bytes)
    source.array[:] = block.reshape(-1).view(np.uint8)
    records = device.allocate(blocks * SHAPE.slot_bytes)
    target = device.allocate(SHAPE.block_bytes)
    ids = block_ids(np.arange(blocks) % LAYERS, np.arange(blocks) // LAYERS * SHAPE.tokens)
    slots = np.arange(blocks) * SHAPE.slot_bytes
    done = codec.encode(source, ids, 0, records, slots)
    size = done["record_bytes"]
    return lambda: (
        blocks * SHAPE.block_bytes / 1e9
        / _timed(lambda: codec.decode(records, ids, slots, size, target, 0))
    )  # fmt: skip
