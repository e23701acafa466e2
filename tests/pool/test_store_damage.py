"""Files of a store that came to harm: never wrong bytes, never a crash, and what is sound is kept."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq.errors import PoolFull, StoreFormatError
from speckv_pynq.pool import FileStore, store
from speckv_pynq.pool.store_files import DATA, JOURNAL
from speckv_pynq.pool.store_format import (
    ENTRY_BYTES,
    HEADER_BYTES,
    Entry,
    Header,
    crc32c,
    parse_header,
    read_journal,
)
from speckv_pynq.reference import crc32c as reference_crc32c
from tests.pool.disk import Disk
from tests.pool.records import Model, key

pytestmark = pytest.mark.requires("libspeckv")

CAPACITY_BYTES = 1 << 20
MUTATIONS = 3000


class History:
    """Files of a store after `calls`, and what it held after each entry of its journal."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, calls: int = 40, *, compacted_at: int = -1
    ) -> None:
        self._monkeypatch = monkeypatch
        rng, disk = random.Random(5), Disk()
        files = self.open(disk)
        self.states: list[Model] = [{}]
        self.values: dict[bytes, set[bytes | None]] = {key(n): {None} for n in range(12)}
        self.reported: list[int] = [0]  # entries after each call
        for call in range(calls):
            if call == compacted_at:
                files.compact()
            batch = {
                key(rng.randrange(12)): rng.randbytes(rng.randint(1, 300))
                for _ in range(rng.choice([1, 1, 3]))
            }
            if call % 7 == 6:
                batch = {}
                gone = next(iter(self.states[-1]))
                files.delete(gone)
                self.states.append({k: v for k, v in self.states[-1].items() if k != gone})
            files.store_many(batch)
            for one, record in batch.items():
                self.states.append({**self.states[-1], one: record})
                self.values[one].add(record)
            self.reported.append(len(self.states) - 1)
        self.files = disk.files()

    def open(self, disk: Disk) -> FileStore:
        self._monkeypatch.setattr(store, "Directory", disk.directory())
        return FileStore("on a disk in memory", CAPACITY_BYTES)

    def open_with(self, **files: bytes) -> FileStore:
        return self.open(Disk({**self.files, **files}))

    def check_never_wrong(self, files: FileStore) -> Model:
        """Every record is one that its key once had; those that are not there are misses."""
        found = {}
        for one in self.values:
            record = files.load(one)
            assert record in self.values[one] | {None}
            if record is not None:
                found[one] = record
        return found


def entry_bounds(journal: bytes) -> range:
    return range(HEADER_BYTES, len(journal) + 1, ENTRY_BYTES)


