"""Memory of the csim device: anonymous pages, counted, and never unmapped under a view or a run."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np

from speckv_pynq.device.protocol import Bytes
from speckv_pynq.errors import DeviceBufferError, DeviceError

_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # the module names it from Python 3.13 on


class Pages(Protocol):
    """Memory with a count of users: the buffer, and each run in flight over it."""

    array: Bytes
    address: int
    nbytes: int
    users: int

    def discard(self) -> None:
        """The last user has gone."""
        ...


class AdoptedMemory:
    """Host memory that somebody else maps and is told when to let go of."""

    def __init__(self, array: Bytes, discard: Callable[[], None]) -> None:
        if array.dtype != np.uint8 or array.ndim != 1 or not array.flags.c_contiguous:
            raise DeviceBufferError(
                f"csim: memory is {array.ndim}-D {array.dtype}, not (n,) uint8 in a row"
            )
        self.array, self.address, self.nbytes = array, array.ctypes.data, array.nbytes
        if self.address % mmap.PAGESIZE or not self.nbytes:
            raise DeviceBufferError(
                f"csim: memory of {self.nbytes} bytes at {self.address:#x} does not begin a page"
            )
        self.users = 0
        self._discard = discard

    def discard(self) -> None:
        self._discard()


class Memory:
    """Anonymous pages.

    The mapping itself ends with the last NumPy view of it, so that a view kept too long reads zeros
    and does not crash.
    """

    def __init__(self, nbytes: int, reserve: bool) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_MAP_NORESERVE if reserve else 0)
        try:
            self._pages = mmap.mmap(-1, nbytes, flags=flags)
        except (OSError, OverflowError, ValueError) as error:
            raise DeviceBufferError(
                f"csim: the system refused {nbytes} bytes ({error}); ask for less, "
                "or see vm.overcommit_memory"
            ) from error
        if reserve:
            # With huge pages one touched line would cost 2 MiB, and the pool more than its frames.
            self._pages.madvise(mmap.MADV_NOHUGEPAGE)
        self.array: Bytes = np.frombuffer(self._pages, np.uint8)
        self.address = self.array.ctypes.data
        self.nbytes = nbytes
        self.users = 0

    def discard(self) -> None:
        """Gives the pages back now, even where a view is still held."""
        self._pages.madvise(mmap.MADV_DONTNEED)


class Ledger:
    """What a device has handed out. `lock` guards runs too; reentrant: collecting may free."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.buffers = 0
        self.bytes = 0

    def check_process(self) -> None:
        """DeviceError in a forked child: engines and locks did not come along."""
        if os.getpid() != self.pid:
            raise DeviceError(
                f"csim device of process {self.pid} used in process {os.getpid()}: its engines do "
                "not survive a fork; open a device in the child, or start it with the 'spawn' method"
            )

    def pin(self, memory: Pages) -> None:
        """One user more; the caller holds `lock`."""
        if not memory.users:
            self.buffers += 1
            self.bytes += memory.nbytes
        memory.users += 1

    def unpin(self, memory: Pages) -> None:
        """One user less, the last one gives the pages back; the caller holds `lock`."""
        memory.users -= 1
        if not memory.users:
            self.buffers -= 1
            self.bytes -= memory.nbytes
            memory.discard()


class CsimBuffer:
    """Host memory that is the device's memory too: syncs only check their range."""

    def __init__(
        self, ledger: Ledger, nbytes: int, *, reserve: bool, memory: Pages | None = None
    ) -> None:
        self._memory: Pages | None = None
        self.ledger = ledger
        if nbytes < 1:
            raise DeviceBufferError(f"csim: a buffer of {nbytes} bytes; at least 1 is needed")
        self._nbytes = int(nbytes)
        self._reserve = reserve
        memory = memory or Memory(self._nbytes, reserve)
        with ledger.lock:
            ledger.pin(memory)
        self._memory = memory

    @property
    def nbytes(self) -> int:
        return self._nbytes

    @property
    def array(self) -> Bytes:
        return self.memory.array

    @property
    def memory(self) -> Pages:
        """The pages; DeviceBufferError once freed."""
        memory = self._memory
        if memory is None:
            raise DeviceBufferError(f"csim: buffer of {self._nbytes} bytes used after free()")
        return memory

    def sync_to_device(self, offset: int = 0, nbytes: int | None = None) -> None:
        self._check_range(offset, nbytes)

    def sync_from_device(self, offset: int = 0, nbytes: int | None = None) -> None:
        self._check_range(offset, nbytes)

    def free(self) -> None:
        if os.getpid() != self.ledger.pid:
            self._memory = (
                None  # a forked child: the parent counts, and a lock may be held for ever
            )
            return
        with self.ledger.lock:
            memory, self._memory = self._memory, None
            if memory is not None:
                self.ledger.unpin(memory)

    def __enter__(self) -> CsimBuffer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.free()

    def __del__(self) -> None:
        if self._memory is not None:
            self.free()

    def __repr__(self) -> str:
        state = "freed" if self._memory is None else "reserved" if self._reserve else "live"
        return f"<CsimBuffer {self._nbytes} bytes, {state}>"

    def _check_range(self, offset: int, nbytes: int | None) -> None:
        nbytes = self.memory.nbytes - offset if nbytes is None else nbytes
        if offset < 0 or nbytes < 0 or offset + nbytes > self._nbytes:
            raise DeviceBufferError(
                f"csim: sync of bytes {offset}..{offset + nbytes} leaves the buffer of "
                f"{self._nbytes} bytes"
            )
