"""Pool memory of a device: a named bank, or the one it usually takes."""

from __future__ import annotations

import ctypes
import mmap
import os

from speckv_pynq.closing import Closing
from speckv_pynq.device.protocol import Bytes, Device, DeviceBuffer
from speckv_pynq.errors import ConfigError, PoolError
from speckv_pynq.pool.mapped import inner_pages, whole_pages


class DevicePool(Closing):
    """A PoolMemory over a buffer of `device`."""

    def __init__(self, device: Device, nbytes: int, bank: str | None = None) -> None:
        """ConfigError for a bank that the device has not, DeviceBufferError when it has no room."""
        self.kind, self.place = ("device" if bank is None else "fpga"), bank or ""
        self.page_bytes = mmap.PAGESIZE
        self.nbytes = whole_pages(self.kind, nbytes, self.page_bytes)
        self._device = device
        self._buffer: DeviceBuffer | None = device.allocate(self.nbytes, reserve=True, bank=bank)
        # Only csim's memory is pages of this process that can be given back one by one.
        self.gives_back = device.name == "csim"

    @property
    def array(self) -> Bytes:
        return self._open().array

    def release(self, offset: int, nbytes: int) -> int:
        first, size = inner_pages(offset, nbytes, self._open().nbytes, self.page_bytes)
        if not self.gives_back or not size:
            return 0
        at = ctypes.c_void_p(self.array.ctypes.data + first)
        if ctypes.CDLL(None, use_errno=True).madvise(at, ctypes.c_size_t(size), mmap.MADV_DONTNEED):
            raise PoolError(f"madvise refused ({os.strerror(ctypes.get_errno())})")
        return size

    def attach(self, device: Device) -> DeviceBuffer:
        if device is not self._device:
            raise ConfigError(f"pool {self.describe()}: memory of another device")
        return self._open()

    def describe(self) -> str:
        name = f"{self.kind}:{self.place}" if self.place else self.kind
        return f"{name}, {self.nbytes} bytes of device {self._device.name}"

    def close(self) -> None:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            buffer.free()

    def _open(self) -> DeviceBuffer:
        if self._buffer is None:
            raise PoolError(f"pool {self.kind} of {self.nbytes} bytes used after close()")
        return self._buffer
