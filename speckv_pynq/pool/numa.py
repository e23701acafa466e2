"""Memory of one NUMA node: how Linux shows CXL memory that it runs as system RAM.

The system calls are made directly: libnuma is not everywhere, and a call has no state to share.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from speckv_pynq.device.protocol import Bytes
from speckv_pynq.errors import ConfigError, PoolError
from speckv_pynq.pool.mapped import MappedPool, whole_pages
from speckv_pynq.pool.memory import anonymous

MPOL_BIND: Final = 2  # of Linux's mempolicy.h
MPOL_F_ADDR: Final = 2
_CALLS: Final = {  # machine: mbind, get_mempolicy, move_pages
    "x86_64": (237, 239, 279),
    "aarch64": (235, 236, 239),
    "armv7l": (319, 320, 344),
}
_MASK_WORDS: Final = 16  # of 64 bits: CONFIG_NODES_SHIFT is 10 at most
_SYS = Path("/sys")


@dataclass(frozen=True)
class Node:
    """A node with memory. Without CPUs it is memory alone: a CXL expander, HBM or the like."""

    number: int
    total_bytes: int
    free_bytes: int
    cpus: str  # as "0-3,8", empty: none


def nodes(sys: Path = _SYS) -> list[Node]:
    """The nodes that have memory, by number; empty where the kernel does not tell."""
    found = []
    for folder in (sys / "devices/system/node").glob("node[0-9]*"):
        try:
            rows = [line.split() for line in (folder / "meminfo").read_text().splitlines()]
            sizes = {row[2].rstrip(":"): int(row[3]) * 1024 for row in rows if len(row) > 3}
            cpus = (folder / "cpulist").read_text().strip()
            node = Node(int(folder.name[4:]), sizes["MemTotal"], sizes["MemFree"], cpus)
        except (OSError, ValueError, KeyError):
            continue
        if node.total_bytes:
            found.append(node)
    return sorted(found, key=lambda node: node.number)


def open_numa(number: int, nbytes: int) -> MappedPool:
    """Pages of this node and of no other, taken as they are touched.

    ConfigError for a node that is not there; PoolError where the kernel refuses the binding, or the
    node could never hold so much: the kernel would end the process, not this pool's allocation.
    """
    name, known = f"numa:{number}", {node.number: node for node in nodes()}
    if number not in known:
        there = ", ".join(map(str, known)) or "none"
        raise ConfigError(f"pool {name}: nodes with memory here: {there}")
    size = whole_pages(name, nbytes, mmap.PAGESIZE)
    if size > known[number].total_bytes:
        raise PoolError(
            f"pool {name}: {size} bytes > {known[number].total_bytes}, all of the node's memory"
        )
    pages = anonymous(name, size)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    pool = MappedPool("numa", str(number), pages, size, mmap.PAGESIZE, gives_back=True)
    try:
        _bind(pool.array, number)
    except OSError as error:
        pool.close()
        raise PoolError(f"pool {name}: mbind refused ({os.strerror(error.errno or 0)})") from error
    return pool


def placement(array: Bytes) -> dict[int, int]:
    """Pages of an array on each node; pages that were never touched are on none and not counted.

    PoolError where the kernel does not tell.
    """
    first = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    end = array.ctypes.data + array.nbytes
    addresses = np.arange(first, end, mmap.PAGESIZE, dtype=np.uint64)
    status = np.empty(len(addresses), np.int32)
    try:
        _call(2, 0, len(addresses), addresses.ctypes.data, 0, status.ctypes.data, 0)
    except OSError as error:
        raise PoolError(f"move_pages refused ({error})") from error
    return dict(Counter(status[status >= 0].tolist()))


def _bind(array: Bytes, number: int) -> None:
    """Binds, and asks the kernel whether it did; OSError when not."""
    mask = _mask(number)
    _call(0, array.ctypes.data, array.nbytes, MPOL_BIND, mask.ctypes.data, mask.size * 64 + 1, 0)
    found, mode = np.zeros_like(mask), ctypes.c_int()
    _call(
        1, ctypes.addressof(mode), found.ctypes.data, found.size * 64 + 1,
        array.ctypes.data, MPOL_F_ADDR,
    )  # fmt: skip
    if mode.value != MPOL_BIND or not np.array_equal(found, mask):
        raise OSError(errno.EIO, f"policy is {mode.value}, nodes {found.tolist()}")


def _mask(number: int) -> np.ndarray:
    if number >= _MASK_WORDS * 64:
        raise OSError(errno.EINVAL, f"node {number}")
    mask = np.zeros(_MASK_WORDS, np.uint64)
    mask[number // 64] = np.uint64(1 << number % 64)
    return mask


def _call(which: int, *arguments: int) -> int:
    """A system call by its place in _CALLS; OSError when it fails."""
    numbers = _CALLS.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, f"no NUMA calls known for {platform.machine()}")
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    result = int(syscall(ctypes.c_long(numbers[which]), *map(ctypes.c_ulong, arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
