"""A store's journal on the disk, and the index that its entries make."""

from __future__ import annotations

import contextlib

from speckv_pynq.pool import store_format as form
from speckv_pynq.pool.store_files import JOURNAL, NEW_JOURNAL, Directory, File, failure


class Journal:
    """Entries, appended and made durable; written anew when too many say nothing any more.

    index: key -> its newest entry, in the order in which they were stored. unsure: a write failed so
    that it is not known what the disk holds; nothing may be written until the store is opened anew.
    """

    def __init__(
        self, directory: Directory, store_id: bytes, index: dict[bytes, form.Entry], number: int
    ) -> None:
        """`create` and `open` make one; number: of the next entry."""
        self.store_id, self.index, self.number = store_id, index, number
        self.unsure = False
        self._directory = directory
        self._file: File | None = None

    @classmethod
    def create(cls, directory: Directory, store_id: bytes) -> Journal:
        """An empty one, durable, under its name."""
        journal = cls(directory, store_id, {}, 0)
        try:
            journal.compact()
        except BaseException:
            journal.close()
            raise
        return journal

    @classmethod
    def open(cls, directory: Directory) -> tuple[Journal, form.Recovered]:
        """The one that is there, as it is: call `settle` before anything is appended."""
        file = directory.open(JOURNAL)
        try:
            found = form.read_journal(file.read(0, file.nbytes), str(file.path))
        except BaseException:
            file.close()
            raise
        journal = cls(directory, found.header.store_id, found.index, found.next_number)
        journal._file = file
        return journal, found

    @property
    def nbytes(self) -> int:
        return self.file.nbytes

    @property
    def file(self) -> File:
        assert self._file is not None
        return self._file

    @property
    def dead(self) -> int:
        """Entries that say nothing any more."""
        return (self.nbytes - form.HEADER_BYTES) // form.ENTRY_BYTES - len(self.index)

    def settle(self, valid_bytes: int) -> None:
        """Cuts what a crash left half done, and makes durable what was found.

        A process that was killed may have left names and entries in the system's cache alone.
        """
        self._directory.remove(NEW_JOURNAL)
        self.file.truncate(valid_bytes)
        self._directory.sync()
        self.file.sync()

    def append(self, entries: list[form.Entry]) -> list[form.Entry]:
        """Takes entries, numbered from `number` on, into disk and index; those that they replace.

        When it returns they are durable. OSError: they do not count, or `unsure` is set.
        """
        end, packed = self.nbytes, [entry.pack(self.store_id) for entry in entries]
        self.unsure = True
        try:
            self.file.write(end, b"".join(packed))
        except OSError:
            self.file.truncate(end)
            self.file.sync()
            self.unsure = False
            raise
        self.file.sync()
        self.number += len(entries)
        replaced = [old for entry in entries if (old := self.index.pop(entry.key, None))]
        self.index.update((entry.key, entry) for entry in entries if entry.what == form.STORE)
        self.unsure = False
        return replaced

    def compact(self) -> None:
        """Writes it anew with what is alive. StoreError or PoolFull: the old one goes on."""
        try:
            new = self._write_new()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._directory.remove(NEW_JOURNAL)
            raise failure("compaction", self._directory.path, error) from error
        self.unsure = True
        try:
            self._directory.replace(NEW_JOURNAL, JOURNAL)
        except BaseException as error:
            new.close()
            if isinstance(error, OSError):
                raise failure("compaction", self._directory.path, error) from error
            raise
        old, self._file = self._file, new
        self.number += len(self.index)
        try:
            if old is not None:
                old.close()
            self._directory.sync()
        except OSError as error:
            raise failure("compaction", self._directory.path, error) from error
        self.unsure = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write_new(self) -> File:
        """A journal of what is alive, durable under its temporary name."""
        first, durable = self.number, self.number + len(self.index)
        header = form.Header(
            form.JOURNAL_MAGIC, form.VERSION, form.ENTRY_BYTES, self.store_id, first, durable
        )
        entries = [
            entry._replace(number=number, durable=first).pack(self.store_id)
            for number, entry in enumerate(self.index.values(), first)
        ]
        new = self._directory.open(NEW_JOURNAL, new=True)
        try:
            new.write(0, header.pack() + b"".join(entries))
            new.sync()
        except BaseException:
            new.close()
            raise
        return new


def bytes_anew(records: int) -> int:
    """Of a journal written anew."""
    return form.HEADER_BYTES + records * form.ENTRY_BYTES
