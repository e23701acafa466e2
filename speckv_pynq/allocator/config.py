"""Settings of the C library's memory system, and what it counts."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError
from speckv_pynq.native import system as native

_GIB = 1 << 30


@dataclass(frozen=True)
class AllocatorConfig:
    """Shape, budgets and times; what does not fit is refused by the library, as ConfigError.

    Memory is taken as it is used. policy: "lru", or "dense" for scans of all blocks in order.
    threads: that fetch ahead. lease_timeout_ms: after which a view may lose its block to others; 0:
    never. wait_timeout_ms: how long a call waits for views of others; 0: not at all.
    """

    layers: int
    kv_heads: int
    head_dim: int
    block_tokens: int = spec.BLOCK_TOKENS
    dtype: spec.DType = spec.DType.FP16
    scheme: spec.Scheme = spec.Scheme.INT4
    policy: Literal["lru", "dense"] = "lru"
    l1_bytes: int = 12 * _GIB
    l2_bytes: int = 3 * _GIB
    l3_bytes: int = 128 * _GIB
    prefetch_depth: int = 4
    threads: int = 1
    lease_timeout_ms: int = 10_000
    wait_timeout_ms: int = 1_000
    layout_fingerprint: int = 0

    def native(self) -> native.Config:
        """As the library takes it; ConfigError where a number does not fit its field."""
        config = native.Config(struct_size=ctypes.sizeof(native.Config))
        if self.policy not in ("lru", "dense"):
            raise ConfigError(f"policy {self.policy!r} is not one of lru, dense")
        values = {**vars(self), "policy": int(self.policy == "dense")}
        for name, value in values.items():
            most = (1 << 8 * getattr(native.Config, name).size) - 1
            if not 0 <= int(value) <= most:  # ctypes would cut it
                raise ConfigError(f"{name} {value} is not within 0..{most}")
            setattr(config, name, int(value))
        return config


@dataclass(frozen=True)
class AllocatorStats:
    """What the library holds and has counted; tuples are in the order L1, L2, L3."""

    requests: int
    blocks: int
    dirty_blocks: int  # in L1, not written back yet
    leases: int
    budget_bytes: tuple[int, int, int]
    held_bytes: tuple[int, int, int]
    used_bytes: tuple[int, int, int]
    metadata_bytes: int
    staging_bytes: int
    hits_l1: int
    hits_l2: int
    misses: int
    created: int
    copied: int
    evictions: int
    write_backs: int
    bad_records: int
    expired_leases: int
    prefetched: int
    prefetch_dropped: int
