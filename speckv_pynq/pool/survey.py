"""Which pools this machine has, each with why not where it cannot be used."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from speckv_pynq.device.protocol import Device
from speckv_pynq.pool import dax, memory, numa

_SYS, _PROC = Path("/sys"), Path("/proc")
# In RAM or without local blocks: not what a spill or a store is for.
_UNSUITED = {
    "tmpfs": "lives in RAM",
    "ramfs": "lives in RAM",
    "nfs": "a network file system: locks and syncs may not hold",
    "nfs4": "a network file system: locks and syncs may not hold",
    "cifs": "a network file system: locks and syncs may not hold",
    "9p": "a network file system: locks and syncs may not hold",
}


@dataclass(frozen=True)
class FoundPool:
    """A pool by the name that opens it; detail says how much there is, or why it is not usable."""

    name: str
    usable: bool
    nbytes: int  # free now, 0 where not known
    detail: str


def survey(sys: Path = _SYS, proc: Path = _PROC) -> list[FoundPool]:
    """All of this machine but the devices' own; opens nothing and never raises for what is missing."""
    found = [_small(proc), _transparent(sys), _huge(sys, proc), *_nodes(sys), *_dax(sys)]
    return found + [_directory(path, proc) for path in _directories()]


def banks(device: Device) -> list[FoundPool]:
    """The memories of an open device."""
    found = [
        FoundPool(f"fpga:{bank}", True, 0, f"of device {device.name}") for bank in device.banks
    ]
    return found or [FoundPool("fpga", False, 0, f"device {device.name} names no banks")]


def _small(proc: Path) -> FoundPool:
    try:
        rows = (proc / "meminfo").read_text().splitlines()
        free = next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return FoundPool("memory", True, 0, "available bytes not known")
    return FoundPool("memory", True, free, f"{_gb(free)} available")


def _transparent(sys: Path) -> FoundPool:
    size = memory.transparent_bytes(sys)
    if size is None:
        return FoundPool("memory:thp", False, 0, "the kernel has none, or says 'never'")
    return FoundPool(
        "memory:thp", True, 0, f"pages of {size >> 10} KiB where the kernel finds them"
    )


def _huge(sys: Path, proc: Path) -> FoundPool:
    size = memory.huge_page_bytes(proc)
    if size is None:
        return FoundPool("memory:huge", False, 0, "this kernel has no huge pages")
    pages = memory.free_huge_pages(size, sys)
    detail = f"{pages} pages of {size >> 10} KiB free"
    if not pages:
        detail += "; set some aside: sysctl vm.nr_hugepages=N"
    return FoundPool("memory:huge", pages > 0, pages * size, detail)


def _nodes(sys: Path) -> list[FoundPool]:
    found = []
    for node in numa.nodes(sys):
        cpus = f"CPUs {node.cpus}" if node.cpus else "no CPUs: CXL memory, or another kind apart"
        detail = f"{_gb(node.free_bytes)} of {_gb(node.total_bytes)} free, {cpus}"
        found.append(FoundPool(f"numa:{node.number}", True, node.free_bytes, detail))
    return found or [FoundPool("numa", False, 0, "this kernel lists no nodes")]


def _dax(sys: Path) -> list[FoundPool]:
    found = []
    for one in dax.devices(sys):
        detail = one.problem or (
            f"{_gb(one.size_bytes)} in pages of {one.align_bytes >> 10} KiB, node {one.node}"
        )
        size = 0 if one.problem else one.size_bytes
        found.append(FoundPool(f"dax:{one.path}", not one.problem, size, detail))
    return found or [FoundPool("dax", False, 0, "no DAX device")]


def _directories() -> list[Path]:
    """Where a file pool would usually go, each file system once."""
    paths = [Path.cwd(), Path.home() / ".cache", Path(tempfile.gettempdir())]
    seen: dict[int, Path] = {}
    for path in paths:
        if path.is_dir():
            seen.setdefault(path.stat().st_dev, path)
    return list(seen.values())


def _directory(path: Path, proc: Path) -> FoundPool:
    name, kind = f"file:{path}", _file_system(path, proc)
    try:
        stats = os.statvfs(path)
    except OSError as error:
        return FoundPool(name, False, 0, str(error))
    free = stats.f_bavail * stats.f_frsize
    detail = f"{kind}, {_gb(free)} free"
    if not os.access(path, os.W_OK | os.X_OK):
        return FoundPool(name, False, free, f"{detail}; no permission to write")
    why = _UNSUITED.get(kind)
    return FoundPool(name, why is None, free, detail + (f"; {why}" if why else ""))


def _file_system(path: Path, proc: Path) -> str:
    """Type of the file system that a path is on."""
    best, kind = -1, "unknown file system"
    try:
        rows = [row.split() for row in (proc / "self/mounts").read_text().splitlines()]
    except OSError:
        return kind
    for row in rows:
        mount = Path(row[1].replace("\\040", " "))
        if len(row) > 2 and path.resolve().is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), row[2]
    return kind


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
