"""Bytes of a file store: the one place that knows them. docs/file_pool.md tells the reasons.

A header begins both files. The journal goes on with entries, numbered without a gap; the data file
with lines. Integers are little endian.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from speckv_pynq import spec
from speckv_pynq.device import library
from speckv_pynq.errors import StoreFormatError

VERSION: Final = 1
KEY_BYTES: Final = 16
ID_BYTES: Final = 16
MAX_RECORD_BYTES: Final = 0xFFFF_FFFF
JOURNAL_MAGIC: Final = b"SPKVJRNL"
DATA_MAGIC: Final = b"SPKVDATA"
STORE, DELETE = 1, 2

_CRC: Final = struct.Struct("<I")
# magic, version, unit bytes, store id, first number, durable number; CRC32C of all before it
_HEADER: Final = struct.Struct("<8sII16sQQ12x")
# key, first line, record bytes, CRC32C of key and record, number, durable number, what;
# CRC32C of all before it, begun with that of the store id
_ENTRY: Final = struct.Struct("<16sQIIQQB11x")
HEADER_BYTES: Final = _HEADER.size + _CRC.size
ENTRY_BYTES: Final = _ENTRY.size + _CRC.size


class Header(NamedTuple):
    """unit_bytes: of a line or an entry. first: number of the first entry.

    durable: every entry with a lower number was on the disk before this header counted.
    """

    magic: bytes
    version: int
    unit_bytes: int
    store_id: bytes
    first: int = 0
    durable: int = 0

    def pack(self) -> bytes:
        body = _HEADER.pack(*self)
        return body + _CRC.pack(crc32c(body))


class Entry(NamedTuple):
    """What became of a key. durable: as in Header, before this entry was written."""

    key: bytes
    line: int
    record_bytes: int
    record_crc: int
    number: int
    durable: int
    what: int = STORE

    def pack(self, store_id: bytes) -> bytes:
        body = _ENTRY.pack(*self)
        return body + _CRC.pack(crc32c(body, crc32c(store_id)))

    @property
    def lines(self) -> int:
        return -(-self.record_bytes // spec.LINE_BYTES)


@dataclass
class Recovered:
    """What a journal says. index: key -> its newest entry, in order of their numbers.

    valid_bytes: up to where the journal is to be kept. torn_bytes: behind it, of a batch that was
    never reported stored. lost: entries that had been durable and are damaged or missing.
    suspects: records given up because a lost entry may have replaced or deleted them.
    """

    header: Header
    index: dict[bytes, Entry] = field(default_factory=dict)
    next_number: int = 0
    valid_bytes: int = HEADER_BYTES
    torn_bytes: int = 0
    lost: int = 0
    suspects: int = 0


def parse_header(raw: bytes, magic: bytes, unit_bytes: int, name: str) -> Header:
    """The header of a file's first bytes; StoreFormatError tells what is wrong with it."""
    if len(raw) < HEADER_BYTES:
        raise StoreFormatError(f"{name}: {len(raw)} bytes < {HEADER_BYTES}: no header; damaged")
    body, stated = raw[: _HEADER.size], _CRC.unpack_from(raw, _HEADER.size)[0]
    header = Header(*_HEADER.unpack(body))
    if header.magic != magic:
        raise StoreFormatError(f"{name}: begins with {header.magic!r}, not {magic!r}: not ours")
    if header.version > VERSION:
        raise StoreFormatError(
            f"{name}: version {header.version} > {VERSION}: made by a newer SpecKV"
        )
    if crc32c(body) != stated or header.version < 1 or header.durable < header.first:
        raise StoreFormatError(f"{name}: header damaged; delete the store's directory")
    if header.unit_bytes != unit_bytes:
        raise StoreFormatError(f"{name}: units of {header.unit_bytes} bytes, not {unit_bytes}")
    return header


def read_journal(raw: bytes, name: str = "journal") -> Recovered:
    """Entries of a whole journal; StoreFormatError only for its header.

    A hole (damaged entry) at or above the highest durable number is where a crash cut a batch: it
    and what follows never counted. Below, something durable was lost; whatever stood before such a
    hole may be out of date and is given up, unless the hole is in the part that a compaction
    wrote, where each key stands once.
    """
    header = parse_header(raw, JOURNAL_MAGIC, ENTRY_BYTES, name)
    found = Recovered(header, next_number=header.first)
    entries = list(_entries(raw, header))
    durable = max([header.durable, *(entry.durable for entry in entries if entry)])
    for number, entry in enumerate(entries, header.first):
        if entry is None and number >= durable:
            break
        found.next_number = number + 1
        if entry is None:
            found.lost += 1
            if number >= header.durable:
                found.suspects += len(found.index)
                found.index.clear()
            continue
        found.index.pop(entry.key, None)  # so that the order is that of the numbers
        if entry.what == STORE:
            found.index[entry.key] = entry
    found.lost += max(0, durable - found.next_number)
    found.valid_bytes += (found.next_number - header.first) * ENTRY_BYTES
    found.torn_bytes = len(raw) - found.valid_bytes
    found.next_number = max(found.next_number, durable)
    return found


def _entries(raw: bytes, header: Header) -> Iterator[Entry | None]:
    """Each whole entry behind the header, None for one that is not sound."""
    seed = crc32c(header.store_id)
    for number, at in enumerate(
        range(HEADER_BYTES, len(raw) - ENTRY_BYTES + 1, ENTRY_BYTES), header.first
    ):
        body = raw[at : at + _ENTRY.size]
        if crc32c(body, seed) != _CRC.unpack_from(raw, at + _ENTRY.size)[0]:
            yield None
            continue
        entry = Entry(*_ENTRY.unpack(body))
        sound = entry.number == number and header.first <= entry.durable <= number
        sound &= entry.what == DELETE or (entry.what == STORE and entry.record_bytes > 0)
        yield entry if sound else None


def sound_entries(index: dict[bytes, Entry], lines: int) -> dict[bytes, Entry]:
    """Those whose records lie within the first `lines` of the data file, on lines of their own."""
    inside = [entry for entry in index.values() if entry.line + entry.lines <= lines]
    inside.sort(key=lambda entry: entry.line)
    bad, end, before = set(index) - {entry.key for entry in inside}, 0, b""
    for entry in inside:
        if entry.line < end:
            bad |= {entry.key, before}
        if entry.line + entry.lines > end:
            end, before = entry.line + entry.lines, entry.key
    return {key: entry for key, entry in index.items() if key not in bad}


def record_crc(key: bytes, record: bytes) -> int:
    """CRC32C of key and record: bytes of another key never pass for this one's."""
    return crc32c(record, crc32c(key))


def crc32c(data: bytes, seed: int = 0) -> int:
    """CRC32C of data; seed: that of what came before, 0 at the start."""
    return _native_crc32c()(seed, data, len(data))


@functools.cache
def _native_crc32c() -> Callable[[int, bytes, int], int]:
    function = library.load().cdll.speckv_csim_crc32c
    function.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint64]
    function.restype = ctypes.c_uint32
    return function  # type: ignore[no-any-return]
