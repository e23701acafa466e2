"""The overlay as a SpecKV device: tables of descriptors split over its compute units."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.closing import Closing
from speckv_pynq.device.protocol import (
    DEFAULT_TIMEOUT_S,
    Bytes,
    Completions,
    Descriptors,
    DeviceBuffer,
    check_bank,
)
from speckv_pynq.errors import ConfigError, DeviceBufferError, DeviceError

if TYPE_CHECKING:
    from speckv_pynq.device.pynq_calls import KernelRun
    from speckv_pynq.device.pynq_overlay import SpeckvKernel, SpeckvOverlay


class PynqDeviceBuffer:
    """Memory from pynq.allocate. Syncs are real: unsynced bytes are not seen by the other side.

    XRT on a board syncs whole buffers, whatever range it is asked for (pynq 4.0.0,
    XrtDevice.flush). So sync what a run needs before its start, and what it wrote before the host
    writes again.
    """

    def __init__(
        self, device: PynqDevice, nbytes: int, *, zeroed: bool, bank: str | None = None
    ) -> None:
        self._buffer: Any = None
        self._device = device
        self._nbytes = int(nbytes)
        if nbytes < 1:
            raise DeviceBufferError(f"pynq: a buffer of {nbytes} bytes; at least 1 is needed")
        self._buffer = device.allocate_pynq(self._nbytes, np.uint8, bank)
        if zeroed:
            self._buffer[:] = 0
            self._buffer.sync_to_device()

    @property
    def nbytes(self) -> int:
        return self._nbytes

    @property
    def array(self) -> Bytes:
        view: Bytes = self.pynq.view(np.ndarray)
        return view

    @property
    def pynq(self) -> Any:
        """The PynqBuffer below; DeviceBufferError once freed."""
        if self._buffer is None:
            raise DeviceBufferError(f"pynq: buffer of {self._nbytes} bytes used after free()")
        return self._buffer

    def sync_to_device(self, offset: int = 0, nbytes: int | None = None) -> None:
        self._slice(offset, nbytes).sync_to_device()

    def sync_from_device(self, offset: int = 0, nbytes: int | None = None) -> None:
        self._slice(offset, nbytes).sync_from_device()

    def belongs_to(self, device: PynqDevice) -> bool:
        return self._device is device

    def free(self) -> None:
        """Lets go of the memory; pynq gives it back once no run and no view holds it."""
        self._buffer = None

    def __enter__(self) -> PynqDeviceBuffer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.free()

    def _slice(self, offset: int, nbytes: int | None) -> Any:
        buffer = self.pynq
        nbytes = self._nbytes - offset if nbytes is None else nbytes
        if offset < 0 or nbytes < 0 or offset + nbytes > self._nbytes:
            raise DeviceBufferError(
                f"pynq: sync of bytes {offset}..{offset + nbytes} leaves the buffer of "
                f"{self._nbytes} bytes"
            )
        return buffer[offset : offset + nbytes]


class PynqRun:
    """A table under way on one or several compute units."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[KernelRun] = []

    def add(self, part: KernelRun) -> None:
        self._parts.append(part)

    def done(self) -> bool:
        return all(part.done() for part in self._parts)

    def wait(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Completions:
        deadline = time.monotonic() + timeout_s
        parts = [part.wait(max(0.0, deadline - time.monotonic())) for part in self._parts]
        out = np.zeros(self._count * spec.COMPLETION.itemsize, np.uint8)
        if parts:
            out[:] = np.concatenate([part.view(np.uint8) for part in parts])
        return out.view(spec.COMPLETION)


class _Engine:
    """A compute unit with memory for one table; the next waits until this one's answer is read."""

    def __init__(self, device: PynqDevice, unit: SpeckvKernel) -> None:
        self._device, self._unit = device, unit
        self._lock = threading.Lock()
        self._tables: Any = None
        self._completions: Any = None
        self._run: KernelRun | None = None

    def start(
        self, source: Any, target: Any, codebooks: Any, descriptors: Descriptors
    ) -> KernelRun:
        """codebooks: a PynqBuffer with a codebook image, or None."""
        count = len(descriptors)
        with self._lock:
            self.finish(DEFAULT_TIMEOUT_S)
            if self._tables is None or self._tables.nbytes < descriptors.nbytes:
                rows = 1 << (count - 1).bit_length()  # by powers of two, so that growth is rare
                self._tables = self._device.allocate_pynq(rows * spec.DESCRIPTOR.itemsize, np.uint8)
                self._completions = self._device.allocate_pynq(
                    rows * spec.COMPLETION.itemsize, np.uint8
                )
            self._tables[: descriptors.nbytes] = descriptors.view(np.uint8)
            self._tables[: descriptors.nbytes].sync_to_device()
            self._run = self._unit.start(
                source,
                target,
                self._tables,
                self._completions,
                codebooks=codebooks,
                count=count,
                abi_id=self._device.abi_id,
            )
            return self._run

    def finish(self, timeout_s: float) -> None:
        """Waits for the last run, whose result or error its own wait() gives again."""
        run = self._run
        if run is not None:
            try:
                run.wait(timeout_s)
            except Exception:
                if not run.done():
                    raise
            self._run = None

    def close(self, timeout_s: float) -> None:
        with self._lock:
            self.finish(timeout_s)
            self._tables = self._completions = None


class PynqDevice(Closing):
    """A loaded overlay, on a board or on csim, as speckv_pynq.device.protocol.Device."""

    name = "pynq"

    def __init__(self, overlay: SpeckvOverlay, num_engines: int | None = None) -> None:
        self.overlay = overlay
        self.abi_id = int(overlay.manifest["abi_id"], 0)
        compress, decompress = overlay.compress_units, overlay.decompress_units
        found = min(len(compress), len(decompress))
        self.num_engines = found if num_engines is None else num_engines
        if not 1 <= self.num_engines <= found:
            raise ConfigError(
                f"num_engines {num_engines}: the overlay has {found} compute units of each kernel"
            )
        self._compress = [_Engine(self, unit) for unit in compress[: self.num_engines]]
        self._decompress = [_Engine(self, unit) for unit in decompress[: self.num_engines]]
        self._buffers: weakref.WeakSet[PynqDeviceBuffer] = weakref.WeakSet()
        self._closed = False

    @classmethod
    def open(cls, num_engines: int | None = None) -> PynqDevice:
        """Loads the overlay made for the active device."""
        from speckv_pynq.device.pynq_overlay import SpeckvOverlay

        return cls(SpeckvOverlay(), num_engines)

    @property
    def banks(self) -> tuple[str, ...]:
        """Memories that the overlay's description names."""
        return tuple(self.overlay.mem_dict)

    def allocate(
        self, nbytes: int, *, reserve: bool = False, bank: str | None = None
    ) -> DeviceBuffer:
        """A buffer of the overlay's memory. A board reserves nothing: there it is taken at once."""
        self._check_open()
        check_bank(self, bank)
        buffer = PynqDeviceBuffer(self, nbytes, zeroed=not reserve, bank=bank)
        self._buffers.add(buffer)
        return buffer

    def allocate_pynq(self, shape: int, dtype: Any, bank: str | None = None) -> Any:
        """pynq.allocate on this overlay's device, with an error that says what to do."""
        nbytes = shape * np.dtype(dtype).itemsize
        device = self.overlay.device
        try:
            if bank is None:
                return device.allocate(shape, dtype)
            return device.get_memory(self.overlay.mem_dict[bank]).allocate(shape, dtype)
        except (RuntimeError, MemoryError, OSError) as error:
            raise DeviceBufferError(
                f"{type(self.overlay.device).__name__}: no {nbytes} bytes of contiguous memory "
                f" ({error}); lower the tiers' budgets, or enlarge the CMA area"
            ) from error

    def start_compress(
        self,
        blocks: DeviceBuffer,
        records: DeviceBuffer,
        descriptors: Descriptors,
        codebooks: DeviceBuffer | None = None,
    ) -> PynqRun:
        return self._start(self._compress, blocks, records, codebooks, descriptors)

    def start_decompress(
        self,
        records: DeviceBuffer,
        blocks: DeviceBuffer,
        descriptors: Descriptors,
        codebooks: DeviceBuffer | None = None,
    ) -> PynqRun:
        return self._start(self._decompress, records, blocks, codebooks, descriptors)

    def close(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Lets started runs finish and frees every buffer; the overlay stays loaded."""
        self._closed = True
        for engine in self._compress + self._decompress:
            engine.close(timeout_s)
        for buffer in list(self._buffers):
            buffer.free()

    def _start(
        self,
        engines: list[_Engine],
        source: DeviceBuffer,
        target: DeviceBuffer,
        codebooks: DeviceBuffer | None,
        descriptors: Descriptors,
    ) -> PynqRun:
        self._check_open()
        if descriptors.dtype != spec.DESCRIPTOR or descriptors.ndim != 1:
            raise DeviceError(
                f"descriptors: {descriptors.ndim}-D {descriptors.dtype}, not 1-D spec.DESCRIPTOR"
            )
        if not descriptors.flags.c_contiguous:
            raise DeviceError(f"descriptors: strides {descriptors.strides}, not C-contiguous")
        tables = None if codebooks is None else self._pynq_buffer(codebooks)
        memories = self._pynq_buffer(source), self._pynq_buffer(target), tables
        count = len(descriptors)
        run = PynqRun(count)
        slices = max(min(len(engines), count), -(-count // spec.MAX_BATCH))
        for i in range(slices):
            rows = descriptors[count * i // slices : count * (i + 1) // slices]
            run.add(engines[i % len(engines)].start(*memories, rows))
        return run

    def _pynq_buffer(self, buffer: DeviceBuffer) -> Any:
        if not isinstance(buffer, PynqDeviceBuffer) or not buffer.belongs_to(self):
            raise DeviceBufferError(f"{buffer!r} is not memory of this pynq device; use allocate()")
        return buffer.pynq

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("pynq device is closed")
