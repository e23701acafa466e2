"""A MODEL of the way from L3 to the device, for csim: records arrive as late as over a link of a latency and a rate.

On csim L3 is host memory, so nothing takes the time that a CXL or PCIe link takes. Here each decompression waits until
its records would have arrived. The waiting takes no CPU time; decoding is as real as ever. What is measured over it is
a figure of the model and has to be called so.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from queue import SimpleQueue
from typing import Any, Final, Protocol

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device.csim import CsimDevice, CsimRun
from speckv_pynq.device.library import Library
from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, Descriptors
from speckv_pynq.errors import ConfigError, DeviceTimeout

# Of decoded blocks: a run's records are decoded in pieces like this as they arrive, as an engine on a board would.
PIECE_BYTES: Final = 1 << 20
Job = tuple[CsimRun, int, int]


class Clock(Protocol):
    """Seconds that never fall."""

    def now(self) -> float: ...

    def wait_until(self, when_s: float) -> None: ...


class HostClock:
    """The host's monotonic clock; waiting sleeps."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, when_s: float) -> None:
        time.sleep(max(0.0, when_s - time.monotonic()))


class Link:
    """A modelled link: one queue, in which transfers follow one another at bytes_per_s; latency_s overlaps with them.

    A transfer asked for at t begins at t, or when the one before it has been sent, and has arrived latency_s after its
    last byte was sent. bytes_per_s may be changed at any time, for transfers that follow; math.inf: no limit.
    """

    def __init__(self, latency_s: float = 0.0, bytes_per_s: float = math.inf) -> None:
        if not 0 <= latency_s < math.inf:
            raise ConfigError(f"latency_s {latency_s} is not within 0..inf")
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.moved_bytes = 0
        self._sent_s = -math.inf
        self._lock = threading.Lock()

    @property
    def bytes_per_s(self) -> float:
        return self._bytes_per_s

    @bytes_per_s.setter
    def bytes_per_s(self, bytes_per_s: float) -> None:
        if not bytes_per_s > 0:
            raise ConfigError(f"bytes_per_s {bytes_per_s} is not above 0")
        self._bytes_per_s = bytes_per_s

    def send(self, nbytes: int, now_s: float) -> float:
        """When these bytes, asked for now, will have arrived."""
        with self._lock:
            self._sent_s = max(now_s, self._sent_s) + nbytes / self._bytes_per_s
            self.moved_bytes += nbytes
            return self._sent_s + self.latency_s

    def __str__(self) -> str:
        return f"modelled link, {1e-9 * self.bytes_per_s:.3g} GB/s, {1e6 * self.latency_s:g} us"


class LinkedCsimDevice(CsimDevice):
    """csim behind a modelled link: every decompression, whoever starts it, waits for the records it moves.

    Compression is not delayed: the model is of the way up. Otherwise as CsimDevice.
    """

    def __init__(
        self,
        link: Link,
        num_engines: int | None = None,
        library: Library | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(num_engines, library)
        self.link, self._clock = link, clock or HostClock()
        self._moving: SimpleQueue[tuple[float, Job] | None] = SimpleQueue()
        self._courier = threading.Thread(
            target=_carry,
            args=(self._moving, self._jobs, self._clock),
            name="speckv-csim-link",
            daemon=True,
        )
        self._courier.start()
        weakref.finalize(self, self._moving.put, None)

    def close(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """As of CsimDevice, once what is on the link has arrived."""
        start_s = time.monotonic()
        with self._ledger.lock:  # so that no transfer follows the mark of the end
            self._closed = True
        self._moving.put(None)
        self._courier.join(timeout_s)
        if self._courier.is_alive():
            raise DeviceTimeout(f"csim: records still on the {self.link} {timeout_s:g} s on")
        super().close(max(0.0, timeout_s - (time.monotonic() - start_s)))

    def _dispatch(self, run: CsimRun, descriptors: Descriptors, decompress: bool) -> bool:
        if not decompress:
            return super()._dispatch(run, descriptors, decompress)
        now_s, each = self._clock.now(), max(1, PIECE_BYTES * run.count // max(1, run.work_bytes))
        each = min(each, spec.MAX_BATCH)
        sizes = descriptors["record_capacity"].astype(np.int64)
        for first in range(0, run.count, each):
            count = min(each, run.count - first)
            arrival_s = self.link.send(int(sizes[first : first + count].sum()), now_s)
            self._moving.put((arrival_s, (run, first, count)))
        return False


def _carry(moving: SimpleQueue[tuple[float, Job] | None], jobs: Any, clock: Clock) -> None:
    """Hands what has arrived to the engines; the queue's order is that of arrival."""
    while (item := moving.get()) is not None:
        clock.wait_until(item[0])
        jobs.put(item[1])
        del item  # or an idle link would keep the last run alive
