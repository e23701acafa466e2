"""What becomes of a command."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speckv_pynq import spec
from speckv_pynq.errors import (
    AbiMismatch,
    CommandCancelled,
    DeviceBufferError,
    DeviceError,
    DeviceTimeout,
    RecordError,
    SpeckvError,
)

_S = spec.CommandStatus
_ERRORS: dict[spec.CommandStatus, type[SpeckvError]] = {
    _S.CANCELLED: CommandCancelled,
    _S.SUPERSEDED: CommandCancelled,
    _S.CLOSED: CommandCancelled,
    _S.DEVICE_TIMEOUT: DeviceTimeout,
    _S.ABI_MISMATCH: AbiMismatch,
    _S.BAD_BUFFER: DeviceBufferError,
}


@dataclass(frozen=True)
class Completion:
    """The end of a command. row: spec.COMMAND_COMPLETION; cause: what the device raised, if it did."""

    row: np.void
    cause: BaseException | None = None
    decoding: bool = False

    @property
    def tag(self) -> int:
        return int(self.row["tag"])

    @property
    def owner(self) -> int:
        return int(self.row["owner"])

    @property
    def opcode(self) -> spec.Opcode:
        return spec.Opcode(int(self.row["opcode"]))

    @property
    def status(self) -> spec.CommandStatus:
        return _S(int(self.row["status"]))

    @property
    def bytes(self) -> int:
        """Of the records made or read, padding included."""
        return int(self.row["bytes"])

    @property
    def ok(self) -> bool:
        return self.status is _S.OK

    def error(self) -> SpeckvError | None:
        """The typed error that this end stands for; None when it is ok.

        RecordError: a record was refused. DeviceError: a block could not be coded, or the device
        failed. DeviceTimeout, AbiMismatch, DeviceBufferError: as the device says.
        CommandCancelled: cancelled, superseded or closed.
        """
        if self.ok:
            return None
        name = f"{self.opcode.name.lower()} {self.tag} of owner {self.owner}"
        if self.status is _S.FAILED_BLOCKS:
            return self._block_error(name)
        kind = _ERRORS.get(self.status, DeviceError)
        reason = f": {self.cause}" if self.cause is not None else ""
        return kind(f"{name}: {self.status.name.lower()}{reason}")

    def check(self) -> Completion:
        """Itself when ok, else raises error()."""
        error = self.error()
        if error is not None:
            raise error from self.cause
        return self

    def _block_error(self, name: str) -> SpeckvError:
        code, value, limit = (int(self.row[f]) for f in ("block_status", "value", "limit"))
        known = code in spec.Status.__members__.values()
        status = spec.Status(code).name.lower() if known else "unknown status"
        text = (
            f"{name}: {int(self.row['failed'])} of {int(self.row['blocks'])} blocks failed, first "
            f"{int(self.row['first_failed'])}: {status} ({code}) {value:#x}, limit {limit:#x}"
        )
        of_record = code >= spec.Status.RECORD_TOO_SMALL and code != spec.Status.BUS_ERROR
        if self.decoding and of_record:
            return RecordError(f"{text}; refetch the block", status=code, value=value, limit=limit)
        return DeviceError(text)
