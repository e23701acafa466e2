"""A device-DAX character device: CXL or persistent memory that Linux leaves to one program."""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

from speckv_pynq.errors import ConfigError, PoolError
from speckv_pynq.pool.mapped import MappedPool, whole_pages

_SYS, _DEV = Path("/sys"), Path("/dev")


@dataclass(frozen=True)
class DaxDevice:
    """As the kernel lists it; a mapping is a multiple of align_bytes."""

    path: Path
    size_bytes: int
    align_bytes: int
    node: int  # -1: not known
    problem: str  # empty: none


def devices(sys: Path = _SYS, dev: Path = _DEV) -> list[DaxDevice]:
    """All of this machine, by name."""
    found = []
    for folder in sorted((sys / "bus/dax/devices").glob("dax*")):
        path = dev / folder.name
        try:
            size, align = (int((folder / name).read_text()) for name in ("size", "align"))
        except (OSError, ValueError) as error:
            found.append(DaxDevice(path, 0, 0, -1, f"its size is not known ({error})"))
            continue
        try:
            node = int((folder / "target_node").read_text())
        except (OSError, ValueError):
            node = -1
        found.append(DaxDevice(path, size, align, node, _problem(path, size, align)))
    return found


def open_dax(path: Path, nbytes: int, sys: Path = _SYS) -> MappedPool:
    """The device's first nbytes, in whole pages of it, locked against other users of this kind.

    What lies there is not erased. ConfigError for a path that is no DAX device; PoolError when it
    is too small, in use, or cannot be opened.
    """
    name = f"dax:{path}"
    known = {device.path: device for device in devices(sys, path.parent)}
    if path not in known:
        raise ConfigError(f"pool {name}: no DAX device; this machine has {len(known)} there")
    device = known[path]
    if device.problem:
        raise PoolError(f"pool {name}: {device.problem}")
    size = whole_pages(name, nbytes, device.align_bytes)
    if size > device.size_bytes:
        raise PoolError(f"pool {name}: {size} bytes > {device.size_bytes}, all of the device")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise PoolError(f"pool {name}: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pages = mmap.mmap(fd, size, flags=mmap.MAP_SHARED)
    except (OSError, ValueError) as error:
        busy = isinstance(error, BlockingIOError)
        raise PoolError(f"pool {name}: {'another pool has it open' if busy else error}") from error
    finally:
        os.close(fd)  # the mapping keeps file and lock
    return MappedPool(
        "dax", str(path), pages, size, device.align_bytes, gives_back=False, anonymous=False
    )


def _problem(path: Path, size_bytes: int, align_bytes: int) -> str:
    if size_bytes <= 0 or align_bytes <= 0 or align_bytes % mmap.PAGESIZE:
        return f"size {size_bytes}, align {align_bytes}: not configured"
    if not path.exists():
        return "no device node: its memory serves as system RAM (see numa), or udev is missing"
    if not os.access(path, os.R_OK | os.W_OK):
        return "no permission to read and write it"
    return ""
