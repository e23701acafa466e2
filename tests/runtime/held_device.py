"""A device whose runs end when, and as, a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np

from speckv_pynq import spec
from speckv_pynq.driver import SpeckvDriver
from speckv_pynq.errors import DeviceTimeout


def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits until something that another thread does has come about."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "never came about"
        time.sleep(0.0001)


class HeldBuffer:
    """Host memory that stands for a device's."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.array = np.zeros(nbytes, np.uint8)

    def sync_to_device(self, offset: int = 0, nbytes: int | None = None) -> None: ...

    def sync_from_device(self, offset: int = 0, nbytes: int | None = None) -> None: ...

    def free(self) -> None: ...

    def __enter__(self) -> HeldBuffer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class HeldRun:
    """name: record_offset of its first descriptor; each block gives 64 bytes."""

    def __init__(self, table: np.ndarray) -> None:
        self.name, self.count = int(table["record_offset"][0]), len(table)
        self._over = threading.Event()
        self._status, self._error = 0, None

    def end(self, status: int = 0, error: BaseException | None = None) -> None:
        """Ends the run: with a block status for its last block, or with an error as a whole."""
        self._status, self._error = status, error
        self._over.set()

    def done(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout_s: float = 10.0) -> np.ndarray:
        if not self._over.wait(timeout_s):
            raise DeviceTimeout(f"held for {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        done = np.zeros(self.count, spec.COMPLETION)
        done["record_bytes"] = 64
        done["status"][-1] = self._status
        return done


class HeldDevice:
    """Runs in the order in which they were started; `holding` False ends them at once."""

    name, num_engines, abi_id = "held", 1, spec.ABI_ID

    def __init__(self, *, holding: bool = True) -> None:
        self.holding = holding
        self.runs: list[HeldRun] = []
        self.buffers: list[HeldBuffer] = []

    def allocate(self, nbytes: int, *, reserve: bool = False) -> HeldBuffer:
        self.buffers.append(HeldBuffer(nbytes))
        return self.buffers[-1]

    def start_compress(
        self, blocks: object, records: object, descriptors: np.ndarray, codebooks: object = None
    ) -> HeldRun:
        run = HeldRun(descriptors)
        if not self.holding:
            run.end()
        self.runs.append(run)
        return run

    start_decompress = start_compress

    def run(self, name: int) -> HeldRun:
        """The run of that name, once it has started."""
        eventually(lambda: any(run.name == name for run in self.runs))
        return next(run for run in self.runs if run.name == name)

    @property
    def names(self) -> list[int]:
        return [run.name for run in self.runs]


class Held:
    """A driver on a held device, with a table whose descriptor i names its run i."""

    def __init__(
        self, slots: int = 16, *, holding: bool = True, device: HeldDevice | None = None
    ) -> None:
        self.device = device or HeldDevice(holding=holding)
        self.driver = SpeckvDriver(self.device, slots)
        self.source, self.target, self.table, self.results = (
            self.driver.register(self.device.allocate(1 << 16)) for _ in range(4)
        )
        rows = self.device.buffers[2].array.view(spec.DESCRIPTOR)
        rows["record_offset"] = np.arange(len(rows))
        self.fields = {"source": self.source, "target": self.target, "descriptors": self.table}

    def dma(self, name: int, **fields: int) -> int:
        """Submits a DMA_BATCH whose run, and tag, is called `name`."""
        given = {"tag": name, "descriptors_line": name, "count": 1, **self.fields, **fields}
        return self.driver.dma_batch(**given)

    def prefetch(self, name: int, **fields: int) -> int:
        given = {"tag": name, "descriptors_line": name, "count": 1, **self.fields, **fields}
        return self.driver.prefetch(**given)

    def close(self) -> None:
        for run in self.device.runs:
            run.end()
        self.driver.close(5.0)