def test_a_journal_cut_or_garbled_from_any_byte_on_keeps_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, rng = History(monkeypatch), random.Random(1)
    journal, final = history.files[JOURNAL], history.states[-1]
    places = [at + d for at in entry_bounds(journal) for d in (-1, 0, 1)]
    places += [rng.randrange(HEADER_BYTES, len(journal)) for _ in range(100)]
    for at in places:
        if not HEADER_BYTES <= at <= len(journal):
            continue
        for tail in (b"", rng.randbytes(len(journal) - at), bytes(len(journal) - at)):
            damaged = journal[:at] + tail
            pairs = zip(damaged, journal, strict=False)  # garbage may happen to be right
            sound = next((n for n, (a, b) in enumerate(pairs) if a != b), len(damaged))
            before = history.states[(sound - HEADER_BYTES) // ENTRY_BYTES]
            files = history.open_with(journal=damaged)
            found = history.check_never_wrong(files)
            assert found.items() <= before.items()
            kept = {k: v for k, v in before.items() if final.get(k) == v}
            assert kept.items() <= found.items()  # others' lines may have been used again
            files.store(key(99), b"it goes on")
            assert files.load(key(99)) == b"it goes on"


@pytest.mark.parametrize("compacted_at", [-1, 39])
def test_damage_in_the_middle_of_a_journal_gives_no_stale_record(
    monkeypatch: pytest.MonkeyPatch, compacted_at: int
) -> None:
    history = History(monkeypatch, compacted_at=compacted_at)
    journal, final = history.files[JOURNAL], history.states[-1]
    last_call = history.reported[-1] - history.reported[-2]
    for at in range(HEADER_BYTES, len(journal) - last_call * ENTRY_BYTES, 3):
        damaged = bytearray(journal)
        damaged[at] ^= 1 << at % 8
        files = history.open_with(journal=bytes(damaged))
        found = history.check_never_wrong(files)
        assert found.items() <= final.items()
        assert files.stats().lost > 0
        if compacted_at > 0:  # each key stands once: only one can be gone
            assert len(final) - len(found) <= 1


def test_damaged_data_is_a_counted_miss_for_its_records_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, rng = History(monkeypatch), random.Random(2)
    data, final = history.files[DATA], history.states[-1]
    index = read_journal(history.files[JOURNAL]).index
    for _ in range(300):
        at, size = rng.randrange(HEADER_BYTES, len(data)), rng.choice([1, 8, 64, 500])
        garbage = bytes(byte ^ rng.randint(1, 255) for byte in data[at : at + size])
        files = history.open_with(data=data[:at] + garbage + data[at + len(garbage) :])
        found = history.check_never_wrong(files)
        harmed = {
            one
            for one, entry in index.items()
            if (first := HEADER_BYTES + entry.line * 64) < at + len(garbage)
            and at < first + entry.record_bytes
        }
        assert found == {k: v for k, v in final.items() if k not in harmed}
        assert files.stats().damaged == len(harmed)
    for at in (len(data) - 1, len(data) // 2, HEADER_BYTES):
        files = history.open_with(data=data[:at])
        assert history.check_never_wrong(files).items() <= final.items()
        assert files.stats().lost > 0
        files.store(key(99), b"it goes on")
        assert files.load(key(99)) == b"it goes on"


def repaired(raw: bytes, at: int) -> bytes:
    """With the checksum of the entry that byte `at` is in made to fit."""
    first = HEADER_BYTES + (at - HEADER_BYTES) // ENTRY_BYTES * ENTRY_BYTES
    body = raw[first : first + ENTRY_BYTES - 4]
    seed = crc32c(raw[16:32])  # of the store id
    return raw[:first] + body + struct.pack("<I", crc32c(body, seed)) + raw[first + ENTRY_BYTES :]


def mutate(rng: random.Random, raw: bytes) -> bytes:
    """One to four damages to a journal, half of them with the entry's checksum repaired."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(raw))
        how = rng.randrange(5)
        if how == 0:
            raw = raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
        elif how == 1:
            raw = raw[:at] + rng.randbytes(rng.randint(1, 80)) + raw[at + 8 :]
        elif how == 2:
            raw = raw[: max(1, at)]
        elif how == 3:
            size = ENTRY_BYTES * rng.randint(1, 3)
            raw = raw[:at] + raw[at : at + size] + raw[at:]
        else:
            value = rng.choice([0, 1, 2, 0xFFFF, 0xFFFF_FFFF, (1 << 64) - 1])
            raw = raw[:at] + struct.pack("<Q", value) + raw[at + 8 :]
        if at >= HEADER_BYTES and len(raw) >= at + ENTRY_BYTES and rng.random() < 0.5:
            raw = repaired(raw, at)
    return raw


def test_whatever_a_journal_says_opening_ends_and_loads_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history, rng, opened = History(monkeypatch), random.Random(3), 0
    for _ in range(MUTATIONS):
        raw = mutate(rng, history.files[JOURNAL])
        try:
            files = history.open_with(journal=raw)
        except (StoreFormatError, PoolFull):
            continue
        opened += 1
        history.check_never_wrong(files)
        assert files.stats().disk_bytes <= CAPACITY_BYTES
        files.store(key(0), b"new")
        assert files.load(key(0)) == b"new"
    assert MUTATIONS // 4 < opened < MUTATIONS


@given(st.binary(max_size=500), st.integers(0, 1 << 63))
def test_any_bytes_are_a_journal_or_a_typed_error(raw: bytes, first: int) -> None:
    header = Header(b"SPKVJRNL", 1, ENTRY_BYTES, bytes(16), first, first).pack()
    with pytest.raises(StoreFormatError):
        read_journal(raw)
    found = read_journal(header + raw)
    assert (found.index, found.torn_bytes) == ({}, len(raw))


def test_headers_tell_foreign_newer_and_damaged_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(monkeypatch, 3)
    for name in (JOURNAL, DATA):
        raw = history.files[name]
        newer = bytearray(raw)
        newer[8] = 2
        for bad, words in (
            (b"GIF89a" + raw[6:], "not ours"),
            (bytes(newer), "newer SpecKV"),
            (raw[:30] + b"\xff\xfe" + raw[32:], "damaged"),
            (raw[: HEADER_BYTES - 1], "no header"),
            (b"", "no header"),
        ):
            with pytest.raises(StoreFormatError, match=words):
                history.open_with(**{name: bad})
    other = History(monkeypatch, 3)
    with pytest.raises(StoreFormatError, match="different stores"):
        history.open_with(data=other.files[DATA])
    with pytest.raises(StoreFormatError, match="without journal"):
        history.open(Disk({DATA: history.files[DATA]}))


def test_lines_that_two_entries_claim_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(monkeypatch, 1)
    header = parse_header(history.files[JOURNAL], b"SPKVJRNL", ENTRY_BYTES, "journal")
    raw = header._replace(first=0, durable=0).pack()
    for number, (line, size) in enumerate([(0, 64), (1, 64), (0, 65)]):
        raw += Entry(key(number), line, size, 0, number, 0).pack(header.store_id)
    files = history.open_with(journal=raw, data=history.files[DATA][:HEADER_BYTES] + bytes(640))
    assert files.keys() == []
    assert files.stats().lost == 3


def test_the_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, B.4
    rng = random.Random(4)
    for size in (0, 1, 3, 4, 63, 64, 1000):
        data, seed = rng.randbytes(size), rng.getrandbits(32)
        assert crc32c(data, seed) == reference_crc32c(data, seed)
