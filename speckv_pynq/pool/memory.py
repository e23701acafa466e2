"""Anonymous host memory: small pages, transparent huge pages, or explicit huge pages."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Final

from speckv_pynq.errors import PoolError
from speckv_pynq.pool.mapped import MappedPool, whole_pages

# Of Linux's mman.h; the module names them only from Python 3.13 on, or not at all.
MAP_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0x4000)
MAP_HUGETLB: Final = 0x40000


def anonymous(name: str, nbytes: int, flags: int = MAP_NORESERVE) -> mmap.mmap:
    """A private anonymous mapping; PoolError when the system refuses."""
    try:
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags)
    except (OSError, OverflowError, ValueError) as error:
        raise PoolError(f"pool {name}: the system refused {nbytes} bytes ({error})") from error


def open_small(nbytes: int) -> MappedPool:
    """Pages of the usual size, taken as they are touched and given back one by one."""
    size = whole_pages("memory", nbytes, mmap.PAGESIZE)
    pages = anonymous("memory", size)
    pages.madvise(mmap.MADV_NOHUGEPAGE)  # or one touched line would cost a huge page
    return MappedPool("memory", "", pages, size, mmap.PAGESIZE, gives_back=True)


def open_transparent(nbytes: int) -> MappedPool:
    """Huge pages where the kernel finds them, small ones where not.

    A touched line may cost a huge page, and one that was given back in part stays whole until the
    kernel splits it: so nothing is given back before close().
    """
    huge_bytes = transparent_bytes()
    if huge_bytes is None:
        raise PoolError("pool memory:thp: this kernel has no transparent huge pages, or 'never'")
    size = whole_pages("memory:thp", nbytes, mmap.PAGESIZE)
    pages = anonymous("memory:thp", size + huge_bytes)
    start = -_address(pages) % huge_bytes  # huge pages lie at multiples of their size
    pages.madvise(mmap.MADV_HUGEPAGE)
    return MappedPool(
        "memory", "thp", pages, size, mmap.PAGESIZE, gives_back=False, start=start
    )  # fmt: skip


def open_huge(nbytes: int) -> MappedPool:
    """Explicit huge pages, all taken now from those that the administrator set aside."""
    page_bytes = huge_page_bytes()
    if page_bytes is None:
        raise PoolError("pool memory:huge: this kernel has no huge pages")
    size = whole_pages("memory:huge", nbytes, page_bytes)
    free = free_huge_pages(page_bytes)
    if free * page_bytes < size:
        raise PoolError(
            f"pool memory:huge: {size // page_bytes} huge pages of {page_bytes} bytes asked, "
            f"{free} free: sysctl vm.nr_hugepages={size // page_bytes}"
        )
    pages = anonymous("memory:huge", size, MAP_HUGETLB)
    return MappedPool("memory", "huge", pages, size, page_bytes, gives_back=False)


def transparent_bytes(sys: Path = Path("/sys")) -> int | None:
    """Bytes of a transparent huge page; None where there are none on request."""
    folder = sys / "kernel/mm/transparent_hugepage"
    try:
        if "[never]" in (folder / "enabled").read_text():
            return None
        return int((folder / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return None


def huge_page_bytes(proc: Path = Path("/proc")) -> int | None:
    """Bytes of the usual explicit huge page; None where there are none."""
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("Hugepagesize:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def free_huge_pages(page_bytes: int, sys: Path = Path("/sys")) -> int:
    """Explicit huge pages that nobody has taken or been promised."""
    folder = sys / f"kernel/mm/hugepages/hugepages-{page_bytes // 1024}kB"
    try:
        names = ("free_hugepages", "resv_hugepages")
        free, promised = (int((folder / name).read_text()) for name in names)
    except (OSError, ValueError):
        return 0
    return free - promised


def _address(pages: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))
