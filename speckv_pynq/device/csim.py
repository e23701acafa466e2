"""The csim device: kernels compiled natively, run by worker threads over host memory.

Each engine is a thread that takes slices of descriptor tables from one queue; its calls release the
GIL. A small table runs on the caller's own thread.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

from speckv_pynq import spec
from speckv_pynq.closing import Closing
from speckv_pynq.device.csim_memory import AdoptedMemory, CsimBuffer, Ledger, Pages
from speckv_pynq.device.csim_predict import call_predict
from speckv_pynq.device.library import Library, NativeKernel, load
from speckv_pynq.device.protocol import (
    DEFAULT_TIMEOUT_S,
    Bytes,
    Completions,
    Descriptors,
    DeviceBuffer,
    check_bank,
)
from speckv_pynq.errors import (
    AbiMismatch,
    ConfigError,
    DeviceBufferError,
    DeviceError,
    DeviceTimeout,
)

MAX_ENGINES = 256
INLINE_BYTES = (
    131072  # of blocks: up to here waking an engine takes longer than the caller's own thread
)
_SHAPE = struct.Struct("<3H")  # tokens, heads, head_dim
_SHAPE_OFFSET = spec.DESCRIPTOR.fields["tokens"][1]  # type: ignore[index]


class CsimRun:
    """A table under way. It keeps descriptors, completions and the memories it uses until it is done."""

    def __init__(
        self,
        ledger: Ledger,
        kernel: NativeKernel,
        source: Pages,
        target: Pages,
        codebooks: Pages | None,
        descriptors: Descriptors,
    ) -> None:
        self._ledger = ledger
        self._kernel = kernel
        self.memories = (source, target) if codebooks is None else (source, target, codebooks)
        tables = (0, 0) if codebooks is None else (codebooks.address, codebooks.nbytes)
        self._ranges = (source.address, source.nbytes, target.address, target.nbytes, *tables)
        self.count = self._outstanding = len(descriptors)
        table, self._addresses, self._completions = _tables(descriptors)
        self.work_bytes = _work_bytes(table, self.count)
        self._error: BaseException | None = None
        self._gate = threading.Lock()  # held until the last slice is done; cheaper than an Event
        if self._outstanding:
            self._gate.acquire()

    def wait(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Completions:
        if self._outstanding:
            self._await(timeout_s)
        if self._error is not None:
            if isinstance(self._error, AbiMismatch):
                raise AbiMismatch(str(self._error))
            raise DeviceError(f"csim engine failed: {self._error}") from self._error
        return self._completions

    def done(self) -> bool:
        return not self._outstanding

    def _await(self, timeout_s: float) -> None:
        self._ledger.check_process()
        if not 0 <= timeout_s <= threading.TIMEOUT_MAX:
            raise ConfigError(f"timeout_s {timeout_s} is not within 0..{threading.TIMEOUT_MAX:.0f}")
        if not self._gate.acquire(timeout=timeout_s):
            raise DeviceTimeout(
                f"csim: {self._outstanding} of {self.count} descriptors outstanding "
                f"after {timeout_s:g} s; the run goes on: wait again, or use smaller tables"
            )
        self._gate.release()

    def execute(self, first: int, count: int) -> None:
        """Runs descriptors first..first + count - 1 on the calling thread; raises nothing."""
        error: BaseException | None = None
        try:
            descriptors, completions = self._addresses
            status = self._kernel(
                *self._ranges,
                descriptors + first * spec.DESCRIPTOR.itemsize,
                completions + first * spec.COMPLETION.itemsize,
                count,
                spec.ABI_ID,
            )
            if status:
                error = _call_error(status)
        except BaseException as caught:  # reaches the caller through wait()
            error = caught
        with self._ledger.lock:
            self._error = self._error or error
            if self._outstanding == count:
                for memory in self.memories:
                    self._ledger.unpin(memory)
            self._outstanding -= count
            if not self._outstanding:
                self._gate.release()


class CsimDevice(Closing):
    """The native kernels as a device; see speckv_pynq.device.protocol.Device."""

    name = "csim"
    banks = ("host",)

    def __init__(self, num_engines: int | None = None, library: Library | None = None) -> None:
        if num_engines is None:
            num_engines = min(2, len(os.sched_getaffinity(0)))
        if not 1 <= num_engines <= MAX_ENGINES:
            raise ConfigError(f"num_engines {num_engines} is not within 1..{MAX_ENGINES}")
        self._library = library or load()
        self.num_engines = num_engines
        self.abi_id = self._library.abi_id
        self.build_info = self._library.build_info
        self._ledger = Ledger()
        self._buffers: weakref.WeakSet[CsimBuffer] = weakref.WeakSet()
        self._jobs: SimpleQueue[tuple[CsimRun, int, int] | None] = SimpleQueue()
        self._closed = False
        # Daemons, stopped by a finalizer: neither a forgotten device nor the exit hangs.
        self._engines = [
            threading.Thread(
                target=_engine, args=(self._jobs,), name=f"speckv-csim-{i}", daemon=True
            )
            for i in range(num_engines)
        ]
        for engine in self._engines:
            engine.start()
        self._stop = weakref.finalize(self, _stop_engines, self._jobs, self._engines)

    @property
    def live_buffers(self) -> int:
        """Buffers not given back yet; one freed during a run counts until the run ends."""
        return self._ledger.buffers

    @property
    def live_bytes(self) -> int:
        """Bytes of those buffers, address space that was only reserved included."""
        return self._ledger.bytes

    def allocate(
        self, nbytes: int, *, reserve: bool = False, bank: str | None = None
    ) -> DeviceBuffer:
        self._check_open()
        check_bank(self, bank)
        buffer = CsimBuffer(self._ledger, nbytes, reserve=reserve)
        self._buffers.add(buffer)
        return buffer

    def adopt(self, array: Bytes, discard: Callable[[], None]) -> DeviceBuffer:
        """See speckv_pynq.device.protocol.HostMemoryDevice."""
        self._check_open()
        memory = AdoptedMemory(array, discard)
        buffer = CsimBuffer(self._ledger, memory.nbytes, reserve=False, memory=memory)
        self._buffers.add(buffer)
        return buffer

    def start_compress(
        self,
        blocks: DeviceBuffer,
        records: DeviceBuffer,
        descriptors: Descriptors,
        codebooks: DeviceBuffer | None = None,
    ) -> CsimRun:
        return self._start(self._library.kv_compress, blocks, records, codebooks, descriptors)

    def start_decompress(
        self,
        records: DeviceBuffer,
        blocks: DeviceBuffer,
        descriptors: Descriptors,
        codebooks: DeviceBuffer | None = None,
    ) -> CsimRun:
        return self._start(self._library.kv_decompress, records, blocks, codebooks, descriptors)

    def predict(
        self,
        predictor: DeviceBuffer,
        states: DeviceBuffer,
        descriptors: DeviceBuffer,
        completions: DeviceBuffer,
        candidates: DeviceBuffer,
        count: int,
    ) -> None:
        """See speckv_pynq.device.protocol.PredictingDevice; runs on the caller's thread, without the GIL."""
        self._check_open()
        buffers = predictor, states, candidates, descriptors, completions
        with self._ledger.lock:
            memories = [self._memory_of(buffer) for buffer in buffers]
            for memory in memories:
                self._ledger.pin(memory)
        try:
            status = call_predict(self._library.kv_prefetch, memories, count)
        finally:
            with self._ledger.lock:
                for memory in memories:
                    self._ledger.unpin(memory)
        if status:
            raise _call_error(status)

    def close(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Lets started runs finish, ends the engines, frees every buffer."""
        if os.getpid() == self._ledger.pid:
            with self._ledger.lock:
                self._closed = True
            left = _stop_engines(self._jobs, self._engines, timeout_s)
            if left:
                raise DeviceTimeout(
                    f"csim: {left} engines still busy {timeout_s:g} s after close()"
                )
            self._stop.detach()
        self._closed = True
        for buffer in list(self._buffers):
            buffer.free()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("csim device is closed")
        self._ledger.check_process()

    def _start(
        self,
        kernel: NativeKernel,
        source: DeviceBuffer,
        target: DeviceBuffer,
        codebooks: DeviceBuffer | None,
        descriptors: Descriptors,
    ) -> CsimRun:
        self._check_open()
        if descriptors.dtype != spec.DESCRIPTOR or descriptors.ndim != 1:
            raise DeviceError(
                f"descriptors: {descriptors.ndim}-D {descriptors.dtype}, not 1-D spec.DESCRIPTOR"
            )
        if not descriptors.flags.c_contiguous:
            raise DeviceError(f"descriptors: strides {descriptors.strides}, not C-contiguous")
        count = len(descriptors)
        with (
            self._ledger.lock
        ):  # so that no job follows the stop marks of close(), and no buffer is freed between
            self._check_open()
            tables = None if codebooks is None else self._memory_of(codebooks)
            run = CsimRun(
                self._ledger,
                kernel,
                self._memory_of(source),
                self._memory_of(target),
                tables,
                descriptors,
            )
            if not count:
                return run
            for memory in run.memories:
                self._ledger.pin(memory)
            inline = self._dispatch(run, descriptors, kernel is self._library.kv_decompress)
        if inline:
            run.execute(0, count)
        return run

    def _dispatch(self, run: CsimRun, descriptors: Descriptors, decompress: bool) -> bool:
        """Gives a run to the engines, or says that the caller should execute it. Under the ledger's lock."""
        count = run.count
        if run.work_bytes <= INLINE_BYTES and count <= spec.MAX_BATCH:
            return True
        slices = max(min(self.num_engines, count), -(-count // spec.MAX_BATCH))
        for i in range(slices):
            first, end = count * i // slices, count * (i + 1) // slices
            self._jobs.put((run, first, end - first))
        return False

    def _memory_of(self, buffer: DeviceBuffer) -> Pages:
        if not isinstance(buffer, CsimBuffer) or buffer.ledger is not self._ledger:
            raise DeviceBufferError(f"{buffer!r} is not memory of this csim device; use allocate()")
        return buffer.memory


def _engine(jobs: SimpleQueue[tuple[CsimRun, int, int] | None]) -> None:
    while (job := jobs.get()) is not None:
        run, first, count = job
        run.execute(first, count)
        del job, run  # or an idle engine would keep the last run alive


def _stop_engines(
    jobs: SimpleQueue[tuple[CsimRun, int, int] | None],
    engines: list[threading.Thread],
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> int:
    """Ends the engines after what is queued; how many are still busy after `timeout_s`.

    In a forked child, where this runs at exit, no engine is alive and the marks stay unread.
    """
    for _ in engines:  # whichever engine takes a mark: so not only for those seen alive meanwhile
        jobs.put(None)
    deadline = time.monotonic() + timeout_s
    for engine in engines:
        engine.join(max(0.0, deadline - time.monotonic()))
    return sum(engine.is_alive() for engine in engines)


def _call_error(status: int) -> Exception:
    if status == spec.Status.ABI_MISMATCH:
        return AbiMismatch(
            f"csim: the kernel refused abi_id {spec.ABI_ID:#018x}: rebuild libspeckv.so"
        )
    known = {int(s): s.name.lower() for s in spec.Status}
    return DeviceError(f"the call as a whole failed: status {known.get(status, '?')} ({status})")


def _tables(descriptors: Descriptors) -> tuple[memoryview, tuple[int, int], Completions]:
    """A line-aligned copy of the table, with zeroed completions behind it, and where both begin.

    Copied as bytes: NumPy copies structures field by field, which takes longer than a small call.
    """
    table_bytes = descriptors.nbytes
    memory = np.zeros(
        spec.LINE_BYTES + table_bytes + len(descriptors) * spec.COMPLETION.itemsize, np.uint8
    )
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory.data))
    start = -base % spec.LINE_BYTES
    end = start + table_bytes
    memory[start:end] = descriptors.view(np.uint8)
    completions = memory[end : end + len(descriptors) * spec.COMPLETION.itemsize]
    return memory[start:].data, (base + start, base + end), completions.view(spec.COMPLETION)


def _work_bytes(table: memoryview, count: int) -> int:
    """Bytes of all blocks, if each is like the first, of both kinds: enough to choose a thread."""
    if not count:
        return 0
    tokens, heads, head_dim = _SHAPE.unpack_from(table, _SHAPE_OFFSET)  # NumPy takes 10 us for this
    return int(tokens * heads * head_dim * 4) * count
