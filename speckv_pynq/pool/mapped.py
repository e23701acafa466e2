"""Pool memory that is a mapping of this process: anonymous, of a NUMA node, a DAX device, a file."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from speckv_pynq.closing import Closing
from speckv_pynq.device.protocol import Bytes, Device, DeviceBuffer, HostMemoryDevice
from speckv_pynq.errors import ConfigError, PoolError


class MappedPool(Closing):
    """A PoolMemory over `nbytes` of a mapping, from byte `start` of it on.

    The mapping itself ends with the last NumPy view of it: a view kept too long does not crash. It
    reads zeros where the memory was anonymous.
    """

    def __init__(
        self,
        kind: str,
        place: str,
        pages: mmap.mmap,
        nbytes: int,
        page_bytes: int,
        *,
        gives_back: bool,
        anonymous: bool = True,
        start: int = 0,
    ) -> None:
        self.kind, self.place = kind, place
        self.nbytes, self.page_bytes, self.gives_back = nbytes, page_bytes, gives_back
        self._pages, self._start, self._anonymous = pages, start, anonymous
        self._array: Bytes | None = np.frombuffer(pages, np.uint8)[start : start + nbytes]

    @property
    def array(self) -> Bytes:
        if self._array is None:
            raise PoolError(f"pool {self.kind} of {self.nbytes} bytes used after close()")
        return self._array

    def release(self, offset: int, nbytes: int) -> int:
        first, size = inner_pages(offset, nbytes, self.array.nbytes, self.page_bytes)
        if not self.gives_back or not size:
            return 0
        self._pages.madvise(mmap.MADV_DONTNEED, self._start + first, size)
        return size

    def attach(self, device: Device) -> DeviceBuffer:
        if not isinstance(device, HostMemoryDevice):
            raise ConfigError(
                f"pool {self.describe()}: kernels of device {device.name} do not reach host "
                "memory; use the pools device or fpga:BANK"
            )
        return device.adopt(self.array, self.close)

    def describe(self) -> str:
        name = f"{self.kind}:{self.place}" if self.place else self.kind
        return f"{name}, {self.nbytes} bytes in pages of {self.page_bytes}"

    def close(self) -> None:
        if self._array is None:
            return
        self._array = None
        if self._anonymous:
            with contextlib.suppress(OSError):  # huge pages before Linux 5.18: they go with the map
                self._pages.madvise(mmap.MADV_DONTNEED)
        with contextlib.suppress(BufferError):  # a view is held: the mapping ends with it
            self._pages.close()

    def __repr__(self) -> str:
        return f"<MappedPool {self.describe()}{'' if self._array is not None else ', closed'}>"


def inner_pages(offset: int, nbytes: int, pool_bytes: int, page_bytes: int) -> tuple[int, int]:
    """First byte and number of bytes of the whole pages in a range; PoolError outside the pool."""
    if offset < 0 or nbytes < 0 or offset + nbytes > pool_bytes:
        raise PoolError(
            f"release of bytes {offset}..{offset + nbytes} leaves the pool of {pool_bytes} bytes"
        )
    first = -(-offset // page_bytes) * page_bytes
    return first, max(0, (offset + nbytes) // page_bytes * page_bytes - first)


def whole_pages(name: str, nbytes: int, page_bytes: int) -> int:
    """The largest number of whole pages within a budget; ConfigError when that is none."""
    if nbytes < page_bytes:
        raise ConfigError(f"pool {name}: {nbytes} bytes < {page_bytes}, one page of it")
    return nbytes // page_bytes * page_bytes
