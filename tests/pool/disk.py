"""A disk in memory that can lose power: what was not synced stays in any part, in any order."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

SECTOR_BYTES = (16, 512)  # of what a disk writes whole: cuts entries, and cuts between them


class PowerLoss(BaseException):
    """The machine stops; not an Exception, as nothing of the program runs on."""


class Inode:
    """A file's bytes as programs see them, and how they came about since the last sync."""

    def __init__(self, sector_bytes: int, content: bytes = b"") -> None:
        self.sector_bytes = sector_bytes
        self.content = bytearray(content)
        self.durable = bytes(content)
        self.pending: list[tuple[int, bytes | None]] = []  # a write, or None: the length

    def apply(self, content: bytearray, at: int, data: bytes | None) -> None:
        if data is None:
            del content[at:]
            content.extend(bytes(at - len(content)))
        else:
            content.extend(bytes(max(0, at + len(data) - len(content))))
            content[at : at + len(data)] = data

    def change(self, at: int, data: bytes | None) -> None:
        self.apply(self.content, at, data)
        if data is None:
            self.pending.append((at, None))
            return
        while data:
            part = data[: self.sector_bytes - at % self.sector_bytes]
            self.pending.append((at, part))
            at, data = at + len(part), data[len(part) :]

    def sync(self) -> None:
        self.durable, self.pending = bytes(self.content), []

    def survivor(self, rng: random.Random) -> Inode:
        """What a power loss may leave of it."""
        content, keep = bytearray(self.durable), rng.choice([0.0, 0.5, 0.9, 1.0])
        for at, data in self.pending:
            if rng.random() < keep:
                self.apply(content, at, data)
        return Inode(self.sector_bytes, bytes(content))


class Disk:
    """One directory. `steps`: calls until the power goes, None: never."""

    def __init__(self, files: dict[str, bytes] | None = None, sector_bytes: int = 512) -> None:
        self.sector_bytes = sector_bytes
        self.names = {name: Inode(sector_bytes, content) for name, content in (files or {}).items()}
        self.durable_names = dict(self.names)
        self.renames: list[dict[str, Inode]] = []  # states of the directory since its last sync
        self.steps: int | None = None

    def step(self) -> None:
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                raise PowerLoss

    def check_power(self) -> None:
        """Before a change: none is made once the power went, whatever a handler still tries."""
        if self.steps is not None and self.steps < 0:
            raise PowerLoss

    def renamed(self) -> None:
        self.renames.append(dict(self.names))

    def after_power_loss(self, rng: random.Random) -> Disk:
        names = rng.choice([self.durable_names, *self.renames])
        disk = Disk(sector_bytes=self.sector_bytes)
        disk.names = {name: inode.survivor(rng) for name, inode in names.items()}
        disk.durable_names = dict(disk.names)
        return disk

    def files(self) -> dict[str, bytes]:
        return {name: bytes(inode.content) for name, inode in self.names.items()}

    def directory(self) -> Callable[[Path], SimulatedDirectory]:
        return lambda path: SimulatedDirectory(self, path)


class SimulatedFile:
    """In place of speckv_pynq.pool.store_files.File."""

    def __init__(self, disk: Disk, inode: Inode, path: Path) -> None:
        self._disk, self._inode, self.path = disk, inode, path

    @property
    def nbytes(self) -> int:
        return len(self._inode.content)

    def read(self, offset: int, nbytes: int) -> bytes:
        return bytes(self._inode.content[offset : offset + nbytes])

    def write(self, offset: int, data: bytes) -> None:
        self._disk.check_power()
        self._inode.change(offset, data)  # a power loss in the middle may keep any part of it
        self._disk.step()

    def truncate(self, nbytes: int) -> None:
        self._disk.check_power()
        if nbytes != self.nbytes:
            self._inode.change(nbytes, None)
            self._disk.step()

    def sync(self) -> None:
        self._disk.step()
        self._inode.sync()

    def close(self) -> None:
        pass


class SimulatedDirectory:
    """In place of speckv_pynq.pool.store_files.Directory."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk, self.path = disk, path

    def has(self, name: str) -> bool:
        return name in self._disk.names

    def open(self, name: str, *, new: bool = False) -> SimulatedFile:
        names = self._disk.names
        self._disk.check_power()
        if new and name in names:
            names[name].change(0, None)
        elif new:
            names[name] = Inode(self._disk.sector_bytes)
            self._disk.renamed()
            self._disk.step()
        return SimulatedFile(self._disk, names[name], self.path / name)

    def replace(self, old: str, new: str) -> None:
        self._disk.check_power()
        self._disk.names[new] = self._disk.names.pop(old)
        self._disk.renamed()
        self._disk.step()

    def remove(self, name: str) -> None:
        self._disk.check_power()
        if self._disk.names.pop(name, None):
            self._disk.renamed()
            self._disk.step()

    def sync(self) -> None:
        self._disk.step()
        self._disk.durable_names, self._disk.renames = dict(self._disk.names), []

    def close(self) -> None:
        pass
