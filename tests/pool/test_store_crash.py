"""Processes and machines that end at any instant: what was reported stored is there, nothing is wrong."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from speckv_pynq.pool import FileStore, store
from tests.pool.disk import SECTOR_BYTES, Disk, PowerLoss
from tests.pool.records import CAPACITY_BYTES, Model, Operation, check_between, content

pytestmark = pytest.mark.requires("libspeckv")

KILL_OPERATIONS = 400


def survive_power_losses(monkeypatch: pytest.MonkeyPatch, seed: int, losses: int) -> None:
    """One store through several power losses and kills, some of them while it is opened again."""
    rng, model = random.Random(seed), Model()
    disk = Disk(sector_bytes=rng.choice(SECTOR_BYTES))
    operation = Operation()
    monkeypatch.setattr(store, "DEAD_ENTRIES", rng.choice([4, 1024]))
    for _ in range(losses):
        disk.steps = rng.choice([rng.randrange(8), rng.randrange(80)])
        monkeypatch.setattr(store, "Directory", disk.directory())
        with contextlib.suppress(PowerLoss):
            files = FileStore("on a disk in memory", CAPACITY_BYTES)
            found = content(files)
            check_between(found, model, operation)
            model = found
            while True:
                operation = Operation()
                operation = Operation.random(rng)
                operation.run(files)
                model = operation.applied(model)
                assert sum(map(len, disk.files().values())) <= CAPACITY_BYTES
        if rng.random() < 0.7:  # else only the process ended, and the system still has its writes
            disk = disk.after_power_loss(rng)
    disk.steps = None
    monkeypatch.setattr(store, "Directory", disk.directory())
    check_between(content(FileStore("on a disk in memory", CAPACITY_BYTES)), model, operation)


def test_a_power_loss_at_any_call_loses_nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(150):
        survive_power_losses(monkeypatch, seed, losses=6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_power_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20_000):
        survive_power_losses(monkeypatch, seed, losses=6)


def work_until_killed(directory: Path, seed: int, report: int) -> None:
    """A child's life: a byte for the opened store and for each operation that returned."""
    files, rng = FileStore(directory, CAPACITY_BYTES), random.Random(seed)
    os.write(report, b"o")
    for _ in range(KILL_OPERATIONS):
        Operation.random(rng).run(files)
        os.write(report, b".")


def kill_one(directory: Path, seed: int, model: Model) -> tuple[Model, bool]:
    """A child killed at a random instant; what the store holds then, and whether it was at work."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            work_until_killed(directory, seed, writer)
        os._exit(0)
    os.close(writer)
    rng = random.Random(seed + 1_000_000_007)
    opened = os.read(reader, 1) if rng.random() < 0.8 else b""
    time.sleep(rng.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reported = opened
    while part := os.read(reader, 4096):
        reported += part
    os.close(reader)
    rng = random.Random(seed)
    for _ in reported[1:]:
        model = Operation.random(rng).applied(model)
    in_flight = Operation.random(rng) if len(reported) <= KILL_OPERATIONS else Operation()
    with FileStore(directory, CAPACITY_BYTES) as files:
        found = content(files)
        assert files.stats().lost == files.stats().damaged == 0
    check_between(found, model, in_flight)
    return found, 1 < len(reported) <= KILL_OPERATIONS


@pytest.mark.parametrize(
    "kills", [25, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_kill_9_at_any_instant_loses_nothing_reported(tmp_path: Path, kills: int) -> None:
    model, at_work = Model(), 0
    for seed in range(kills):
        model, worked = kill_one(tmp_path / "store", seed, model)
        at_work += worked
    assert at_work > kills // 4  # else the instants were not random enough to show anything
