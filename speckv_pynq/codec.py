"""Blocks to records and back on a device, many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.block import (
    BLOCK_ID,
    EXACT_SCHEMES,
    NUMPY_DTYPES,
    BlockId,
    BlockShape,
    Ids,
    as_table,
    block_ids,
)
from speckv_pynq.completions import error_of
from speckv_pynq.device.codebook import LoadedCodebook
from speckv_pynq.device.protocol import (
    DEFAULT_TIMEOUT_S,
    Completions,
    Descriptors,
    Device,
    DeviceBuffer,
    Run,
)
from speckv_pynq.errors import ConfigError, RecordError, ShapeError

__all__ = [
    "BLOCK_ID",
    "BlockId",
    "BlockShape",
    "Codec",
    "Ids",
    "LoadedCodebook",
    "block_ids",
    "first_record_bytes",
]

Offsets = npt.NDArray[np.integer[Any]] | Sequence[int] | int
_CHUNK_BYTES = 1 << 25  # device memory that encode_arrays and decode_arrays take at a time


class Codec:
    """Codes blocks of one shape with one scheme; safe to use from several threads.

    A block lies in its buffer as K then V, each (tokens, heads, head_dim) in C order; of one kind
    alone, only that. Offsets are bytes and multiples of spec.LINE_BYTES. A shape over
    spec.MAX_BLOCK_BYTES is coded in parts: identities with first_head and heads from shape.split(),
    each part packed like a block of its own.

    Scheme klt needs a codebook on the same device, which stays the caller's. Its blocks are never split.
    Where it joins N layers in a record, a block has N times the KV heads, those of the first layer
    first, and its identity names the first layer.
    """

    def __init__(
        self,
        device: Device,
        shape: BlockShape,
        scheme: spec.Scheme,
        layout_fingerprint: int = 0,
        codebook: LoadedCodebook | None = None,
    ) -> None:
        self.device = device
        self.shape = shape
        self.scheme = spec.Scheme(scheme)
        self.layout_fingerprint = layout_fingerprint
        self.codebook = codebook
        self.parts = self._parts()
        if shape.dtype == spec.DType.FP32 and self.scheme not in EXACT_SCHEMES:
            raise ShapeError(
                f"scheme {self.scheme.name.lower()} takes fp16 or bf16 blocks, not fp32: "
                "convert them, or use raw"
            )
        template = np.zeros(1, spec.DESCRIPTOR)
        template["layout_fingerprint"] = layout_fingerprint
        template["tokens"] = shape.tokens
        template["heads"] = shape.heads
        template["head_dim"] = shape.head_dim
        template["scheme"] = self.scheme
        template["dtype"] = shape.dtype
        template["kinds"] = shape.kinds
        template["layer_count"] = self.layer_count
        if codebook is not None:
            codebook.check(shape)
            template["codebook_fingerprint"] = codebook.fingerprint
        self._template = template.view(np.uint8)

    @property
    def layer_count(self) -> int:
        """Consecutive layers of a record."""
        return 1 if self.codebook is None else self.codebook.layer_count

    @property
    def codebook_memory(self) -> DeviceBuffer | None:
        """What the device's kernels take as `codebooks`."""
        return None if self.codebook is None else self.codebook.buffer

    def describe(
        self, ids: Ids, block_offsets: Offsets, record_offsets: Offsets, capacities: Offsets
    ) -> Descriptors:
        """Descriptors for either direction, (n,) spec.DESCRIPTOR; columns of n values or 1."""
        ids = as_table(ids)
        table = np.empty((len(ids), spec.DESCRIPTOR.itemsize), np.uint8)
        table[:] = self._template  # as bytes: NumPy copies structures field by field
        rows: Descriptors = table.reshape(-1).view(spec.DESCRIPTOR)
        heads = ids["heads"]
        value_at: npt.NDArray[np.int64] | int = self.shape.kind_bytes
        if heads.any():
            heads = np.where(heads, heads, self.shape.heads)
            rows["heads"] = heads
            value_at = heads.astype(np.int64) * self.shape.head_bytes
        kinds = self.shape.kinds
        if kinds == spec.Kind.BOTH:
            rows["key_offset"] = block_offsets
            rows["value_offset"] = np.add(block_offsets, value_at)
        else:
            rows["key_offset" if kinds is spec.Kind.KEY else "value_offset"] = block_offsets
        rows["record_offset"] = record_offsets
        rows["record_capacity"] = capacities
        rows["first_position"] = ids["first_position"]
        rows["first_layer"] = ids["layer"]
        rows["first_head"] = ids["first_head"]
        if self.codebook is not None:
            rows["codebook_slot"] = self.codebook.slots_of(ids["layer"])
        return rows

    def start_encode(
        self,
        blocks: DeviceBuffer,
        ids: Ids,
        offsets: Offsets,
        records: DeviceBuffer,
        slots: Offsets,
        capacities: Offsets | None = None,
    ) -> Run:
        """Starts coding blocks at `offsets` into slots of `capacities` (None: slot_bytes) bytes."""
        if capacities is None:
            capacities = self.shape.slot_bytes
        rows = self.describe(ids, offsets, slots, capacities)
        return self.device.start_compress(blocks, records, rows, self.codebook_memory)

    def start_decode(
        self,
        records: DeviceBuffer,
        ids: Ids,
        record_offsets: Offsets,
        record_bytes: Offsets,
        blocks: DeviceBuffer,
        offsets: Offsets,
    ) -> Run:
        """Starts decoding records of `record_bytes`, padding included, into blocks at `offsets`."""
        rows = self.describe(ids, offsets, record_offsets, record_bytes)
        return self.device.start_decompress(records, blocks, rows, self.codebook_memory)

    def encode(
        self,
        blocks: DeviceBuffer,
        ids: Ids,
        offsets: Offsets,
        records: DeviceBuffer,
        slots: Offsets,
        capacities: Offsets | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Completions:
        """start_encode, wait and check; record_bytes of the completions count whole lines."""
        run = self.start_encode(blocks, ids, offsets, records, slots, capacities)
        return self.check(run.wait(timeout_s), ids, decoding=False)

    def decode(
        self,
        records: DeviceBuffer,
        ids: Ids,
        record_offsets: Offsets,
        record_bytes: Offsets,
        blocks: DeviceBuffer,
        offsets: Offsets,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Completions:
        """start_decode, wait and check."""
        run = self.start_decode(records, ids, record_offsets, record_bytes, blocks, offsets)
        return self.check(run.wait(timeout_s), ids, decoding=True)

    def check(self, completions: Completions, ids: Ids, *, decoding: bool = True) -> Completions:
        """The completions if all are ok, else a typed error about the first that is not."""
        if not completions["status"].any():
            return completions
        error = error_of(
            completions, as_table(ids), self.shape, self.layer_count, decoding=decoding
        )
        assert error is not None
        try:
            raise error
        finally:
            del error  # else its traceback keeps this frame, and callers' frames, alive

    def encode_arrays(
        self, k: npt.NDArray[np.generic] | None, v: npt.NDArray[np.generic] | None, ids: Ids
    ) -> list[bytes]:
        """Records of blocks given as arrays; of a split block, its parts' records in a row.

        k, v: (n, tokens, heads, head_dim) float16, uint16 (bf16 bits) or float32; None for a kind
        that the shape has not. Their heads count from each identity's first_head.
        """
        table = as_table(ids)
        arrays = [self._checked(name, array, len(table)) for name, array in self._kinds(k, v)]
        out: list[bytes] = []
        for start, end in self._chunks(len(table)):
            records = [
                self._encode_part([a[start:end] for a in arrays], table[start:end], first, heads)
                for first, heads in self.parts
            ]
            out += [b"".join(parts) for parts in zip(*records, strict=True)]
        return out

    def decode_arrays(
        self, records: Sequence[bytes], ids: Ids
    ) -> tuple[npt.NDArray[np.generic] | None, npt.NDArray[np.generic] | None]:
        """K and V, (n, tokens, heads, head_dim) each, of records from encode_arrays."""
        table = as_table(ids)
        if len(records) != len(table):
            raise ShapeError(f"{len(records)} records for {len(table)} identities")
        s = self.shape
        shape = (len(table), s.tokens, s.heads, s.head_dim)
        arrays = [np.empty(shape, NUMPY_DTYPES[s.dtype]) for _ in range(s.kinds.bit_count())]
        for start, end in self._chunks(len(table)):
            rests = [memoryview(record) for record in records[start:end]]
            for first, heads in self.parts:
                target = [a[start:end, :, first : first + heads] for a in arrays]
                cut = [first_record_bytes(rest) for rest in rests]
                self._decode_part(
                    [r[:n] for r, n in zip(rests, cut, strict=True)],
                    target,
                    table[start:end],
                    first,
                )
                rests = [r[n:] for r, n in zip(rests, cut, strict=True)]
            _check_all_used(rests, start)
        k = arrays[0] if s.kinds & spec.Kind.KEY else None
        v = arrays[-1] if s.kinds & spec.Kind.VALUE else None
        return k, v

    def self_test(self, seed: int = 0) -> None:
        """Writes, reads back and compares a block; DeviceError when it does not come back."""
        from speckv_pynq.selftest import self_test

        self_test(self, seed)

    def _parts(self) -> list[tuple[int, int]]:
        """The parts that kernels take, as (first head, heads)."""
        if self.scheme != spec.Scheme.KLT:
            return self.shape.split()
        if self.codebook is None:
            raise ConfigError(
                "scheme klt needs a codebook: make one with `speckv calibrate --model MODEL --text FILE "
                "-o CODEBOOK`, or use int4, which needs none"
            )
        if self.shape.block_bytes > spec.MAX_BLOCK_BYTES:
            raise ShapeError(
                f"a klt block of {self.shape.heads} heads has {self.shape.block_bytes} bytes, the kernels' limit is "
                f"{spec.MAX_BLOCK_BYTES}, and klt blocks are not split: use fewer tokens a block, or a codebook "
                "that joins fewer layers"
            )
        return [(0, self.shape.heads)]

    def _kinds(
        self, k: npt.NDArray[np.generic] | None, v: npt.NDArray[np.generic] | None
    ) -> list[tuple[str, npt.NDArray[np.generic]]]:
        out = []
        for name, kind, array in (("k", spec.Kind.KEY, k), ("v", spec.Kind.VALUE, v)):
            wanted = bool(self.shape.kinds & kind)
            if wanted is (array is None):
                raise ShapeError(
                    f"{name}: {'missing' if wanted else 'given'}, kinds {self.shape.kinds!r}"
                )
            if array is not None:
                out.append((name, array))
        return out

    def _checked(
        self, name: str, array: npt.NDArray[np.generic], n: int
    ) -> npt.NDArray[np.generic]:
        s = self.shape
        want = (n, s.tokens, s.heads, s.head_dim)
        if array.shape != want or array.dtype != NUMPY_DTYPES[s.dtype]:
            raise ShapeError(
                f"{name}: {array.shape} {array.dtype}, not {want} {NUMPY_DTYPES[s.dtype]} "
                f"({s.dtype.name.lower()})"
            )
        return array

    def _chunks(self, n: int) -> list[tuple[int, int]]:
        step = max(1, _CHUNK_BYTES // self.shape.block_bytes)
        return [(start, min(start + step, n)) for start in range(0, n, step)]

    def _encode_part(
        self,
        arrays: list[npt.NDArray[np.generic]],
        ids: npt.NDArray[np.void],
        first: int,
        heads: int,
    ) -> list[bytes]:
        n, shape = len(ids), self.shape.part(heads)
        with (
            self.device.allocate(n * shape.block_bytes) as blocks,
            self.device.allocate(n * shape.slot_bytes) as records,
        ):
            view = blocks.array.view(NUMPY_DTYPES[shape.dtype])
            view = view.reshape(n, len(arrays), shape.tokens, heads, shape.head_dim)
            for i, array in enumerate(arrays):
                view[:, i] = array[:, :, first : first + heads]
            blocks.sync_to_device()
            slots = np.arange(n) * shape.slot_bytes
            done = self.encode(
                blocks,
                _part_ids(ids, first, heads),
                np.arange(n) * shape.block_bytes,
                records,
                slots,
                shape.slot_bytes,
            )
            records.sync_from_device()
            sizes = done["record_bytes"].tolist()
            pairs = zip(slots.tolist(), sizes, strict=True)
            return [records.array[slot : slot + size].tobytes() for slot, size in pairs]

    def _decode_part(
        self,
        parts: list[memoryview],
        arrays: list[npt.NDArray[np.generic]],
        ids: npt.NDArray[np.void],
        first: int,
    ) -> None:
        n, heads = len(ids), arrays[0].shape[2]
        shape = self.shape.part(heads)
        sizes = [-(-len(part) // spec.LINE_BYTES) * spec.LINE_BYTES for part in parts]
        offsets = [0, *itertools.accumulate(sizes)]
        with (
            self.device.allocate(n * shape.block_bytes) as blocks,
            self.device.allocate(max(1, offsets[-1])) as records,
        ):
            for part, offset in zip(parts, offsets, strict=False):
                records.array[offset : offset + len(part)] = np.frombuffer(part, np.uint8)
            records.sync_to_device()
            at = np.arange(n) * shape.block_bytes
            self.decode(records, _part_ids(ids, first, heads), offsets[:-1], sizes, blocks, at)
            blocks.sync_from_device()
            view = blocks.array.view(NUMPY_DTYPES[shape.dtype])
            view = view.reshape(n, len(arrays), shape.tokens, heads, shape.head_dim)
            for i, array in enumerate(arrays):
                array[:] = view[:, i]


def _part_ids(ids: npt.NDArray[np.void], first: int, heads: int) -> npt.NDArray[np.void]:
    return block_ids(ids["layer"], ids["first_position"], ids["first_head"] + first, heads)


def first_record_bytes(data: memoryview) -> int:
    """Bytes of the first of several records, whole lines, within `data`: a damaged header is the kernel's to refuse."""
    if len(data) < spec.RECORD_HEADER.itemsize:
        return len(data)
    header = np.frombuffer(data, spec.RECORD_HEADER, 1)
    size = spec.RECORD_HEADER.itemsize + int(header["payload_bytes"][0])
    return min(len(data), -(-size // spec.LINE_BYTES) * spec.LINE_BYTES)


def _check_all_used(rests: list[memoryview], start: int) -> None:
    for i, rest in enumerate(rests):
        if len(rest):
            raise RecordError(
                f"record {start + i}: {len(rest)} bytes follow its end: not made for this shape; "
                "recompute the block",
                status=spec.Status.BAD_PAYLOAD_BYTES,
                value=len(rest),
            )
