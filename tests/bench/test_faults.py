"""A hundred thousand faults without a wrong byte, a leak or a hang; and what the count itself would notice."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq.bench import fault_library, fault_system, faults
from speckv_pynq.errors import CheckFailed

pytestmark = pytest.mark.requires("libspeckv")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_no_fault_gives_a_wrong_byte_a_leak_or_a_hang(count: int) -> None:
    tally = faults.run(count)
    assert sum(tally.injected.values()) >= count
    assert min(tally.injected.values()) >= count // 200
    assert (tally.wrong, tally.leaks, tally.hangs) == ([], 0, 0)


def test_wrong_bytes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = fault_library.decoded
    monkeypatch.setattr(fault_library, "decoded", lambda p, scheme: original(p + 1, scheme))
    monkeypatch.setattr(fault_library, "written", lambda p: np.zeros(1))
    with pytest.raises(CheckFailed, match="wrong bytes"):
        fault_library.LibraryTarget()


def test_a_fault_that_passes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that does not fail when told to stands for a kernel that does not look."""
    monkeypatch.setattr(fault_system.FaultyDevice, "strikes", lambda self, where: False)
    tally = faults.run(2000)
    assert not tally.sound
    assert "not refused" in tally.wrong[0]


def test_leaks_are_found() -> None:
    for target in (fault_library.LibraryTarget(), fault_system.SystemTarget()):
        assert target.leaks() == 0
        if isinstance(target, fault_library.LibraryTarget):
            target._system.fork(0, 9)
        else:
            target._system.fork(1, 9)
        assert target.leaks() > 0
        assert target.close() > 0
