"""The csim board for tests: overlays with chosen compute units, blocks in its buffers."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device import hwh, library
from speckv_pynq.device.pynq_csim import CsimDevice
from speckv_pynq.device.pynq_overlay import SpeckvOverlay

TOKENS, HEADS, HEAD_DIM = 32, 2, 64
KIND_BYTES = TOKENS * HEADS * HEAD_DIM * 2
BLOCK_BYTES = 2 * KIND_BYTES
SLOT_BYTES = BLOCK_BYTES + spec.MIN_SLOT_BYTES


@contextlib.contextmanager
def board(
    directory: Path, engines: int = 1, kernel: Callable[..., int] | None = None
) -> Iterator[SpeckvOverlay]:
    """An overlay loaded on a csim board of its own. `kernel` stands in for both native kernels."""
    native = library.load()
    if kernel is not None:
        native = dataclasses.replace(native, kv_compress=kernel, kv_decompress=kernel)
    device = CsimDevice("test", native)
    try:
        yield SpeckvOverlay(hwh.write_overlay(directory, engines), device=device)
    finally:
        device.close()


def redescribe(image: Path, hardware: str) -> None:
    """Puts another .hwh beside an image, with its hash in the manifest: as if a build had made it."""
    image.with_suffix(".hwh").write_text(hardware)
    found = json.loads(image.with_suffix(".json").read_text())
    digest = hashlib.sha256(hardware.encode()).hexdigest()
    found["files"][image.with_suffix(".hwh").name] = digest
    image.with_suffix(".json").write_text(json.dumps(found))


class Batch:
    """`count` random blocks in the buffers of a call, described and synced to the device."""

    def __init__(self, overlay: SpeckvOverlay, count: int = 3, seed: int = 0) -> None:
        allocate, self.count = overlay.device.allocate, count
        self.values = np.random.default_rng(seed).standard_normal(
            (count, 2, TOKENS, HEADS, HEAD_DIM)
        )
        self.values = self.values.astype(np.float16)
        self.blocks = allocate(self.values.shape, np.float16)
        self.records = allocate(count * SLOT_BYTES, np.uint8)
        self.descriptors = allocate(count, spec.DESCRIPTOR)
        self.completions = allocate(count, spec.COMPLETION)
        self.blocks[:] = self.values
        self.descriptors[:] = describe(count)
        self.blocks.sync_to_device()
        self.descriptors.sync_to_device()

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a call, by name."""
        return {
            "blocks": self.blocks,
            "records": self.records,
            "descriptors": self.descriptors,
            "completions": self.completions,
            "codebooks": None,
            "count": self.count,
            "codebook_lines": 0,
            "abi_id": spec.ABI_ID,
        }

    def record(self, index: int, completions: np.ndarray) -> bytes:
        start = index * SLOT_BYTES
        return self.records[start : start + int(completions[index]["record_bytes"])].tobytes()


def describe(count: int) -> np.ndarray:
    """`count` blocks in a row, each with a slot of its own: (count,) spec.DESCRIPTOR."""
    rows = np.zeros(count, spec.DESCRIPTOR)
    i = np.arange(count)
    rows["record_offset"], rows["record_capacity"] = i * SLOT_BYTES, SLOT_BYTES
    rows["key_offset"], rows["value_offset"] = i * BLOCK_BYTES, i * BLOCK_BYTES + KIND_BYTES
    rows["first_position"] = i * TOKENS
    rows["tokens"], rows["heads"], rows["head_dim"] = TOKENS, HEADS, HEAD_DIM
    rows["scheme"], rows["kinds"] = spec.Scheme.INT8_DELTA_RLE, spec.Kind.BOTH
    rows["layer_count"] = 1
    return rows
