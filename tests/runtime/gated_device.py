"""A csim device whose runs, where a driver starts them, wait at a gate or go wrong as a test says."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import DeviceBufferError, DeviceError, DeviceTimeout

FAULTS = ("start", "wait", "status", "timeout")


class GatedRun:
    """Decodes once it is let through; a late one then scribbles over its blocks instead."""

    def __init__(self, device: GatedDevice, arguments: tuple[Any, ...], fault: str) -> None:
        self._device, self._arguments, self._fault = device, arguments, fault
        self._over = threading.Event()
        self._completions: np.ndarray | None = None

    def let(self) -> None:
        """Lets it end."""
        _, target, table, *_ = self._arguments
        if self._fault == "timeout":
            with suppress(DeviceBufferError):  # freed
                for at in table["key_offset"].tolist():
                    target.array[at : at + spec.LINE_BYTES] = 0xAA
        else:
            done = self._device.csim.start_decompress(*self._arguments).wait().copy()
            if self._fault == "status":
                done["status"][-1] = spec.Status.BAD_CRC
            self._completions = done
        self._over.set()

    def done(self) -> bool:
        return self._over.is_set()

    def wait(self, timeout_s: float = 10.0) -> np.ndarray:
        if self._fault == "timeout":
            raise DeviceTimeout("injected")
        if not self._over.wait(timeout_s):
            raise DeviceTimeout(f"held for {timeout_s:g} s")
        if self._fault == "wait":
            raise DeviceError("injected in wait")
        assert self._completions is not None
        return self._completions


class GatedDevice:
    """hold() closes the gate for the next runs of a driver, open() lets all through; fail() plans faults."""

    def __init__(self, csim: CsimDevice) -> None:
        self.csim = csim
        self._holding = 0
        self._faults: list[str] = []
        self._lock = threading.Lock()
        self.held: list[GatedRun] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.csim, name)

    def hold(self, runs: int = 1 << 30) -> None:
        with self._lock:
            self._holding = runs

    def fail(self, *faults: str) -> None:
        """What becomes of the next runs, one each; "timeout" runs go on until open()."""
        with self._lock:
            self._faults += faults

    def open(self) -> None:
        with self._lock:
            self._holding, runs, self.held = 0, self.held, []
        for run in runs:
            run.let()

    def start_decompress(self, *arguments: Any) -> Any:
        if not threading.current_thread().name.startswith("speckv-driver"):
            return self.csim.start_decompress(*arguments)
        with self._lock:
            fault = self._faults.pop(0) if self._faults else ""
            if fault == "start":
                raise DeviceError("injected in start")
            run = GatedRun(
                self, (arguments[0], arguments[1], arguments[2].copy(), *arguments[3:]), fault
            )
            held = self._holding > 0 or fault == "timeout"
            if held:
                self._holding = max(0, self._holding - 1)
                self.held.append(run)
        if not held:
            run.let()
        return run
