"""Leases of agents on blocks, and the system's own turn when it replaces or drops them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import Fenced, LeaseError
from speckv_pynq.native import U32, U64
from speckv_pynq.native.directory import Answer, Directory, DirectoryAgent
from speckv_pynq.native.page_table import block_keys

_POLL_S = 0.001


def lease_keys(pages: U32) -> U64:
    """Directory keys, (n,), of page table keys, (n, 3).

    64 bits mixed from request, layer and block. Two blocks may share a key: they are then leased together, which
    costs a wait and is not wrong.
    """
    mixed = np.zeros(len(pages), np.uint64)
    with np.errstate(over="ignore"):
        for column in pages.T.astype(np.uint64):
            mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
            mixed ^= mixed >> np.uint64(29)
    return mixed


class Leases:
    """The directory of a system's blocks, with the system as one of its agents.

    Agents register, then acquire, poll and release by the keys that `keys` gives; see docs/coherence.md. Somebody
    must call `tick` now and then where no call of the system does, so that silent agents are fenced.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.directory = Directory(int(lease_s * 1e9))
        self._home = self.directory.register(time.monotonic_ns())
        self._lock = threading.Lock()  # the home's calls about a block come one after another

    def register(self) -> DirectoryAgent:
        """A new agent; ValueError when spec.MAX_AGENTS are registered."""
        return self.directory.register(time.monotonic_ns())

    @staticmethod
    def keys(
        req_id: npt.ArrayLike, layer: npt.ArrayLike, block: npt.ArrayLike
    ) -> U64:
        """What an agent acquires for blocks; block: position // block_tokens."""
        return np.unique(lease_keys(block_keys(req_id, layer, block)))

    def tick(self) -> frozenset[int]:
        """Fences agents that are past a deadline; their numbers."""
        now = time.monotonic_ns()
        try:
            self._home.poll(now_ns=now)  # never silent; between calls it holds nothing
        except Fenced:  # by somebody else's expire
            self._home = self.directory.register(now)
        return self.directory.expire(now)

    @contextlib.contextmanager
    def exclusive(self, pages: U32) -> Iterator[None]:
        """While it lasts no agent holds these blocks: page table keys, (n, 3).

        Agents that hold them are recalled; one that does not answer is fenced at its deadline. LeaseError when the
        blocks are not free two leases later.
        """
        if self.directory.stats().agents == 1:  # nobody but the system
            yield
            return
        keys = np.unique(lease_keys(pages))
        with self._lock:
            self._acquire(keys)
            try:
                yield
            finally:
                self._home.release(keys, dirty=False)

    def close(self) -> None:
        self.directory.close()

    def _acquire(self, keys: U64) -> None:
        end = time.monotonic() + 2 * self.lease_s
        while True:
            self.tick()
            answers = self._home.acquire(keys, write=True, now_ns=time.monotonic_ns())
            if (answers == Answer.GRANTED).all():
                return
            if (answers == Answer.NO_MEMORY).any() or time.monotonic() > end:
                mine = keys[(answers == Answer.GRANTED) | (answers == Answer.WAITING)]
                self._home.release(mine, dirty=False)
                raise LeaseError(
                    f"{np.count_nonzero(answers)} of {len(keys)} blocks are still leased by agents after "
                    f"{2 * self.lease_s} s"
                )
            time.sleep(_POLL_S)
