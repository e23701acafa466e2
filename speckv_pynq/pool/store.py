"""Records on a disk by key, kept across runs. docs/file_pool.md has the format and the reasons.

The order that makes it safe: data written, data synced, entries written, entries synced, told; only
then lines of replaced records are free. So whatever instant a process ends at, each entry that
counts has its data, and an old record lasts until the new one is durable.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from speckv_pynq import spec
from speckv_pynq.closing import Closing
from speckv_pynq.errors import ConfigError, PoolFull, StoreError, StoreFormatError
from speckv_pynq.pool import store_format as form
from speckv_pynq.pool.journal import Journal, bytes_anew
from speckv_pynq.pool.lines import Lines
from speckv_pynq.pool.store_files import DATA, JOURNAL, Directory, failure

Record = bytes | bytearray | memoryview | np.ndarray
# Two headers, a record of one line, its entry, and room to write the journal anew.
MIN_CAPACITY_BYTES: Final = 3 * form.HEADER_BYTES + 2 * form.ENTRY_BYTES + spec.LINE_BYTES
# Dead entries that a journal may hold beyond as many as are alive, before it is written anew.
DEAD_ENTRIES: Final = 1024


@dataclass(frozen=True)
class StoreStats:
    """disk_bytes: length of all files, with room to write the journal anew <= capacity_bytes.

    damaged: loads that found bytes other than what was stored, since the store was opened. lost:
    records that opening it could not vouch for. torn_bytes: of entries cut off then.
    """

    records: int
    record_bytes: int
    data_bytes: int
    journal_bytes: int
    disk_bytes: int
    capacity_bytes: int
    damaged: int
    lost: int
    torn_bytes: int


class FileStore(Closing):
    """Records by 16-byte key in a directory; one object at a time has it open.

    What `store` and `delete` returned from survives the end of the process, and of the machine as
    far as the disk keeps what it said to be synced. A record that came to harm is a miss, never
    wrong bytes. Safe to use from several threads: calls are serialised. A call that raises has
    changed nothing that was stored; only where a sync failed may the store, opened anew, show it done.
    """

    def __init__(self, directory: str | os.PathLike[str], capacity_bytes: int) -> None:
        """Opens or makes it. capacity_bytes: hard limit on the length of all its files.

        StoreLocked when in use; StoreFormatError for files that are foreign, newer or damaged as a
        whole; PoolFull when it holds more than the limit; StoreError when the system refuses.
        """
        if capacity_bytes < MIN_CAPACITY_BYTES:
            raise ConfigError(f"capacity_bytes {capacity_bytes} < {MIN_CAPACITY_BYTES}")
        self._capacity_bytes, self._pid = capacity_bytes, os.getpid()
        self._lock = threading.Lock()
        self._lines, self._damaged, self._lost, self._torn_bytes = Lines(), 0, 0, 0
        self._record_bytes = 0
        self._closed = False
        self.path = Path(directory)
        with contextlib.ExitStack() as undo:
            try:
                self._directory = Directory(self.path)
                undo.callback(self._directory.close)
                new = not self._directory.has(JOURNAL)
                if new:
                    self._check_empty()
                self._data = self._directory.open(DATA, new=new)
                undo.callback(self._data.close)
                if new:
                    self._journal = self._create()
                    undo.callback(self._journal.close)
                else:
                    self._journal, found = Journal.open(self._directory)
                    undo.callback(self._journal.close)
                    self._recover(found)
            except (StoreError, PoolFull):
                raise
            except OSError as error:
                raise failure("open", self.path, error) from error
            undo.pop_all()

    def store(self, key: bytes, record: Record) -> None:
        """Keeps record under key, replacing what stood there; durable when it returns."""
        self.store_many({key: record})

    def store_many(self, records: Mapping[bytes, Record]) -> None:
        """Like `store` for each, with one wait for the disk; a crash may keep any part of them.

        ValueError for a key that is not 16 bytes or a record outside 1..2**32-1; PoolFull when
        capacity or disk do not hold them all; StoreError when the disk fails.
        """
        batch = {_key(key): _record(record) for key, record in records.items()}
        with self._lock:
            self._check_writable()
            if not batch:
                return
            firsts = self._take(batch)
            try:
                for first, record in zip(firsts, batch.values(), strict=True):
                    padding = bytes(-len(record) % spec.LINE_BYTES)
                    self._data.write(_offset(first), record + padding)
                self._data.sync()
                replaced = self._journal.append(self._entries(firsts, batch))
            except BaseException as error:
                if not self._journal.unsure:
                    self._give(zip(firsts, map(_lines, batch.values()), strict=True))
                if isinstance(error, OSError) and not isinstance(error, StoreError):
                    raise failure("store", self.path, error) from error
                raise
            self._record_bytes += sum(map(len, batch.values()))
            self._forget(replaced)

    def load(self, key: bytes) -> bytes | None:
        """The record, as stored; None where there is none, or it came to harm (counted)."""
        with self._lock:
            self._check_open()
            entry = self._journal.index.get(_key(key))
            if entry is None:
                return None
            try:
                record = self._data.read(_offset(entry.line), entry.record_bytes)
            except OSError:
                record = b""
            if form.record_crc(entry.key, record) != entry.record_crc:
                self._damaged += 1
                return None
            return record

    def delete(self, key: bytes) -> bool:
        """Forgets a record, durably; False where there was none. The capacity always has room for it."""
        with self._lock:
            self._check_writable()
            old = self._journal.index.get(_key(key))
            if old is None:
                return False
            number = self._journal.number
            gone = form.Entry(old.key, 0, 0, 0, number, number, form.DELETE)
            try:
                replaced = self._journal.append([gone])
            except OSError as error:
                raise failure("delete", self.path, error) from error
            self._forget(replaced)
            return True

    def keys(self) -> list[bytes]:
        """Of all records, the one stored first before the others."""
        with self._lock:
            self._check_open()
            return list(self._journal.index)

    def stats(self) -> StoreStats:
        with self._lock:
            self._check_open()
            data, journal = self._data.nbytes, self._journal.nbytes
            return StoreStats(
                records=len(self._journal.index),
                record_bytes=self._record_bytes,
                data_bytes=data,
                journal_bytes=journal,
                disk_bytes=data + journal,
                capacity_bytes=self._capacity_bytes,
                damaged=self._damaged,
                lost=self._lost,
                torn_bytes=self._torn_bytes,
            )

    def compact(self) -> None:
        """Writes the journal anew with what is alive; done by itself when half of it is dead."""
        with self._lock:
            self._check_writable()
            self._journal.compact()

    def close(self) -> None:
        """Lets go of the directory; harmless when repeated."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._data.close()
            self._journal.close()
            if os.getpid() == self._pid:  # a forked child must not unlock its parent's store
                self._directory.close()

    def __len__(self) -> int:
        return len(self._journal.index)

    def __contains__(self, key: bytes) -> bool:
        return key in self._journal.index

    def _check_empty(self) -> None:
        """A data file without a journal is of a start that was cut short, if it holds nothing."""
        if self._directory.has(DATA):
            with contextlib.closing(self._directory.open(DATA)) as data:
                if data.nbytes > form.HEADER_BYTES:
                    raise StoreFormatError(f"{self.path}: {DATA} without {JOURNAL}: damaged")

    def _create(self) -> Journal:
        """Both files; the data file first, so that a journal never stands alone."""
        header = form.Header(
            form.DATA_MAGIC, form.VERSION, spec.LINE_BYTES, os.urandom(form.ID_BYTES)
        )
        self._data.write(0, header.pack())
        self._data.sync()
        return Journal.create(self._directory, header.store_id)

    def _recover(self, found: form.Recovered) -> None:
        """Settles which records are sound and where they lie."""
        start = self._data.read(0, form.HEADER_BYTES)
        header = form.parse_header(start, form.DATA_MAGIC, spec.LINE_BYTES, str(self._data.path))
        if header.store_id != self._journal.store_id:
            raise StoreFormatError(f"{self.path}: {DATA} and {JOURNAL} are of different stores")
        limit = (self._data.nbytes - form.HEADER_BYTES) // spec.LINE_BYTES
        index = form.sound_entries(found.index, limit)
        for entry in sorted(index.values(), key=lambda entry: entry.line):
            self._lines.occupy(entry.line, entry.lines)
        self._record_bytes = sum(entry.record_bytes for entry in index.values())
        dropped = len(found.index) - len(index)
        self._journal.index = index
        self._lost, self._torn_bytes = found.lost + found.suspects + dropped, found.torn_bytes
        if not self._fits(0, len(index), found.valid_bytes):
            held = _offset(self._lines.top) + found.valid_bytes
            raise PoolFull(
                f"{self.path}: {held} bytes and room to compact > capacity_bytes "
                f"{self._capacity_bytes}"
            )
        self._journal.settle(found.valid_bytes)
        self._data.truncate(_offset(self._lines.top))
        if self._lost:
            self._journal.compact()

    def _take(self, batch: Mapping[bytes, bytes]) -> list[int]:
        """First lines for each record; PoolFull, with nothing taken, when they do not fit."""
        live = len(self._journal.index) + sum(key not in self._journal.index for key in batch)
        firsts = [self._lines.take(_lines(record)) for record in batch.values()]
        try:
            if not self._fits(len(batch), live) and self._journal.dead:
                self._journal.compact()
            if not self._fits(len(batch), live):
                asked = sum(map(len, batch.values()))
                raise PoolFull(
                    f"{self.path}: {len(batch)} records of {asked} bytes do not fit: files hold "
                    f"{self._data.nbytes + self._journal.nbytes} bytes of {self._capacity_bytes}; "
                    "delete some"
                )
        except BaseException:
            self._give(zip(firsts, map(_lines, batch.values()), strict=True))
            raise
        return firsts

    def _entries(self, firsts: list[int], batch: Mapping[bytes, bytes]) -> list[form.Entry]:
        start = self._journal.number
        return [
            form.Entry(key, first, len(record), form.record_crc(key, record), start + i, start)
            for i, (first, (key, record)) in enumerate(zip(firsts, batch.items(), strict=True))
        ]

    def _fits(self, entries: int, live: int, journal_bytes: int | None = None) -> bool:
        """With so many entries more, is there still room to write the journal anew?"""
        journal = self._journal.nbytes if journal_bytes is None else journal_bytes
        after = _offset(self._lines.top) + journal + entries * form.ENTRY_BYTES
        return after + bytes_anew(live) <= self._capacity_bytes

    def _forget(self, replaced: list[form.Entry]) -> None:
        """Frees the lines of records that no durable entry names any more."""
        self._record_bytes -= sum(old.record_bytes for old in replaced)
        self._give((old.line, old.lines) for old in replaced)
        if self._journal.dead > len(self._journal.index) + DEAD_ENTRIES:
            with contextlib.suppress(StoreError, MemoryError):  # the call's own work is done
                self._journal.compact()

    def _give(self, runs: Iterable[tuple[int, int]]) -> None:
        for first, lines in runs:
            self._lines.give(first, lines)
        with contextlib.suppress(OSError):  # a longer file does no harm
            self._data.truncate(min(self._data.nbytes, _offset(self._lines.top)))

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: the store is closed")
        if os.getpid() != self._pid:
            raise StoreError(f"{self.path}: opened by process {self._pid}, not by {os.getpid()}")

    def _check_writable(self) -> None:
        self._check_open()
        if self._journal.unsure:
            raise StoreError(
                f"{self.path}: an earlier write failed half way; open the store anew to go on"
            )


def _key(key: bytes) -> bytes:
    if len(key) != form.KEY_BYTES:
        raise ValueError(f"a key of {len(key)} bytes; {form.KEY_BYTES} are needed")
    return bytes(key)


def _record(record: Record) -> bytes:
    data = record.tobytes() if isinstance(record, np.ndarray) else bytes(record)
    if not 1 <= len(data) <= form.MAX_RECORD_BYTES:
        raise ValueError(f"a record of {len(data)} bytes is not within 1..{form.MAX_RECORD_BYTES}")
    return data


def _lines(record: bytes) -> int:
    return -(-len(record) // spec.LINE_BYTES)


def _offset(line: int) -> int:
    """Of a line in the data file."""
    return form.HEADER_BYTES + line * spec.LINE_BYTES
