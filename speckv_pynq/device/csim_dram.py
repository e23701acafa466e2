"""The csim board's memory: every buffer twice, host side and device side, at 64-bit addresses."""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass

import numpy as np

from speckv_pynq.device.protocol import Bytes
from speckv_pynq.errors import DeviceBufferError, DeviceError

# The high DDR of a Zynq UltraScale+: where an address is cut to 32 bits, it shows.
FIRST_ADDRESS = 0x8_0000_0000
PAGE_BYTES = 4096
UNWRITTEN = 0xA5  # what the device side holds before the first sync: not what the host reads
UNWRITTEN_BYTES = 1 << 24  # larger buffers start as zeros: a reserved pool costs no memory
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # the module names it from Python 3.13 on


@dataclass(frozen=True)
class Range:
    """Device-side bytes from an address up to the end of its buffer; `owner` keeps them alive."""

    address: int
    nbytes: int
    owner: Bytes


class Dram:
    """Live buffers by device address, with a guard page between any two."""

    def __init__(self) -> None:
        # Reentrant, since a collection may free a buffer while an allocation holds the lock.
        self._lock = threading.RLock()
        self._sides: dict[int, tuple[Bytes, Bytes]] = {}
        self._next = FIRST_ADDRESS

    @property
    def live_buffers(self) -> int:
        return len(self._sides)

    @property
    def live_bytes(self) -> int:
        with self._lock:
            return sum(host.size for host, _ in self._sides.values())

    def allocate(self, nbytes: int) -> tuple[int, Bytes]:
        """(device address, host side) of a new buffer; both sides are page-aligned."""
        if nbytes < 1:
            raise DeviceBufferError(f"csim: a buffer of {nbytes} bytes; at least 1 is needed")
        host, device = _pages(nbytes), _pages(nbytes)
        if nbytes <= UNWRITTEN_BYTES:
            device.fill(UNWRITTEN)
        with self._lock:
            address = self._next
            self._next += (nbytes + 2 * PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
            self._sides[address] = (host, device)
        return address, host

    def release(self, address: int) -> None:
        with self._lock:
            self._sides.pop(address, None)

    def sides(self, address: int) -> tuple[Bytes, Bytes]:
        """(host, device) of the buffer that begins at `address`."""
        with self._lock:
            sides = self._sides.get(address)
        if sides is None:
            raise DeviceBufferError(f"csim: the buffer at {address:#x} is freed")
        return sides

    def resolve(self, address: int, needed_bytes: int, what: str) -> Range:
        """Where `needed_bytes` at `address` are; DeviceError when they are in no live buffer."""
        with self._lock:
            for base, (_, device) in self._sides.items():
                left = base + device.size - address
                if base <= address and left > 0:
                    break
            else:
                raise DeviceError(
                    f"{what}: AXI decode error, {address:#x} is not inside a live buffer"
                )
        if left < needed_bytes:
            raise DeviceError(
                f"{what}: AXI decode error, {needed_bytes} bytes at {address:#x} run past the "
                f"buffer's end, {left} bytes on"
            )
        return Range(device.ctypes.data + address - base, left, device)


def _pages(nbytes: int) -> Bytes:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    try:
        return np.frombuffer(mmap.mmap(-1, nbytes, flags=flags), np.uint8)
    except (OSError, OverflowError, ValueError) as error:
        raise DeviceBufferError(f"csim: the system refused {nbytes} bytes ({error})") from error
