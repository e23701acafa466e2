"""The 64-byte commands: making them, and refusing those that no device should see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.device.protocol import Bytes, Descriptors, DeviceBuffer
from speckv_pynq.driver.parameters import Parameters
from speckv_pynq.errors import CommandError, DeviceBufferError

Commands = npt.NDArray[np.void]  # (n,) spec.COMMAND

MOVING = (spec.Opcode.DMA_BATCH, spec.Opcode.PREFETCH)
_FIELD_LIMITS = {
    name: (1 << 8 * field.itemsize) - 1
    for name, (field, *_) in spec.COMMAND.fields.items()  # type: ignore[union-attr]
}
_OPCODES = frozenset(int(opcode) for opcode in spec.Opcode)


def command(opcode: spec.Opcode, **fields: int) -> Commands:
    """One command, (1,) spec.COMMAND, with the fields given and zero elsewhere."""
    row = np.zeros(1, spec.COMMAND)
    row["opcode"] = opcode
    for name, value in fields.items():
        limit = _FIELD_LIMITS.get(name)
        if limit is None:
            raise CommandError(f"{name} is not a field of spec.COMMAND: {list(_FIELD_LIMITS)}")
        if not 0 <= value <= limit:
            raise CommandError(f"command field {name}: {value} is not within 0..{limit}")
        row[name] = value
    return row


@dataclass(frozen=True)
class Move:
    """The buffers of a DMA_BATCH or PREFETCH; holding them here keeps them alive."""

    source: DeviceBuffer
    target: DeviceBuffer
    codebooks: DeviceBuffer | None
    table: DeviceBuffer
    results: DeviceBuffer | None

    def descriptors(self, row: np.void) -> Descriptors:
        """The command's slice of its table, (count,) spec.DESCRIPTOR, not copied."""
        return self._rows(self.table, row["descriptors_line"], row["count"], spec.DESCRIPTOR)

    def results_of(self, row: np.void) -> npt.NDArray[np.void]:
        """Where the blocks' completions go, (count,) spec.COMPLETION."""
        assert self.results is not None
        return self._rows(self.results, row["results_line"], row["count"], spec.COMPLETION)

    @staticmethod
    def _rows(buffer: DeviceBuffer, line: Any, count: Any, dtype: np.dtype[np.void]) -> Any:
        first = int(line) * spec.LINE_BYTES
        view: Bytes = buffer.array[first : first + int(count) * dtype.itemsize]
        return view.view(dtype)


def resolve(row: np.void, buffers: dict[int, DeviceBuffer]) -> Move | None:
    """The buffers of a command (None: it has none); CommandError or ConfigError for a bad one."""
    opcode = int(row["opcode"])
    if opcode not in _OPCODES:
        raise CommandError(f"command {_name(row)}: opcode {opcode} is none of {list(spec.Opcode)}")
    if opcode == spec.Opcode.SET_PARAM:
        Parameters().changed(int(row["param"]), int(row["value"]))
    if opcode not in MOVING:
        return None
    if int(row["move"]) not in (spec.Move.COMPRESS, spec.Move.DECOMPRESS):
        raise CommandError(f"command {_name(row)}: move {int(row['move'])} is neither 0 nor 1")
    if int(row["flags"]) & ~int(spec.CommandFlag.DEFAULT_SCHEME):
        raise CommandError(f"command {_name(row)}: unknown bits in flags {int(row['flags']):#x}")
    move = Move(
        _buffer(row, "source", buffers),
        _buffer(row, "target", buffers),
        _buffer(row, "codebooks", buffers) if row["codebooks"] else None,
        _buffer(row, "descriptors", buffers),
        _buffer(row, "results", buffers) if row["results"] else None,
    )
    _check_range(row, "descriptors", move.table, spec.DESCRIPTOR.itemsize)
    if move.results is not None:
        _check_range(row, "results", move.results, spec.COMPLETION.itemsize)
    return move


def _buffer(row: np.void, field: str, buffers: dict[int, DeviceBuffer]) -> DeviceBuffer:
    number = int(row[field])
    if number not in buffers:
        raise DeviceBufferError(
            f"command {_name(row)}: {field} {number} is not a registered buffer; use register()"
        )
    return buffers[number]


def _check_range(row: np.void, field: str, buffer: DeviceBuffer, itemsize: int) -> None:
    end = int(row[f"{field}_line"]) * spec.LINE_BYTES + int(row["count"]) * itemsize
    if end > buffer.nbytes:
        raise DeviceBufferError(
            f"command {_name(row)}: {field} reach byte {end} of a buffer of {buffer.nbytes}"
        )


def _name(row: np.void) -> str:
    return f"{int(row['tag'])} of owner {int(row['owner'])}"
