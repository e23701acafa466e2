"""Every error that SpecKV raises on purpose; messages name the value and the limit."""

from __future__ import annotations


class SpeckvError(Exception):
    """Base of all errors below."""


class DependencyMissing(SpeckvError):
    """An optional package or tool is needed; the message says how to install it."""


class ConfigError(SpeckvError, ValueError):
    """A setting is outside its range or contradicts another one."""


class ShapeError(SpeckvError, ValueError):
    """A block's shape, dtype or size is outside what kernels accept."""


class UnsupportedLayer(SpeckvError, ValueError):
    """A model has a layer kind that the cache cannot serve."""


class RecordError(SpeckvError, ValueError):
    """A record is damaged or does not belong to the block asked for; above the codec it counts as a miss.

    `status` is the spec.Status that a kernel gives for the same fault (None: no single one fits);
    `value` is what was found and `limit` what it should have been, or its bound.
    """

    def __init__(
        self, message: str, *, status: int | None = None, value: int = 0, limit: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.value, self.limit = status, value, limit


class NotWritten(SpeckvError, LookupError):
    """A position is in no request's region, or nothing was written to its block yet."""


class LeaseTimeout(SpeckvError, TimeoutError):
    """Views of others stood in the way for as long as the configuration lets a call wait."""


class CodebookError(SpeckvError, ValueError):
    """A codebook is damaged, or was made for another model, dtype or RoPE."""


class PredictorError(SpeckvError, ValueError):
    """A token predictor contradicts itself, or does not fit the model."""


class AbiMismatch(SpeckvError):
    """Library, overlay and runtime were built from different specs."""


class OverlayMismatch(SpeckvError):
    """An overlay's files are not those that its manifest names, or it was built for another board."""


class DeviceError(SpeckvError, RuntimeError):
    """A device refused or failed a call."""


class DeviceTimeout(DeviceError, TimeoutError):
    """A device did not finish before the deadline."""


class DeviceBufferError(DeviceError):
    """A buffer is not device memory, is freed, or is too small."""


class PoolError(SpeckvError, OSError):
    """The system refuses the memory that a pool is to be made of, or lacks it."""


class StoreError(SpeckvError, OSError):
    """A file store could not read or write, or is closed; what was reported stored stays so."""


class StoreLocked(StoreError):
    """Another process, or another object of this one, has the file store open."""


class StoreFormatError(StoreError, ValueError):
    """Files of a store that are foreign, newer than this package, or damaged as a whole."""


class CommandError(DeviceError, ValueError):
    """A command is malformed; nothing of its batch was taken."""


class CommandCancelled(DeviceError):
    """A command ended before its work was done: cancelled, superseded, or its driver closed."""


class RingFull(DeviceError):
    """The driver holds as many commands, completions not read included, as it has slots."""


class TraceError(SpeckvError, ValueError):
    """A recorded trace has a line that is none; the message names the line."""


class StaleHandle(SpeckvError, LookupError):
    """A block handle was released before, or never given out."""


class NotStored(SpeckvError, LookupError):
    """No block is stored at an address."""


class PoolFull(SpeckvError, MemoryError):
    """A tier's byte budget does not hold what was asked for."""


class Fenced(SpeckvError, RuntimeError):
    """An agent was silent, or left a recall unanswered, past its deadline: its leases are gone."""


class LeaseError(SpeckvError, LookupError):
    """An agent has no lease on a block, or none that allows what it asked for."""


class CheckFailed(SpeckvError, AssertionError):
    """A long run found the memory system in the wrong: bytes, counts or content are not what they should be."""
