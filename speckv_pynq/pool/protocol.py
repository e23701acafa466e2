"""What memory behind a tier offers, wherever it comes from."""

from __future__ import annotations

from typing import Protocol

from speckv_pynq.device.protocol import Bytes, Device, DeviceBuffer


class PoolMemory(Protocol):
    """A run of memory that holds records; closed by its owner, once."""

    @property
    def kind(self) -> str:
        """As in its name: memory, numa, dax, file, fpga."""
        ...

    @property
    def nbytes(self) -> int:
        """Whole pages; never more than was asked for."""
        ...

    @property
    def page_bytes(self) -> int:
        """The unit in which the system hands this memory out."""
        ...

    @property
    def array(self) -> Bytes:
        """The host's view: (nbytes,) uint8, aligned to a page. PoolError once closed."""
        ...

    @property
    def gives_back(self) -> bool:
        """True when `release` gives pages to the system; else they stay until close()."""
        ...

    def release(self, offset: int, nbytes: int) -> int:
        """Gives whole pages within the range back; how many bytes went (0: this kind keeps them).

        Bytes of pages that went read as zero afterwards; all others are as they were. PoolError
        for a range outside the memory.
        """
        ...

    def attach(self, device: Device) -> DeviceBuffer:
        """The memory as a buffer that the device's kernels reach; freeing it closes the pool.

        ConfigError where the device does not reach such memory.
        """
        ...

    def describe(self) -> str:
        """For people: kind, place, size, pages."""
        ...

    def close(self) -> None:
        """Gives the memory back; harmless when repeated."""
        ...
