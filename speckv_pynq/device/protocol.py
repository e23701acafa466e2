"""What a device offers: memory that its kernels reach, and kernels that take tables of descriptors.

Runs are not ordered among one another: wait for a run before starting one that reads what it
writes. A device may be used from several threads. A buffer freed while a run uses it lives until
that run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import ConfigError

Bytes = npt.NDArray[np.uint8]
Descriptors = npt.NDArray[np.void]  # (n,) spec.DESCRIPTOR
Completions = npt.NDArray[np.void]  # (n,) spec.COMPLETION

DEFAULT_TIMEOUT_S = 10.0


class DeviceBuffer(Protocol):
    """Memory that kernels reach, with a host view; a context manager, which frees it."""

    @property
    def nbytes(self) -> int: ...

    @property
    def array(self) -> Bytes:
        """The host view: (nbytes,) uint8, aligned to 64 bytes. DeviceBufferError once freed."""
        ...

    def sync_to_device(self, offset: int = 0, nbytes: int | None = None) -> None:
        """Makes what the host wrote to this range visible to kernels; None: up to the end."""
        ...

    def sync_from_device(self, offset: int = 0, nbytes: int | None = None) -> None:
        """Makes what kernels wrote to this range visible to the host; None: up to the end."""
        ...

    def free(self) -> None:
        """Gives the memory back; harmless when repeated."""
        ...

    def __enter__(self) -> DeviceBuffer: ...

    def __exit__(self, *exception: object) -> None: ...


class Run(Protocol):
    """A started table of descriptors."""

    def wait(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> Completions:
        """The completions, (n,) spec.COMPLETION in the order of the descriptors.

        DeviceTimeout when they are not all there after `timeout_s`; the run goes on and may be
        waited for again. DeviceError or AbiMismatch when the call failed as a whole. A status of
        one descriptor raises nothing.
        """
        ...

    def done(self) -> bool:
        """True when wait() would return, or raise, at once."""
        ...


def check_bank(device: Device, bank: str | None) -> None:
    """ConfigError when the device has no such bank."""
    if bank is not None and bank not in device.banks:
        raise ConfigError(
            f"bank {bank!r}: device {device.name} has {', '.join(device.banks) or 'none'}"
        )


class Device(Protocol):
    """Kernels and their memory; usable as a context manager, which closes it."""

    @property
    def name(self) -> str: ...

    @property
    def num_engines(self) -> int: ...

    @property
    def abi_id(self) -> int: ...

    @property
    def banks(self) -> tuple[str, ...]:
        """Names of the memories that `allocate` can take from."""
        ...

    def allocate(
        self, nbytes: int, *, reserve: bool = False, bank: str | None = None
    ) -> DeviceBuffer:
        """A zeroed buffer. reserve: address space only; pages appear when touched (large pools).

        bank: one of `banks`, ConfigError for another; None: the device's usual one.
        """
        ...

    def start_compress(
        self,
        blocks: DeviceBuffer,
        records: DeviceBuffer,
        descriptors: Descriptors,
        codebooks: DeviceBuffer | None = None,
    ) -> Run:
        """Codes blocks into record slots; the table, (n,) spec.DESCRIPTOR in C order, is copied.

        codebooks: a synced codebook image (speckv_pynq.codebook), for descriptors of a calibrated scheme.
        """
        ...

    def start_decompress(
        self,
        records: DeviceBuffer,
        blocks: DeviceBuffer,
        descriptors: Descriptors,
        codebooks: DeviceBuffer | None = None,
    ) -> Run:
        """Decodes records into blocks; the table, (n,) spec.DESCRIPTOR in C order, is copied.

        codebooks: the image that records of a calibrated scheme were made with.
        """
        ...

    def close(self) -> None:
        """Ends what runs, frees every buffer; harmless when repeated."""
        ...

    def __enter__(self) -> Device: ...

    def __exit__(self, *exception: object) -> None: ...


@runtime_checkable
class HostMemoryDevice(Protocol):
    """A device whose kernels reach all memory of this process."""

    def adopt(self, array: Bytes, discard: Callable[[], None]) -> DeviceBuffer:
        """A buffer over host memory of somebody else: (nbytes,) uint8, aligned to a page.

        discard: called once, when the buffer is freed and the last run over it has ended.
        """
        ...


@runtime_checkable
class PredictingDevice(Protocol):
    """A device that has kernel kv_prefetch."""

    def predict(
        self,
        predictor: DeviceBuffer,
        states: DeviceBuffer,
        descriptors: DeviceBuffer,
        completions: DeviceBuffer,
        candidates: DeviceBuffer,
        count: int,
    ) -> None:
        """Runs the first `count` spec.PREDICTION of `descriptors` in order; returns when their completions are there.

        predictor: an image of speckv_pynq.predictor.image. candidates: slots of spec.PREDICTOR_TOP spec.CANDIDATE.
        What the host wrote must be synced, and is not synced back here. A status of one descriptor raises nothing;
        DeviceBufferError for a table that is too small, DeviceError when the call failed as a whole.
        """
        ...
