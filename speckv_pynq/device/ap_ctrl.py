"""An HLS compute unit as software sees it: ap_ctrl_hs registers before one lasting worker thread.

Reads and writes go word by word through the state machine, since two registers have side effects: a
read of CTRL clears AP_DONE and AP_READY, a write to IP_ISR toggles. (Vitis HLS user guide UG1399,
"S_AXILITE Control Register Map".) One thread waits for AP_START for the unit's whole life; a thread
a call would cost more than a small block.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.errors import DeviceError

CTRL, GIER, IP_IER, IP_ISR = 0x00, 0x04, 0x08, 0x0C
AP_START, AP_DONE, AP_IDLE, AP_READY = 1, 2, 4, 8
CTRL_BITS = {"AP_START": AP_START, "AP_DONE": AP_DONE, "AP_IDLE": AP_IDLE, "AP_READY": AP_READY}

Execute = Callable[[dict[str, int]], None]


def describe_ctrl(value: int) -> str:
    """0x5 -> "CTRL=0x05 (AP_START, AP_IDLE)"."""
    names = ", ".join(name for name, bit in CTRL_BITS.items() if value & bit) or "no bit set"
    return f"CTRL={value:#04x} ({names})"


class ComputeUnit:
    """Registers and worker of a unit; `execute` gets arguments by name, raises what went wrong."""

    def __init__(
        self, name: str, arguments: Sequence[spec.KernelArgument], nbytes: int, execute: Execute
    ) -> None:
        self.name = name
        self.words: npt.NDArray[np.uint32] = np.zeros(nbytes // 4, np.uint32)
        self.words[CTRL // 4] = AP_IDLE
        self._arguments = {
            a.name: tuple(a.offset // 4 + i for i in range(2 if a.is_pointer or a.bits > 32 else 1))
            for a in arguments
        }
        self._writable = {word for words in self._arguments.values() for word in words}
        self._execute = execute
        self._change = threading.Condition()
        self._pending: dict[str, int] | None = None
        self._running = self._stopping = False
        self._error: BaseException | None = None
        self._generation = 0
        self._worker = self._new_worker()

    def view(self, byte_offset: int, nbytes: int) -> Registers:
        """What a memory map of this range of the unit's registers gives."""
        words = self.words[byte_offset // 4 : (byte_offset + nbytes) // 4].view(Registers)
        words.unit = self
        return words

    def read(self, word: int) -> int:
        with self._change:
            value = int(self.words[word])
            if word == CTRL // 4:
                self.words[word] = value & ~(AP_DONE | AP_READY)  # both are clear-on-read
            return value

    def write(self, word: int, value: int) -> None:
        with self._change:
            if word == CTRL // 4:
                self._write_ctrl(value)
            elif word == GIER // 4:
                self.words[word] = value & 1
            elif word == IP_IER // 4:
                self.words[word] = value & 3
            elif word == IP_ISR // 4:
                self.words[word] ^= value & 3
            elif word in self._writable:
                self.words[word] = value & 0xFFFF_FFFF

    def take_error(self) -> BaseException | None:
        """Why the last run failed, once."""
        with self._change:
            error, self._error = self._error, None
            return error

    def reset(self) -> None:
        """What loading a bitstream does: registers as at the start, a run in progress forgotten."""
        with self._change:
            self.words[:] = 0
            self.words[CTRL // 4] = AP_IDLE
            self._pending = self._error = None
            if self._running:  # its thread ends with that call, whenever that is
                self._generation += 1
                self._running = False
                self._worker = self._new_worker()

    def stop(self, timeout_s: float) -> bool:
        """Ends the worker after its run; False when that is still going after `timeout_s`."""
        with self._change:
            self._stopping = True
            self._change.notify()
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    def _write_ctrl(self, value: int) -> None:
        if not value & AP_START or not self.words[CTRL // 4] & AP_IDLE:
            return  # a start while busy is dropped: AP_START is still set then anyway
        self._error = None
        if self._stopping:
            self._finish(
                DeviceError(f"{self.name}: its overlay was replaced, or its device closed")
            )
            return
        self._pending = {
            name: sum(int(self.words[word]) << 32 * i for i, word in enumerate(words))
            for name, words in self._arguments.items()
        }
        self.words[CTRL // 4] = AP_START
        self._change.notify()

    def _new_worker(self) -> threading.Thread:
        worker = threading.Thread(
            target=self._serve, args=(self._generation,), name=f"speckv-{self.name}", daemon=True
        )
        worker.start()
        return worker

    def _serve(self, generation: int) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._pending is not None or self._stopping)
                arguments, self._pending = self._pending, None
                self._running = arguments is not None
            if arguments is None:
                return
            error: BaseException | None = None
            try:
                self._execute(arguments)
            except BaseException as caught:
                error = caught.with_traceback(None)  # a kept traceback would pin the buffers
            with self._change:
                if generation != self._generation:
                    return
                self._running = False
                self._finish(error)
            del error

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        self.words[CTRL // 4] = AP_DONE | AP_IDLE | AP_READY
        self.words[IP_ISR // 4] |= self.words[IP_IER // 4]


class Registers(np.ndarray[Any, np.dtype[np.uint32]]):
    """A NumPy view of a unit's registers; words go through the unit, as on an AXI-Lite bus."""

    unit: ComputeUnit | None

    def __array_finalize__(self, origin: object) -> None:
        self.unit = getattr(origin, "unit", None)
        self._first = -1

    def __getitem__(self, index: Any) -> Any:
        if self.unit is None or isinstance(index, (slice, tuple, np.ndarray, list)):
            return super().__getitem__(index)
        return self.unit.read(self._word(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.unit is None:
            super().__setitem__(index, value)
        elif isinstance(index, (slice, tuple, np.ndarray, list)):
            words = np.arange(self.size)[index].reshape(-1)
            for word, one in zip(words, np.broadcast_to(value, words.shape), strict=True):
                self.unit.write(self._word(word), int(one))
        else:
            self.unit.write(self._word(index), int(value))

    def take_error(self) -> BaseException | None:
        """What the worker raised in its last run, once. A board's registers have no such thing."""
        return self.unit.take_error() if self.unit is not None else None

    def _word(self, index: Any) -> int:
        position = operator.index(index)
        if not -self.size <= position < self.size:
            raise IndexError(f"register word {position} of {self.size}")
        if self._first < 0:  # the address of a view costs microseconds: once
            assert self.unit is not None
            self._first = int(self.ctypes.data - self.unit.words.ctypes.data) // 4
        return self._first + position % self.size
