"""Faults in CXLSpecKVSystem: a damaged record, a device that fails or is late, a full L3, no memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

import numpy as np

from speckv_pynq import spec
from speckv_pynq.bench.fault_library import FIRST, Inject, Rng, refused
from speckv_pynq.bench.faulty_device import FaultyDevice
from speckv_pynq.bench.soak_world import (
    BLOCK_BYTES,
    HEAD_DIM,
    HEADS,
    TOKENS,
    check,
    record_bytes,
    written,
)
from speckv_pynq.config import TierConfig
from speckv_pynq.device import Device
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import (
    DeviceBufferError,
    DeviceError,
    DeviceTimeout,
    PoolFull,
    RecordError,
)
from speckv_pynq.spec import Scheme
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig
from speckv_pynq.tiers import TierManager


class SystemTarget:
    """CXLSpecKVSystem on a device that fails on command; raw blocks, no L1, so that every get decodes."""

    BLOCKS: Final = 4
    ROUNDS: Final = 2  # of a put or get of all

    def __init__(self) -> None:
        self._csim = CsimDevice(1)
        self._device = FaultyDevice(self._csim)
        slots = 2 * (self.BLOCKS // self.ROUNDS) * record_bytes(FIRST, Scheme.RAW)
        self._tiers = TierConfig(0, slots, 4096 * 7, "lru", share_equal=True)
        config = SystemConfig(scheme="raw", block_tokens=TOKENS)
        self._system = CXLSpecKVSystem(
            Geometry(1, HEADS, HEAD_DIM),
            config,
            device=cast(Device, self._device),
            tiers=self._tiers,
        )
        bits = [written(FIRST + block) for block in range(2 * self.BLOCKS)]
        k, v = (np.concatenate([b[kind] for b in bits]).view(np.float16) for kind in (0, 1))
        half = self.BLOCKS * TOKENS
        self._kept, self._other = (k[:half], v[:half]), (k[half:], v[half:])
        self._system.put(1, 0, 0, *self._kept)
        self._get()
        self._before = self._counts()

    def kinds(self) -> dict[str, Inject]:
        return {
            "system: flipped bit": self.flip,
            "system: device fails to start": lambda rng: self._fails(rng, "start"),
            "system: device fails in a run": lambda rng: self._fails(rng, "wait"),
            "system: wrong completion": lambda rng: self._fails(rng, "status"),
            "system: device too late": self.late,
            "system: full pool": self.fill,
            "system: failed allocation": self.allocation,
        }

    def flip(self, rng: Rng) -> None:
        block = int(rng.integers(self.BLOCKS))
        handle = int(self._system._pages.blocks(1)[1][block])
        (record,) = self._system.tiers.records(handle)
        at = int(rng.integers(spec.RECORD_HEADER.itemsize + BLOCK_BYTES))
        bit = np.uint8(1 << int(rng.integers(8)))
        record[at] ^= bit
        refused(self._get, RecordError, f"block {block}")
        record[at] ^= bit
        self._get()

    def fill(self, rng: Rng) -> None:
        """L3 has room for what is kept and nearly as much again: a put of as much comes to its last round."""
        del rng
        refused(self._put_other, PoolFull, "full pool")
        self._get()

    def late(self, rng: Rng) -> None:
        """A run that misses its deadline may still write: nothing changes hands until it has ended."""
        self._device.timeouts = 1 + int(rng.integers(3))
        refused(self._get, DeviceTimeout, "late run")
        while self._device.timeouts:
            refused(self._get, DeviceTimeout, "late run")
        self._get()

    def allocation(self, rng: Rng) -> None:
        """Another manager on the same device: any of its buffers may be refused."""
        before = self._csim.live_buffers
        self._device.arm("allocate", int(rng.integers(2)))
        shape, tiers = self._system.shape, replace(self._tiers, l1_bytes=8 * BLOCK_BYTES)
        device = cast(Device, self._device)
        refused(
            lambda: TierManager(device, shape, Scheme.RAW, tiers, layers=1),
            DeviceBufferError,
            "allocation",
        )
        check(self._csim.live_buffers == before, "buffers left", self._csim.live_buffers)

    def leaks(self) -> int:
        return int(self._counts() != self._before)

    def close(self) -> int:
        self._system.free(1)
        stats = self._system.stats()
        left = stats.tiers.blocks + stats.tiers.references + stats.tiers.l3_bytes
        self._system.close()
        return left + self._csim.live_buffers

    def _fails(self, rng: Rng, fault: str) -> None:
        """In one of the rounds of a get, or of a put that would replace what is kept."""
        put = rng.random() < 0.5
        self._device.arm(fault, int(rng.integers(self.ROUNDS)))
        call = self._put_other if put else self._get
        try:
            call()
        except (DeviceError, RecordError):
            self._get()
            return
        except PoolFull:  # a put that nothing stopped before
            pass
        check(False, f"{fault}: not refused")

    def _get(self) -> None:
        got = self._system.get(1, 0, 0, self.BLOCKS * TOKENS)
        for found, want in zip(got, self._kept, strict=True):
            check(np.ascontiguousarray(found).tobytes() == want.tobytes(), "wrong bytes")

    def _put_other(self) -> None:
        self._system.put(1, 0, 0, *self._other)

    def _counts(self) -> tuple[Any, ...]:
        s, t = self._system.stats(), self._system.stats().tiers
        return (
            t.blocks, t.references, t.record_bytes, t.l1_bytes, t.l2_bytes, t.l3_bytes, s.mapped_blocks,
            s.requests, s.leases, self._csim.live_buffers,
        )  # fmt: skip
