"""A disk that is full, fails or does things in pieces: a typed error, and nothing stored is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speckv_pynq.errors import PoolFull, StoreError
from speckv_pynq.pool import FileStore, store, store_files
from tests.pool.records import Model, Operation, check_between, content, key

pytestmark = pytest.mark.requires("libspeckv")

CAPACITY_BYTES = 1 << 16
CALLS = ("open", "pread", "pwrite", "fdatasync", "ftruncate", "fsync")


class FaultyOs:
    """In place of the module os: fails one call after `countdown` others, or cuts it short."""

    def __init__(self) -> None:
        self.call, self.code, self.countdown = "", 0, -1
        self.pieces: random.Random | None = None

    def arm(self, call: str, code: int, countdown: int) -> None:
        self.call, self.code, self.countdown = call, code, countdown

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._wrapped(name, real) if name in CALLS else real

    def _wrapped(self, name: str, real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if name == self.call and self.countdown >= 0:
                self.countdown -= 1
                if self.countdown < 0:
                    if name == "pwrite":  # a part of it reaches the disk all the same
                        real(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
                    if self.code == errno.ENOMEM:
                        raise MemoryError("injected")
                    raise OSError(self.code, os.strerror(self.code))
            if self.pieces and name == "pwrite":
                fd, data, offset = arguments
                arguments = (fd, data[: self.pieces.randint(1, len(data))], offset)
            if self.pieces and name == "pread":
                fd, size, offset = arguments
                arguments = (fd, self.pieces.randint(1, size), offset)
            return real(*arguments, **named)

        return call


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyOs]:
    faulty = FaultyOs()
    monkeypatch.setattr(store_files, "os", faulty)
    monkeypatch.setattr(store, "DEAD_ENTRIES", 8)
    return faulty


def test_reads_and_writes_in_pieces_are_put_together(folder: Path, system: FaultyOs) -> None:
    system.pieces = rng = random.Random(1)
    model: Model = {}
    for _ in range(4):
        with FileStore(folder / "store", CAPACITY_BYTES) as files:
            assert content(files) == model
            for _ in range(12):
                operation = Operation.random(rng)
                operation.run(files)
                model = operation.applied(model)
            assert content(files) == model


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.ENOMEM])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_anywhere_loses_nothing(
    folder: Path, system: FaultyOs, call: str, code: int
) -> None:
    rng, model, failed = random.Random(2), Model(), 0
    for countdown in range(25):
        if call == "pread" and countdown > 4:
            break
        operation, error = Operation(), None
        system.arm(call, code, countdown)
        try:
            with FileStore(folder / "store", CAPACITY_BYTES) as files:
                for _ in range(12):
                    operation = Operation.random(rng, most_bytes=300)
                    operation.run(files)
                    model = operation.applied(model)
                    operation = Operation()
        except (StoreError, PoolFull, MemoryError) as caught:
            error = caught
            failed += 1
        if error is not None and code == errno.ENOSPC:
            assert isinstance(error, PoolFull) or "open the store anew" in str(error)
        system.arm("", 0, -1)
        with FileStore(folder / "store", CAPACITY_BYTES) as files:
            found = content(files)
            assert files.stats().lost == 0
        check_between(found, model, operation)
        model = found
    # A read is asked for when a store is opened; a truncation that fails is made up for later.
    assert failed or call in ("pread", "ftruncate")


def test_after_a_full_disk_the_same_store_goes_on(folder: Path, system: FaultyOs) -> None:
    with FileStore(folder / "store", CAPACITY_BYTES) as files:
        files.store(key(0), b"old")
        for countdown in range(2):  # while the record is written, while its entry is
            system.arm("pwrite", errno.ENOSPC, countdown)
            with pytest.raises(PoolFull, match="no room"):
                files.store(key(0), b"new")
            assert content(files) == {key(0): b"old"}
        files.store(key(0), b"new")
        assert content(files) == {key(0): b"new"}
    with FileStore(folder / "store", CAPACITY_BYTES) as files:
        assert content(files) == {key(0): b"new"}


def test_after_a_sync_that_failed_it_wants_to_be_opened_anew(
    folder: Path, system: FaultyOs
) -> None:
    with FileStore(folder / "store", CAPACITY_BYTES) as files:
        files.store(key(0), b"old")
        system.arm("fdatasync", errno.EIO, 1)  # the journal's: may be on the disk or not
        with pytest.raises(StoreError, match="Input/output"):
            files.store(key(0), b"new")
        with pytest.raises(StoreError, match="open the store anew"):
            files.store(key(1), b"more")
        assert content(files) == {key(0): b"old"}
    with FileStore(folder / "store", CAPACITY_BYTES) as files:
        assert files.load(key(0)) in (b"old", b"new")
        files.store(key(1), b"more")
        assert files.load(key(1)) == b"more"


def test_a_record_that_cannot_be_read_is_a_counted_miss(folder: Path, system: FaultyOs) -> None:
    with FileStore(folder / "store", CAPACITY_BYTES) as files:
        files.store(key(0), b"x" * 100)
        system.arm("pread", errno.EIO, 0)
        assert files.load(key(0)) is None
        assert files.stats().damaged == 1
        assert files.load(key(0)) == b"x" * 100


def test_nothing_stays_open_when_opening_fails(folder: Path, system: FaultyOs) -> None:
    with FileStore(folder / "store", CAPACITY_BYTES) as files:
        files.store(key(0), b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for call in CALLS:
        for countdown in range(12):
            path = folder / ("store" if countdown % 2 else f"new {call} {countdown}")
            system.arm(call, errno.EIO, countdown // 2)
            with contextlib.suppress(StoreError):
                FileStore(path, CAPACITY_BYTES).close()
            assert len(list(Path("/proc/self/fd").iterdir())) == before
