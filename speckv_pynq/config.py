"""Settings of the tiers, validated once, at the edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from speckv_pynq.errors import ConfigError

MAX_TOKEN: Final = (1 << 31) - 1  # of any tokenizer
Policy = Literal["dense", "lru", "heat"]
Prefetch = Literal["none", "dense"]
POLICIES: Final[tuple[str, ...]] = get_args(Policy)
PREFETCHES: Final[tuple[str, ...]] = get_args(Prefetch)
MAX_TIER_BYTES: Final = 1 << 46  # what a block's 40-bit line number reaches
# Kinds of pool memory, and what stands behind the colon; docs/pools.md says which is good for what.
POOLS: Final = {
    "device": ("",),
    "memory": ("", "thp", "huge"),
    "numa": "NODE",
    "dax": "DEVICE",
    "file": "DIRECTORY",
    "fpga": "BANK",
}


@dataclass(frozen=True)
class PoolName:
    """A pool as a setting: `kind` or `kind:place`, as in "memory:huge", "numa:1", "file:/mnt/nvme"."""

    kind: str
    place: str = ""

    @classmethod
    def parse(cls, text: str) -> PoolName:
        """ConfigError names what is allowed."""
        if not isinstance(text, str):
            raise ConfigError(f"pool {text!r} is not a string")
        kind, _, place = text.partition(":")
        if kind not in POOLS:
            raise ConfigError(f"pool {text!r} is not one of {', '.join(POOLS)}")
        places = POOLS[kind]
        if isinstance(places, tuple):
            if place not in places:
                allowed = " or ".join(str(cls(kind, one)) for one in places)
                raise ConfigError(f"pool {text!r} should be {allowed}")
        elif not place or (kind == "numa" and not (place.isascii() and place.isdigit())):
            raise ConfigError(f"pool {text!r} should be {kind}:{places}")
        return cls(kind, place)

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}" if self.place else self.kind


@dataclass(frozen=True)
class TierConfig:
    """Hard byte budgets of the tiers, and which blocks stay decoded.

    l1_bytes: decoded blocks that stay; 0 keeps none. l2_bytes: staging, and decoded blocks brought
    up early. l3_bytes: records. Memory is taken as it is used: a large budget costs nothing.
    policy: "dense" keeps the first blocks that fit and streams the rest, for attention that reads
    every block each step; "lru" keeps the last ones used, for conversations that come back; "heat" keeps those used
    most, old uses counting less, for sparse attention, which reads few blocks, mostly the same again.
    prefetch: "dense" (with policy "dense") brings up in the background what gets with `ahead` will read next, in their
    order; L1 then holds an even share of each layer, and staging takes an eighth of L2 at most. prefetch_depth: blocks
    ahead, of one sequence at most; None: as many as L2 holds beside staging. prefetch_bytes_per_s: of records, at
    most; None: no limit.
    share_equal: blocks whose records are equal are held once; costs a hash of each record.
    l3_pool: the memory of L3, a PoolName; kinds other than device and fpga are for csim alone.
    """

    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    policy: Policy = "dense"
    share_equal: bool = False
    l3_pool: str = "device"
    prefetch: Prefetch = "none"
    prefetch_depth: int | None = None
    prefetch_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("l1_bytes", 0), ("l2_bytes", 1), ("l3_bytes", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} {value!r} is not an int")
            if not least <= value < MAX_TIER_BYTES:
                raise ConfigError(f"{name} {value} is not within {least}..{MAX_TIER_BYTES - 1}")
        if self.policy not in POLICIES:
            raise ConfigError(f"policy {self.policy!r} is not one of {', '.join(POLICIES)}")
        if self.prefetch not in PREFETCHES:
            raise ConfigError(f"prefetch {self.prefetch!r} is not one of {', '.join(PREFETCHES)}")
        if self.prefetch == "dense" and self.policy != "dense":
            raise ConfigError(f"prefetch 'dense' goes with policy 'dense', not {self.policy!r}")
        if self.prefetch_depth is not None and self.prefetch_depth < 0:
            raise ConfigError(f"prefetch_depth {self.prefetch_depth} < 0")
        if self.prefetch_bytes_per_s is not None and not self.prefetch_bytes_per_s > 0:
            raise ConfigError(f"prefetch_bytes_per_s {self.prefetch_bytes_per_s} is not above 0")
        PoolName.parse(self.l3_pool)


def check_tokens(tokens: Sequence[int]) -> None:
    """ConfigError where one is not a token id."""
    for token in tokens:
        if isinstance(token, bool) or not hasattr(token, "__index__"):
            raise ConfigError(f"token {token!r} is not an integer")
        if not 0 <= token <= MAX_TOKEN:
            raise ConfigError(f"token {token} is not within 0..{MAX_TOKEN}")
