"""Calls of a compute unit through pynq: which buffers it may take, and the wait for its end."""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, Completions
from speckv_pynq.errors import (
    AbiMismatch,
    DeviceBufferError,
    DeviceError,
    DeviceTimeout,
    SpeckvError,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10e-6, 1e-3  # between two looks at CTRL; doubles


class Unit(Protocol):
    """What a run needs of its compute unit's driver."""

    fullpath: str

    @property
    def idle(self) -> bool: ...

    def describe(self) -> str: ...

    def take_error(self) -> BaseException | None: ...


class KernelRun:
    """A started call. It holds the call's buffers until the kernel is done with them."""

    def __init__(self, unit: Unit, buffers: list[Any], count: int) -> None:
        self._unit, self._buffers, self._count = unit, buffers, count
        self._completions: Completions | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def done(self) -> bool:
        """True when wait() would return, or raise, at once."""
        return not self._buffers or self._unit.idle

    def wait(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Completions:
        """The completions, (count,) spec.COMPLETION, read back and checked for AbiMismatch.

        DeviceTimeout after `timeout_s`; the kernel still runs then, and its run may be waited for
        again. What a kernel on csim raised comes out here. Records and blocks are the caller's to
        sync.
        """
        with self._lock:
            if self._buffers:
                self._await(timeout_s)
                self._collect()
            if self._error is not None:
                # A new one each time: a kept error's traceback would pin the call's buffers.
                raise fresh(self._error)
            assert self._completions is not None
            return self._completions

    def _await(self, timeout_s: float) -> None:
        deadline, pause_s = time.monotonic() + timeout_s, FIRST_PAUSE_S
        while not self._unit.idle:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise DeviceTimeout(
                    f"{self._unit.fullpath}: not idle after {timeout_s:g} s, "
                    f"{self._unit.describe()}; wait again, or load the overlay afresh"
                )
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _collect(self) -> None:
        results = self._buffers[3]
        self._buffers = []
        self._error = self._unit.take_error()
        if self._error is not None:
            return
        results.sync_from_device()
        flat = results.reshape(-1).view(np.ndarray).view(np.uint8)
        completions = flat[: self._count * spec.COMPLETION.itemsize].copy().view(spec.COMPLETION)
        if (completions["status"] == spec.Status.ABI_MISMATCH).any():
            self._error = AbiMismatch(
                f"{self._unit.fullpath}: the kernel was built from another spec than the caller's"
            )
        self._completions = completions


def fresh(error: BaseException) -> SpeckvError:
    """The error to raise for a kept one; what is not ours becomes the cause of a DeviceError."""
    if isinstance(error, (AbiMismatch, DeviceError)):
        return type(error)(str(error))
    wrapped = DeviceError(f"the kernel's worker failed: {error!r}")
    wrapped.__cause__ = error
    return wrapped


def check_buffer(what: str, buffer: Any, needed_bytes: int) -> Any:
    """The buffer when its device address is real; DeviceBufferError otherwise.

    Stock PynqBuffer computes a device address for every array made from one: slices, where it is
    right, and also `buf + 1`, buf.copy() or buf[[0, 2]], where it points at memory of somebody
    else. The array that owns the memory is known by its `memory` attribute, which pynq.allocate
    sets.
    """
    if not hasattr(buffer, "device_address"):
        raise DeviceBufferError(f"{what} is {type(buffer).__name__}, not a buffer of pynq.allocate")
    owner = buffer
    while hasattr(owner.base, "device_address"):
        owner = owner.base
    offset = buffer.virtual_address - owner.virtual_address
    if getattr(owner, "memory", None) is None or not 0 <= offset <= owner.nbytes - buffer.nbytes:
        raise DeviceBufferError(
            f"{what} is an array computed from a buffer (copy, arithmetic, fancy index?): its "
            "device address is made up; assign into a buffer of pynq.allocate instead"
        )
    if owner.freed:
        raise DeviceBufferError(f"{what}: the buffer was freed")
    if not buffer.flags.c_contiguous:
        raise DeviceBufferError(f"{what}: strides {buffer.strides}, not C-contiguous")
    address = int(buffer.device_address)
    if address % spec.LINE_BYTES:
        raise DeviceBufferError(
            f"{what}: device address {address:#x} is not a multiple of {spec.LINE_BYTES}"
        )
    if buffer.nbytes < needed_bytes:
        raise DeviceBufferError(
            f"{what}: {buffer.nbytes} bytes, {needed_bytes} needed for this count"
        )
    return buffer
