"""A file store against a dict, its limits, and who may open it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from speckv_pynq.errors import (
    ConfigError,
    PoolFull,
    StoreError,
    StoreFormatError,
    StoreLocked,
)
from speckv_pynq.pool import FileStore
from speckv_pynq.pool.store import MIN_CAPACITY_BYTES
from tests.pool.records import FAST, Model, content, key

pytestmark = pytest.mark.requires("libspeckv")

KEYS = st.integers(0, 9).map(key)
RECORDS = st.builds(random.Random, st.integers(0, 1 << 30)).map(
    lambda rng: rng.randbytes(rng.choice([1, 63, 64, 65, rng.randint(1, 900)]))
)


class StoreMachine(RuleBasedStateMachine):
    """Any calls in any order, with a capacity that some of them meet."""

    @initialize(capacity_bytes=st.integers(MIN_CAPACITY_BYTES, 8000))
    def open(self, capacity_bytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=FAST))
        self.capacity_bytes = capacity_bytes
        self.files = FileStore(self.folder / "store", capacity_bytes)
        self.model: Model = {}

    @rule(batch=st.dictionaries(KEYS, RECORDS, max_size=4))
    def store(self, batch: Model) -> None:
        try:
            self.files.store_many(batch)
        except PoolFull:
            assert not self.fits_easily(batch)
        else:
            for one, record in batch.items():
                self.model.pop(one, None)
                self.model[one] = record

    @rule(one=KEYS)
    def delete(self, one: bytes) -> None:
        assert self.files.delete(one) == (one in self.model)
        self.model.pop(one, None)

    @rule(one=KEYS)
    def load(self, one: bytes) -> None:
        assert self.files.load(one) == self.model.get(one)
        assert (one in self.files) == (one in self.model)

    @rule()
    def compact(self) -> None:
        before = self.files.stats().disk_bytes
        self.files.compact()
        assert self.files.stats().disk_bytes <= before

    @rule()
    def open_again(self) -> None:
        self.files.close()
        self.files = FileStore(self.folder / "store", self.capacity_bytes)

    @invariant()
    def holds_what_it_should(self) -> None:
        stats = self.files.stats()
        assert content(self.files) == self.model
        assert self.files.keys() == list(self.model)  # in the order in which they were stored
        assert stats.record_bytes == sum(map(len, self.model.values()))
        sizes = [path.stat().st_size for path in (self.folder / "store").iterdir()]
        assert stats.disk_bytes == sum(sizes) <= self.capacity_bytes
        assert (stats.damaged, stats.lost, stats.torn_bytes) == (0, 0, 0)

    def fits_easily(self, batch: Model) -> bool:
        """Twice over, so that neither what it replaces nor a fragmented file is in the way."""
        records = [*self.model.values(), *batch.values()]
        return 3 * 64 + sum(2 * (len(record) + 63 + 4 * 64) for record in records) <= (
            self.capacity_bytes - sum(map(len, self.model.values()))
        )

    def teardown(self) -> None:
        if hasattr(self, "files"):
            self.files.close()
            shutil.rmtree(self.folder)


TestFileStore = StoreMachine.TestCase
TestFileStore.settings = settings(
    max_examples=60, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)


def test_the_capacity_is_exact_to_the_byte(folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"< {MIN_CAPACITY_BYTES}"):
        FileStore(folder / "small", MIN_CAPACITY_BYTES - 1)
    assert not (folder / "small").exists()
    with FileStore(folder / "store", MIN_CAPACITY_BYTES + 63) as files:
        with pytest.raises(PoolFull, match="1 records of 65 bytes"):
            files.store(key(0), bytes(65))
        files.store(key(0), b"x" * 64)
        with pytest.raises(PoolFull):
            files.store(key(1), b"y")
        with pytest.raises(PoolFull):
            files.store(key(0), b"y")  # the old one stays until the new one is durable
        assert content(files) == {key(0): b"x" * 64}
        assert files.delete(key(0))
        files.store(key(1), b"y" * 64)
        assert content(files) == {key(1): b"y" * 64}


def test_a_store_that_is_full_goes_on_after_each_delete(folder: Path) -> None:
    with FileStore(folder / "store", 10_000) as files:
        stored = 0
        with contextlib.suppress(PoolFull):
            while True:
                files.store(key(stored), bytes([stored]) * 500)
                stored += 1
        assert stored > 10
        for number in range(60):
            assert files.delete(key(number))
            files.store(key(number + stored), bytes([number % 256]) * 500)
        assert len(content(files)) == stored


def test_a_smaller_capacity_is_refused_and_changes_nothing(folder: Path) -> None:
    with FileStore(folder / "store", 10_000) as files:
        files.store(key(0), bytes(5000))
    before = {path.name: path.read_bytes() for path in (folder / "store").iterdir()}
    with pytest.raises(PoolFull, match="capacity_bytes 5000"):
        FileStore(folder / "store", 5000)
    assert {path.name: path.read_bytes() for path in (folder / "store").iterdir()} == before
    with FileStore(folder / "store", 10_000) as files:
        assert content(files) == {key(0): bytes(5000)}


def test_bad_arguments_change_nothing(folder: Path) -> None:
    with FileStore(folder / "store", 10_000) as files:
        for one, record in ((b"short", b"x"), (bytes(17), b"x"), (key(1), b"")):
            with pytest.raises(ValueError, match="bytes"):
                files.store_many({key(0): b"good", one: record})
        for call in (files.load, files.delete):
            with pytest.raises(ValueError, match="16"):
                call(b"short")
        assert files.keys() == []
        files.store(key(0), np.arange(100, dtype=np.uint8)[::2])
        files.store(key(1), memoryview(b"abc"))
        assert files.load(key(0)) == bytes(range(0, 100, 2))
        assert files.load(key(1)) == b"abc"


def test_one_at_a_time_has_it_open(folder: Path) -> None:
    with FileStore(folder / "store", 10_000) as files:
        files.store(key(0), b"mine")
        with pytest.raises(StoreLocked, match="another process"):
            FileStore(folder / "store", 10_000)
        child = os.fork()
        if not child:  # another process: neither opens it, nor uses or unlocks its parent's
            codes = 0
            for bit, call in enumerate(
                (
                    lambda: FileStore(folder / "store", 10_000),
                    lambda: files.store(key(0), b"his"),
                    lambda: files.load(key(0)),
                )
            ):
                try:
                    call()
                except StoreError:
                    codes |= 1 << bit
            files.close()
            os._exit(codes)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0b111
        with pytest.raises(StoreLocked):
            FileStore(folder / "store", 10_000)
        files.store(key(1), b"still mine")
    with FileStore(folder / "store", 10_000) as files:
        assert content(files) == {key(0): b"mine", key(1): b"still mine"}


def test_after_close_nothing_goes(folder: Path) -> None:
    files = FileStore(folder / "store", 10_000)
    files.close()
    files.close()
    for call in (files.keys, files.stats, files.compact):
        with pytest.raises(StoreError, match="closed"):
            call()
    with pytest.raises(StoreError, match="closed"):
        files.store(key(0), b"x")


def test_files_of_others_are_left_alone(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StoreFormatError, match=r"notes\.txt"):
        FileStore(folder, 10_000)
    with pytest.raises(StoreError, match="open"):
        FileStore(folder / "notes.txt", 10_000)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_several_threads_may_use_it(folder: Path) -> None:
    with FileStore(folder / "store", 1 << 20) as files:

        def work(thread: int) -> None:
            for number in range(40):
                one = key(thread * 100 + number % 10)
                files.store(one, bytes([thread]) * (number + 1))
                assert files.load(one) == bytes([thread]) * (number + 1)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        expected = {
            key(thread * 100 + number % 10): bytes([thread]) * (number + 1)
            for thread in range(4)
            for number in range(30, 40)
        }
        assert content(files) == expected
