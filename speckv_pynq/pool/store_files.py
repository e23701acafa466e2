"""Files of a store and the directory that they are in: the calls whose order makes it crash-safe."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from speckv_pynq.errors import PoolFull, StoreError, StoreFormatError, StoreLocked

LOCK, DATA, JOURNAL, NEW_JOURNAL = "lock", "data", "journal", "journal.new"
_NAMES: Final = frozenset((LOCK, DATA, JOURNAL, NEW_JOURNAL))
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


class File:
    """An open file, read and written at offsets, whole or not at all said to be."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        """new: made, or emptied where it is there."""
        self.path = path
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags | (os.O_CREAT | os.O_TRUNC if new else 0), 0o600)
        try:
            self.nbytes = os.fstat(self._fd).st_size  # as far as writes and truncate went
        except BaseException:
            os.close(self._fd)
            raise

    def read(self, offset: int, nbytes: int) -> bytes:
        """Fewer bytes only where the file ends."""
        parts: list[bytes] = []
        while nbytes > 0:
            part = os.pread(self._fd, nbytes, offset)
            if not part:
                break
            parts.append(part)
            offset, nbytes = offset + len(part), nbytes - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """All of it, or OSError with a part of it written."""
        left = memoryview(data)
        while left:
            done = os.pwrite(self._fd, left, offset)
            left, offset = left[done:], offset + done
            self.nbytes = max(self.nbytes, offset)

    def truncate(self, nbytes: int) -> None:
        if nbytes != self.nbytes:
            os.ftruncate(self._fd, nbytes)
            self.nbytes = nbytes

    def sync(self) -> None:
        """Returns when data and length are on the disk."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Directory:
    """A store's directory, locked for one user."""

    def __init__(self, path: Path) -> None:
        """Makes it where it is missing.

        StoreLocked when in use; StoreFormatError for a directory with files of others.
        """
        self.path = path
        if not path.is_dir():
            path.mkdir(parents=True)
            _sync(path.parent)  # its own name is as durable as what it holds
        foreign = sorted({entry.name for entry in path.iterdir()} - _NAMES)
        if foreign:
            raise StoreFormatError(f"{path}: holds {foreign[0]!r}, which is not of a file store")
        self._names = -1
        self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._names = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, BlockingIOError):
                raise StoreLocked(f"{path}: another process or object has it open") from error
            raise

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def open(self, name: str, *, new: bool = False) -> File:
        return File(self.path / name, new=new)

    def replace(self, old: str, new: str) -> None:
        """Renames atomically; durable after sync."""
        (self.path / old).replace(self.path / new)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sync(self) -> None:
        """Returns when names are on the disk."""
        os.fsync(self._names)

    def close(self) -> None:
        """Unlocks, for processes forked meanwhile too."""
        if self._lock >= 0:
            os.close(self._names)
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def failure(what: str, path: Path, error: OSError) -> StoreError | PoolFull:
    """The typed error for a call that the system failed."""
    if error.errno in _FULL:
        return PoolFull(f"{path}: {what}: {error.strerror}: the disk has no room")
    return StoreError(f"{path}: {what}: {error.strerror or error}")
