"""A small program that uses an installed SpecKV as any other would: every public entry once, fully typed.

`python scripts/wheel_consumer.py` runs it and fails where a value does not come back; `mypy --strict` reads it
against the installed package. It imports nothing of this tree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

import speckv_pynq
from speckv_pynq import spec
from speckv_pynq.allocator import AllocatorConfig, AllocatorStats, SpeckvAllocator
from speckv_pynq.codec import BlockShape, Codec, block_ids
from speckv_pynq.device import Device, open_device
from speckv_pynq.errors import ConfigError, RecordError, SpeckvError
from speckv_pynq.pool import FileStore, PoolMemory, StoreStats, open_pool
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig, SystemStats, prometheus

HEADS, HEAD_DIM, BLOCKS = 3, 64, 4
Halves = npt.NDArray[np.float16]


def keys_and_values() -> tuple[Halves, Halves]:
    """(BLOCKS, 32, HEADS, HEAD_DIM) float16 each, the same in every run."""
    shape = (2, BLOCKS, spec.BLOCK_TOKENS, HEADS, HEAD_DIM)
    k, v = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    return k, v


def refused(call: Callable[[], object], error: type[SpeckvError]) -> bool:
    """Whether the call raises this error."""
    try:
        call()
    except error:
        return True
    return False


def codec_round_trip(device: Device, scheme: spec.Scheme) -> float:
    """FP16 bytes over record bytes; fails when a block comes back wrong or a damaged record is taken."""
    shape = BlockShape(spec.BLOCK_TOKENS, HEADS, HEAD_DIM, spec.DType.FP16)
    codec = Codec(device, shape, scheme)
    ids = block_ids(layer=0, first_position=np.arange(BLOCKS) * spec.BLOCK_TOKENS)
    k, v = keys_and_values()
    records: list[bytes] = codec.encode_arrays(k, v, ids)
    k2, v2 = codec.decode_arrays(records, ids)
    assert k2 is not None
    assert v2 is not None
    error = float(np.abs(k2.astype(np.float32) - k.astype(np.float32)).max())
    assert error <= (0.6 if scheme is spec.Scheme.INT4 else 0.0), f"{scheme.name}: off by {error}"
    damaged = bytearray(records[0])
    damaged[spec.RECORD_HEADER.itemsize] ^= 1  # the payload's first byte
    assert refused(lambda: codec.decode_arrays([bytes(damaged), *records[1:]], ids), RecordError)
    return BLOCKS * shape.block_bytes / sum(map(len, records))


def system_round_trip(directory: Path) -> str:
    """A request saved to a disk, freed and restored; the metrics at the end."""
    k, v = keys_and_values()
    geometry = Geometry(layers=1, kv_heads=HEADS, head_dim=HEAD_DIM)
    config = SystemConfig(l1_size_gb=0.01, scheme="raw")
    with CXLSpecKVSystem(geometry, config) as system, FileStore(directory, 1 << 20) as store:
        system.put(7, 0, 0, k[0], v[0])
        saved: int = system.save(7, store)
        system.free(7)
        restored: int = system.restore(7, store)
        assert saved == restored == 1
        k2, v2 = system.get(7, 0, 0, spec.BLOCK_TOKENS)
        assert k2.tobytes() == k[0].tobytes()
        assert v2.tobytes() == v[0].tobytes()
        stored: StoreStats = store.stats()
        stats: SystemStats = system.stats()
        assert stored is not None
    return prometheus(stats)


def pool_and_allocator() -> None:
    """Host memory by name, and the C library from Python."""
    memory: PoolMemory = open_pool("memory", 1 << 20)
    assert memory.array.shape == (memory.nbytes,)
    memory.close()
    config = AllocatorConfig(
        1, HEADS, HEAD_DIM, l1_bytes=1 << 20, l2_bytes=1 << 20, l3_bytes=1 << 20
    )
    with SpeckvAllocator(config) as allocator:
        allocator.alloc(1, spec.BLOCK_TOKENS)
        stats: AllocatorStats = allocator.stats()
        assert stats is not None
    assert refused(lambda: open_pool("no such pool", 1 << 20), ConfigError)


def main() -> None:
    with open_device("csim") as device:
        exact = (spec.Scheme.RAW, spec.Scheme.LOSSLESS)
        ratios = {s.name: codec_round_trip(device, s) for s in (*exact, spec.Scheme.INT4)}
    with tempfile.TemporaryDirectory() as directory:
        metrics = system_round_trip(Path(directory))
    pool_and_allocator()
    shown = ", ".join(f"{name.lower()} {ratio:.2f}x" for name, ratio in ratios.items())
    print(
        f"{Path(speckv_pynq.__file__).parent}: {shown}; {len(metrics.splitlines())} lines of metrics"
    )


if __name__ == "__main__":
    main()
