"""Memory by name: what it holds, gives back, and says when it cannot be had."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import ConfigError, DeviceBufferError, PoolError
from speckv_pynq.pool import PoolMemory, dax, memory, numa, open_pool, spill, survey
from tests.runtime.kernels import Gate, device_with, large_table

pytestmark = pytest.mark.requires("libspeckv")

PAGE = os.sysconf("SC_PAGE_SIZE")
NODES = [node.number for node in numa.nodes()]
SPILL = f"file:{tempfile.gettempdir()}"
NAMES = ["memory", "memory:thp", SPILL, "device", "fpga:host"]
NAMES += [f"numa:{NODES[0]}"] if NODES else []
SIZE = 64 * PAGE


def resident(pool: PoolMemory) -> int:
    """Bytes of a pool that it has taken from the system."""
    try:
        return sum(numa.placement(pool.array).values()) * PAGE
    except PoolError as error:
        pytest.skip(f"the system does not tell: {error}")


def open_or_skip(name: str, nbytes: int, device: CsimDevice | None = None) -> PoolMemory:
    try:
        return open_pool(name, nbytes, device)
    except PoolError as error:
        pytest.skip(f"this machine refuses it: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_holds_what_is_written_until_it_is_closed(name: str) -> None:
    with CsimDevice(1) as device:
        pool = open_or_skip(name, SIZE + PAGE - 1, device)
        assert (pool.nbytes, pool.array.nbytes) == (SIZE, SIZE)
        assert pool.array.ctypes.data % PAGE == 0
        assert name.startswith(pool.kind)
        assert str(SIZE) in pool.describe()
        pattern = np.arange(SIZE, dtype=np.uint64).view(np.uint8)[:SIZE]
        pool.array[:] = pattern
        assert pool.array.tobytes() == pattern.tobytes()
        view = pool.array
        pool.close()
        pool.close()
        assert view[0] in (0, pattern[0])  # a view kept too long does not crash
        with pytest.raises((PoolError, DeviceBufferError), match=r"close\(\)|free\(\)"):
            _ = pool.array
        with pytest.raises((PoolError, DeviceBufferError)):
            pool.release(0, 1)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(at=st.integers(0, 8 * PAGE), size=st.integers(0, 8 * PAGE))
def test_release_gives_back_whole_pages_and_says_how_many(name: str, at: int, size: int) -> None:
    size = min(size, 8 * PAGE - at)
    with CsimDevice(1) as device:
        pool = open_or_skip(name, 8 * PAGE, device)
        pool.array[:] = 7
        before, given_back = resident(pool), pool.release(at, size)
        first, end = -(-at // PAGE) * PAGE, (at + size) // PAGE * PAGE
        assert given_back == (max(0, end - first) if pool.gives_back else 0)
        assert resident(pool) == before - given_back
        expected = np.full(8 * PAGE, 7, np.uint8)
        expected[first : first + given_back] = 0
        assert pool.array.tobytes() == expected.tobytes()
        for bad in ((-1, 1), (0, -1), (0, 8 * PAGE + 1), (8 * PAGE, 1)):
            with pytest.raises(PoolError, match="leaves the pool"):
                pool.release(*bad)
        pool.close()


@pytest.mark.parametrize("name", ["memory", SPILL, "device"])
def test_less_than_a_page_is_refused(name: str) -> None:
    with CsimDevice(1) as device, pytest.raises(ConfigError, match=f"{PAGE - 1} bytes < {PAGE}"):
        open_pool(name, PAGE - 1, device)


def test_untouched_memory_costs_nothing() -> None:
    open_or_skip("memory", 1 << 40).close()  # more than the machine has
    pool = open_pool("memory", 1 << 30)
    pool.array[:: 1 << 28] = 1
    assert resident(pool) == 4 * PAGE
    pool.close()


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="numa:99999: nodes with memory here"):
        open_pool("numa:99999", SIZE)


@pytest.mark.skipif(not NODES, reason="this kernel lists no nodes")
def test_pages_of_a_node_lie_on_it() -> None:
    for number in NODES:
        pool = open_or_skip(f"numa:{number}", SIZE)
        pool.array[:] = 1
        assert numa.placement(pool.array) == {number: SIZE // PAGE}
        pool.close()
    total = numa.nodes()[0].total_bytes
    with pytest.raises(PoolError, match=f"> {total}, all of the node's memory"):
        open_pool(f"numa:{NODES[0]}", total + PAGE)


@pytest.mark.skipif(not NODES, reason="this kernel lists no nodes")
def test_a_binding_that_the_kernel_refuses_or_ignores_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.EPERM, "no")

    for call in (refuse, lambda *_: 0):  # the second answers, but binds nothing
        monkeypatch.setattr(numa, "_call", call)
        with pytest.raises(PoolError, match="mbind refused"):
            open_pool(f"numa:{NODES[0]}", SIZE)


def test_huge_pages_are_there_or_the_error_says_how_to_get_them() -> None:
    size = memory.huge_page_bytes()
    if size is None:
        with pytest.raises(PoolError, match="no huge pages"):
            open_pool("memory:huge", 1 << 30)
        return
    free = memory.free_huge_pages(size)
    with pytest.raises(
        PoolError, match=rf"{free + 1} huge pages of {size} bytes asked, {free} fre"
    ):
        open_pool("memory:huge", (free + 1) * size)
    with pytest.raises(ConfigError, match="one page of it"):
        open_pool("memory:huge", size - 1)
    if free:
        pool = open_pool("memory:huge", size + size // 2)
        pool.array[:] = 1
        assert (pool.nbytes, pool.page_bytes, pool.release(0, size)) == (size, size, 0)
        pool.close()


def machine_with_dax(folder: Path, **attributes: Any) -> tuple[Path, Path]:
    """(sys, dev) of a machine with /dev/dax0.0, a file of two pages of 64 KiB and a bit."""
    sys, dev = folder / "sys", folder / "dev"
    values = {"size": 131072 + 4096, "align": 65536, "target_node": 2, **attributes}
    device = sys / "bus/dax/devices/dax0.0"
    device.mkdir(parents=True)
    dev.mkdir()
    for name, value in values.items():
        (device / name).write_text(f"{value}\n")
    (dev / "dax0.0").write_bytes(bytes(131072 + 4096))
    return sys, dev


def test_a_dax_device_is_mapped_in_its_own_pages_by_one_at_a_time(tmp_path: Path) -> None:
    sys, dev = machine_with_dax(tmp_path)
    path = dev / "dax0.0"
    (found,) = dax.devices(sys, dev)
    assert (found.size_bytes, found.align_bytes, found.node, found.problem) == (
        135168, 65536, 2, "",
    )  # fmt: skip
    with dax.open_dax(path, 100_000, sys) as pool:
        assert (pool.nbytes, pool.page_bytes, pool.gives_back) == (65536, 65536, False)
        pool.array[:] = 5
        assert path.read_bytes() == b"\5" * 65536 + bytes(135168 - 65536)
        with pytest.raises(PoolError, match="another pool has it open"):
            dax.open_dax(path, 100_000, sys)
    with dax.open_dax(path, 131072, sys) as pool:
        assert int(pool.array.sum()) == 5 * 65536
    for nbytes, error, words in (
        (65535, ConfigError, "65535 bytes < 65536"),
        (3 * 65536, PoolError, "196608 bytes > 135168, all of the device"),
    ):
        with pytest.raises(error, match=words):
            dax.open_dax(path, nbytes, sys)
    with pytest.raises(ConfigError, match="no DAX device"):
        dax.open_dax(dev / "dax1.0", 65536, sys)


def test_a_dax_device_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    for number, (attributes, break_it, words) in enumerate(
        (
            ({"align": 0}, lambda dev: None, "not configured"),
            ({}, lambda dev: (dev / "dax0.0").unlink(), "system RAM"),
            ({"size": "?"}, lambda dev: None, "size is not known"),
        )
    ):
        sys, dev = machine_with_dax(tmp_path / str(number), **attributes)
        break_it(dev)
        (found,) = dax.devices(sys, dev)
        assert words in found.problem
        with pytest.raises(PoolError, match=words):
            dax.open_dax(dev / "dax0.0", 65536, sys)


class NoUnnamedFiles:
    """In place of the module os, on a file system like NFS; `fallocate` fails when set."""

    code = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, *_: Any) -> int:
        raise OSError(errno.EOPNOTSUPP, "no")

    def posix_fallocate(self, *arguments: int) -> None:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))
        os.posix_fallocate(*arguments)


def test_a_spill_file_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for system in (os, NoUnnamedFiles()):
        monkeypatch.setattr(spill, "os", system)
        with open_pool(f"file:{tmp_path}", SIZE) as pool:  # type: ignore[attr-defined]
            pool.array[:] = 3
            assert list(tmp_path.iterdir()) == []
    for code, words in ((errno.ENOSPC, f"{SIZE} bytes asked, "), (errno.EIO, "Input/output")):
        monkeypatch.setattr(NoUnnamedFiles, "code", code)
        with pytest.raises(PoolError, match=words):
            open_pool(f"file:{tmp_path}", SIZE)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
    with pytest.raises(ConfigError, match="no such directory"):
        open_pool(f"file:{tmp_path}/missing", SIZE)


@pytest.mark.parametrize("open_it", [memory.open_small, memory.open_transparent])
def test_memory_that_the_system_refuses_is_a_typed_error(
    open_it: Callable[[int], PoolMemory],
) -> None:
    with pytest.raises(PoolError, match=r"refused|no transparent"):
        open_it(1 << 60)


def test_a_pool_goes_when_the_last_run_over_it_has_ended() -> None:
    gate = Gate()
    with device_with(gate) as device:
        pool = open_pool("memory", 1 << 20)
        buffer, target = pool.attach(device), device.allocate(1 << 20)
        run = device.start_decompress(buffer, target, large_table(1))
        buffer.free()
        assert pool.array.nbytes == 1 << 20  # still there
        gate.opened.set()
        run.wait()
        with pytest.raises(PoolError, match="after close"):
            _ = pool.array


def test_kernels_take_no_memory_of_another_device() -> None:
    with CsimDevice(1) as one, CsimDevice(1) as other:
        pool = open_pool("fpga:host", SIZE, one)
        with pytest.raises(ConfigError, match="another device"):
            pool.attach(other)
        with pytest.raises(ConfigError, match="'hbm9': device csim has host"):
            open_pool("fpga:hbm9", SIZE, one)
        with pytest.raises(ConfigError, match="needs the device"):
            open_pool("device", SIZE)
        with pytest.raises(DeviceBufferError, match="begin a page"):
            one.adopt(np.zeros(2 * PAGE, np.uint8)[1:], lambda: None)
        with pytest.raises(DeviceBufferError, match=r"not \(n,\) uint8"):
            one.adopt(np.zeros(PAGE, np.uint16), lambda: None)


def test_a_survey_names_pools_that_open_or_says_why_not() -> None:
    with CsimDevice(1) as device:
        found = survey.survey() + survey.banks(device)
        kinds = {one.name.partition(":")[0] for one in found}
        assert kinds == {"memory", "numa", "dax", "file", "fpga"}
        for one in found:
            assert one.detail
            if one.usable:
                open_pool(one.name, memory.huge_page_bytes() or 1 << 21, device).close()


def test_a_survey_of_another_machine(tmp_path: Path) -> None:
    sys, _ = machine_with_dax(tmp_path)
    for number, cpus, kib in ((0, "0-31", 4096), (1, "", 1048576), (2, "", 0)):
        node = sys / f"devices/system/node/node{number}"
        node.mkdir(parents=True)
        lines = (f"Node {number} {name}: {kib} kB" for name in ("MemTotal", "MemFree"))
        (node / "meminfo").write_text("\n".join(lines))
        (node / "cpulist").write_text(f"{cpus}\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "meminfo").write_text("MemAvailable: 1000 kB\nHugepagesize: 2048 kB\n")
    found = {one.name: one for one in survey.survey(sys=sys, proc=proc)}
    assert found["memory"].nbytes == 1_024_000
    assert not found["memory:thp"].usable
    assert "vm.nr_hugepages" in found["memory:huge"].detail
    assert "CPUs 0-31" in found["numa:0"].detail
    assert "no CPUs" in found["numa:1"].detail
    assert found["numa:1"].nbytes == 1 << 30
    assert "numa:2" not in found  # no memory there
    assert not found["dax:/dev/dax0.0"].usable  # listed, but this machine has no such node
    assert "fpga:host" not in found
