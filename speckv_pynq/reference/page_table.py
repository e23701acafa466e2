"""The page table that the translation unit walks: an open-addressing hash table of 64-byte entries in memory.

A block's key is its virtual address under a mask (`key_mask`): the bits that tell one record from another. Its first
place is CRC32C of the key's twelve bytes (least significant first) modulo the entries, then each next one, around the
end, PAGE_PROBE_LIMIT in all. An empty entry (flags 0) ends a walk, a deleted one does not. One entry is one line, so
memory never shows half of it; who changes one makes the translation unit forget the key afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError
from speckv_pynq.reference.crc32c import crc32c
from speckv_pynq.spec import Kind, PageFlag, Translation

KEY_BYTES = 12
WORD_MASK = (1 << 64) - 1
SHIFTS = {name: (bits, shift) for name, bits, shift in spec.ADDRESS_FIELDS}


def key_mask(block_tokens: int = spec.BLOCK_TOKENS, heads: int = 256, kinds: int = 2) -> int:
    """Bits of an address that name its record, where one holds `block_tokens` positions, `heads` heads and `kinds`
    kinds of each (powers of two, aligned); a record of several layers has an entry for each of them."""
    mask = (1 << spec.ADDRESS_BITS) - 1
    for name, count in (("pos", block_tokens), ("head", heads), ("kind", kinds)):
        bits, shift = SHIFTS[name]
        if not 1 <= count <= 1 << bits or count & (count - 1):
            raise ConfigError(f"{name}: {count} in a record is no power of two up to {1 << bits}")
        mask &= ~(count - 1 << shift)
    return mask


def key_hash(key: int) -> int:
    return crc32c(key.to_bytes(KEY_BYTES, "little"))


def judge(entry: np.void) -> Translation:
    """OK or BAD_ENTRY for a valid entry of the key that is looked for."""
    aligned = not (entry["record_offset"] | entry["record_bytes"]) % spec.LINE_BYTES
    shaped = all(
        entry[name] for name in ("record_bytes", "tokens", "heads", "head_dim", "layer_count")
    )
    good = (
        aligned and shaped and 1 <= entry["kinds"] <= Kind.BOTH and entry["flags"] == PageFlag.VALID
    )
    return Translation.OK if good else Translation.BAD_ENTRY


class PageTable:
    """entries: (1 << entries_log2) PAGE_TABLE_ENTRY, the bytes of the table."""

    def __init__(self, entries_log2: int) -> None:
        if not 0 <= entries_log2 <= 32:
            raise ConfigError(f"entries_log2 {entries_log2} is outside 0..32")
        self.entries = np.zeros(1 << entries_log2, spec.PAGE_TABLE_ENTRY)

    def places(self, key: int) -> Iterator[int]:
        first = key_hash(key)
        for step in range(spec.PAGE_PROBE_LIMIT):
            yield (first + step) % len(self.entries)

    def place_of(self, key: int) -> int | None:
        """Where a walk finds the key; None: nowhere."""
        for place in self.places(key):
            entry = self.entries[place]
            if not entry["flags"]:
                return None
            if entry["flags"] & PageFlag.VALID and self._key(entry) == key:
                return place
        return None

    def walk(self, key: int) -> tuple[Translation, bytes]:
        """What the translation unit answers: the entry's bytes, all zero unless OK."""
        place = self.place_of(key)
        empty = bytes(spec.PAGE_TABLE_ENTRY.itemsize)
        if place is None:
            return Translation.NOT_MAPPED, empty
        status = judge(self.entries[place])
        return status, self.entries[place].tobytes() if status == Translation.OK else empty

    def map(self, key: int, **fields: int) -> int:
        """Enters or replaces a key; fields: of the entry but key and flags. Returns the place."""
        place = self.place_of(key)
        if place is None:
            valid = PageFlag.VALID
            free = (p for p in self.places(key) if not self.entries[p]["flags"] & valid)
            place = next(free, None)
        if place is None:
            raise ConfigError(
                f"key {key:#x}: {spec.PAGE_PROBE_LIMIT} entries from its place on are taken; a larger table is needed"
            )
        entry = np.zeros((), spec.PAGE_TABLE_ENTRY)
        for name, value in fields.items():
            entry[name] = value
        entry["key_high"], entry["key_low"] = key >> 64, key & WORD_MASK
        entry["flags"] = PageFlag.VALID
        self.entries[place] = entry
        return place

    def unmap(self, key: int) -> int | None:
        """Takes a key out; returns the place where it was."""
        place = self.place_of(key)
        if place is not None:
            self.entries[place]["flags"] = PageFlag.DELETED
        return place

    @staticmethod
    def _key(entry: np.void) -> int:
        return int(entry["key_high"]) << 64 | int(entry["key_low"])
