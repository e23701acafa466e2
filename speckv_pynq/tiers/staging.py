"""The part of L2 that blocks pass through: two halves, one filled while the other is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from speckv_pynq import spec
from speckv_pynq.codec import BLOCK_ID, Codec, Ids, first_record_bytes
from speckv_pynq.device.protocol import Completions, Descriptors, Device, DeviceBuffer
from speckv_pynq.errors import ConfigError, RecordError
from speckv_pynq.native import U32, U64, GetPlan

# Of one half: small enough to stay in the caches between decoding and unpacking, large enough
# to be worth the calls.
ROUND_BYTES: Final = 2 << 20
_SCHEME_AT: Final = spec.RECORD_HEADER.fields["scheme"][1]  # type: ignore[index]


class Staging:
    """Slots for `blocks` decoded blocks in either half; in put, the second takes their records."""

    def __init__(self, device: Device, codec: Codec, l2_bytes: int, share: int = 1) -> None:
        """share: it takes no more than this part of L2, but two slots at least."""
        self._device, self._codec = device, codec
        shape = codec.shape
        parts = [shape.part(heads) for _, heads in codec.parts]
        self.slot_bytes = sum(part.slot_bytes for part in parts)
        if l2_bytes < 2 * self.slot_bytes:
            raise ConfigError(
                f"l2_bytes {l2_bytes} < {2 * self.slot_bytes}: staging needs a block and its record"
            )
        room = max(1, l2_bytes // (2 * self.slot_bytes * share))
        self.blocks = min(max(1, ROUND_BYTES // self.slot_bytes), room)
        self.half_bytes = self.blocks * self.slot_bytes
        self._buffer: DeviceBuffer | None = None
        counts = np.arange(self.blocks, dtype=np.uint64) * np.uint64(self.slot_bytes)
        self._halves = (counts, counts + np.uint64(self.half_bytes))
        ends = np.cumsum([0] + [part.slot_bytes for part in parts])[:-1].astype(np.uint64)
        self._record_slots = self._halves[1][:, None] + ends
        self._capacities = np.array([part.slot_bytes for part in parts], np.uint32)
        self._part_bytes = np.array(
            [first * shape.head_bytes * shape.kinds.bit_count() for first, _ in codec.parts],
            np.uint64,
        )
        self._part_ids = np.zeros(len(parts), BLOCK_ID)
        self._part_ids["first_head"] = [first for first, _ in codec.parts]
        self._part_ids["heads"] = [heads if len(parts) > 1 else 0 for _, heads in codec.parts]

    @property
    def nbytes(self) -> int:
        """What it takes of the L2 budget."""
        return 2 * self.half_bytes

    @property
    def held_bytes(self) -> int:
        """What it has taken."""
        return 0 if self._buffer is None else self.nbytes

    @property
    def buffer(self) -> DeviceBuffer:
        """Its memory, taken at first use."""
        if self._buffer is None:
            self._buffer = self._device.allocate(self.nbytes)
        return self._buffer

    def slots(self, count: int, half: int = 0) -> U64:
        """Offsets of block slots, (count,)."""
        return self._halves[half][:count]

    def record_slots(self, count: int) -> U64:
        """Offsets of record slots, (count, parts)."""
        return self._record_slots[:count]

    def part_slots(self, slots: U64) -> U64:
        """Offsets of the parts of blocks, (n * parts,), from those of the blocks, (n,)."""
        if len(self._part_bytes) == 1:
            return slots
        return (slots[:, None] + self._part_bytes).reshape(-1)

    def describe_decode(self, plan: GetPlan, which: slice | list[int], slots: U64) -> Descriptors:
        """Descriptors, (n * parts,), that decode these misses of a plan into block slots, (n,)."""
        return self._codec.describe(
            self.miss_ids(plan, which),
            self.part_slots(slots),
            plan.record_offsets[which].reshape(-1),
            plan.record_bytes[which].reshape(-1),
        )

    def miss_ids(self, plan: GetPlan, which: slice | list[int]) -> Ids:
        """Identities of the parts of these misses, (n * parts,)."""
        return self.ids(plan.layers[which], plan.positions[which])

    def ids(self, layers: U32 | int, positions: U32) -> np.ndarray:
        """Identities of the parts of blocks, (n * parts,) BLOCK_ID."""
        table = np.empty((len(positions), len(self._part_ids)), BLOCK_ID)
        table[:] = self._part_ids
        table["layer"].T[:] = layers
        table["first_position"].T[:] = positions
        return table.reshape(-1)

    def encode(self, layer: int, positions: U32) -> Completions:
        """Codes blocks from the first half into the second; completions, (n * parts,)."""
        n = len(positions)
        return self._codec.encode(
            self.buffer,
            self.ids(layer, positions),
            self.part_slots(self.slots(n)),
            self.buffer,
            self.record_slots(n).reshape(-1),
            np.tile(self._capacities, n),
        )

    def load(self, records: Sequence[bytes]) -> U32:
        """Puts records of blocks, all parts in a row each, where `encode` would; their bytes, (n, parts).

        RecordError for one that is not as long as its headers say.
        """
        memory, slots = self.buffer.array, self.record_slots(len(records)).tolist()
        sizes = np.empty((len(records), len(self._part_ids)), np.uint32)
        for i, record in enumerate(records):
            rest = memoryview(record)
            for part, capacity in enumerate(self._capacities.tolist()):
                size = first_record_bytes(rest)
                if not 0 < size <= capacity or size % spec.LINE_BYTES:
                    raise _not_records(i, len(record), capacity)
                at = slots[i][part]
                memory[at : at + size] = np.frombuffer(rest[:size], np.uint8)
                sizes[i, part], rest = size, rest[size:]
            if len(rest):
                raise _not_records(i, len(record), len(record) - len(rest))
        return sizes

    def count(self, count: int, scheme: spec.Scheme) -> int:
        """Of the records that `encode` made of so many blocks, those of this scheme."""
        at = self.record_slots(count).reshape(-1).astype(np.int64) + _SCHEME_AT
        return int(np.count_nonzero(self.buffer.array[at] == scheme))

    def free(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.free()


def _not_records(i: int, found: int, limit: int) -> RecordError:
    return RecordError(
        f"record {i}: {found} bytes do not hold whole records, at most {limit} for a part: not made for this shape",
        status=spec.Status.BAD_PAYLOAD_BYTES,
        value=found,
        limit=limit,
    )
