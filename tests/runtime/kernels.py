"""Kernels in Python that stand in for the native ones, to make a device slow, wrong or talkative."""

from __future__ import annotations

import ctypes
import dataclasses
import threading
from collections.abc import Callable

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device import library
from speckv_pynq.device.csim import CsimDevice


def table_at(address: int, count: int, dtype: np.dtype) -> np.ndarray:
    """The table of a kernel call as a NumPy view."""
    data = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    return np.frombuffer(data, dtype)


def device_with(kernel: Callable[..., int], num_engines: int = 1) -> CsimDevice:
    """A csim device whose two kernels are `kernel`."""
    native = library.load()
    return CsimDevice(
        num_engines, dataclasses.replace(native, kv_compress=kernel, kv_decompress=kernel)
    )


def large_table(count: int) -> np.ndarray:
    """Descriptors of blocks so large that they go to the engines; record_offset numbers them."""
    table = np.zeros(count, spec.DESCRIPTOR)
    table["tokens"], table["heads"], table["head_dim"] = 64, 8, 128
    table["record_offset"] = np.arange(count) * spec.LINE_BYTES
    return table


class Echo:
    """Answers each descriptor with its record_offset as value, and remembers the slices."""

    def __init__(self) -> None:
        self.slices: list[int] = []
        self.tables: list[int] = []  # addresses

    def __call__(self, *arguments: int) -> int:
        descriptors, completions, count, _ = arguments[6:]
        self.slices.append(count)
        self.tables.append(descriptors)
        source = table_at(descriptors, count, spec.DESCRIPTOR)
        table_at(completions, count, spec.COMPLETION)["value"] = source["record_offset"]
        return 0


class Gate(Echo):
    """An Echo that holds every call until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.entered = threading.Event()

    def __call__(self, *arguments: int) -> int:
        self.entered.set()
        if not self.opened.wait(10):
            raise AssertionError("the test never opened the gate")
        return super().__call__(*arguments)
