"""A csim device that fails on command: in a start, a wait, a completion, an allocation, or by being late."""

from __future__ import annotations

from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import DeviceBufferError, DeviceError, DeviceTimeout


class FaultyRun:
    """A run of which something is wrong."""

    def __init__(self, run: Any, device: FaultyDevice) -> None:
        self._run, self._device = run, device

    def wait(self, timeout_s: float = 10.0) -> np.ndarray:
        if self._device.timeouts:
            self._device.timeouts -= 1
            raise DeviceTimeout("injected")
        completions: np.ndarray = self._run.wait(timeout_s).copy()
        if self._device.strikes("wait"):
            raise DeviceError("injected in wait")
        if self._device.strikes("status"):
            completions["status"][-1] = spec.Status.BAD_CRC
        return completions


class FaultyDevice:
    """A csim device that fails at the countdown's end: in "start", "wait", "status" or "allocate"."""

    def __init__(self, device: CsimDevice) -> None:
        self._device = device
        self.fault = ""
        self.countdown = -1
        self.timeouts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def arm(self, fault: str, countdown: int) -> None:
        self.fault, self.countdown = fault, countdown

    def strikes(self, where: str) -> bool:
        if where != self.fault or self.countdown < 0:
            return False
        self.countdown -= 1
        return self.countdown < 0

    def allocate(self, nbytes: int, **how: Any) -> Any:
        if self.strikes("allocate"):
            raise DeviceBufferError(f"injected: {nbytes} bytes")
        return self._device.allocate(nbytes, **how)

    def start_compress(self, *arguments: Any) -> FaultyRun:
        return self._start(self._device.start_compress, *arguments)

    def start_decompress(self, *arguments: Any) -> FaultyRun:
        return self._start(self._device.start_decompress, *arguments)

    def _start(self, start: Any, *arguments: Any) -> FaultyRun:
        if self.strikes("start"):
            raise DeviceError("injected in start")
        return FaultyRun(start(*arguments), self)
