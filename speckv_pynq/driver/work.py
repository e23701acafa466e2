"""Running one DMA_BATCH or PREFETCH on the device, whatever the device does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device.protocol import Completions, Descriptors, Device, Run
from speckv_pynq.driver.commands import Move
from speckv_pynq.driver.parameters import Parameters
from speckv_pynq.errors import AbiMismatch, DeviceBufferError, DeviceError, DeviceTimeout

_S = spec.CommandStatus


@dataclass
class Outcome:
    """How a command ended, field by field as in spec.COMMAND_COMPLETION."""

    status: spec.CommandStatus = _S.OK
    cause: BaseException | None = None
    bytes: int = 0
    blocks: int = 0
    failed: int = 0
    first_failed: int = 0
    block_status: int = 0
    value: int = 0
    limit: int = 0
    late: Run | None = None  # goes on although the command ended

    def add(self, done: Completions) -> None:
        """Counts the completions of the descriptors that follow those counted so far."""
        failed = np.flatnonzero(done["status"])
        if len(failed) and not self.failed:
            first = done[failed[0]]
            self.status = _S.FAILED_BLOCKS
            self.first_failed = self.blocks + int(failed[0])
            self.block_status = int(first["status"])
            self.value, self.limit = int(first["value"]), int(first["limit"])
        self.blocks += len(done)
        self.failed += len(failed)
        self.bytes += int(done["record_bytes"].sum())

    def fail(self, error: BaseException) -> None:
        """Takes over what the device raised, without the traceback, which would hold buffers."""
        self.cause = error.with_traceback(None)
        for kind, status in (
            (DeviceTimeout, _S.DEVICE_TIMEOUT),
            (DeviceBufferError, _S.BAD_BUFFER),
            (AbiMismatch, _S.ABI_MISMATCH),
        ):
            if isinstance(error, kind):
                self.status = status
                return
        self.status = _S.DEVICE_ERROR


def execute(
    device: Device,
    row: np.void,
    move: Move,
    parameters: Parameters,
    stopped: Callable[[], bool],
) -> Outcome:
    """Runs a command until it is done, fails, or (a prefetch, between slices) is stopped."""
    outcome, run = Outcome(), None
    wait_us = int(row["timeout_us"]) or parameters.command_timeout_us
    deadline = time.monotonic() + wait_us * 1e-6
    try:
        table = _table(row, move, parameters)
        prefetch = int(row["opcode"]) == spec.Opcode.PREFETCH
        step = parameters.prefetch_slice if prefetch else max(1, len(table))
        for first in range(0, len(table), step):
            if stopped():
                outcome.status = _S.CANCELLED
                break
            run = _start(device, row, move, table[first : first + step])
            done = run.wait(max(0.0, deadline - time.monotonic()))
            if len(done) != len(table[first : first + step]):
                raise DeviceError(f"{len(done)} completions of {len(table[first : first + step])}")
            if move.results is not None:
                move.results_of(row)[first : first + step] = done
            outcome.add(done)
    except BaseException as error:
        outcome.fail(error)
        if run is not None and not ended(run):
            outcome.late = run
    return outcome


def ended(run: Run) -> bool:
    """Whether a run is over; one that cannot say is taken to go on."""
    try:
        return run.done()
    except Exception:
        return False


def _table(row: np.void, move: Move, parameters: Parameters) -> Descriptors:
    table = move.descriptors(row)
    if (
        int(row["flags"]) & spec.CommandFlag.DEFAULT_SCHEME
        and int(row["move"]) == spec.Move.COMPRESS
    ):
        table = table.copy()
        table["scheme"] = parameters.compression_scheme
    return table


def _start(device: Device, row: np.void, move: Move, table: Descriptors) -> Run:
    compress = int(row["move"]) == spec.Move.COMPRESS
    start = device.start_compress if compress else device.start_decompress
    return start(move.source, move.target, table, move.codebooks)
