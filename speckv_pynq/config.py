"""Settings of the tiers, validated once, at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from speckv_pynq.errors import ConfigError

Policy = Literal["dense", "lru"]
POLICIES: Final[tuple[str, ...]] = get_args(Policy)
MAX_TIER_BYTES: Final = 1 << 46  # what a block's 40-bit line number reaches


@dataclass(frozen=True)
class TierConfig:
    """Hard byte budgets of the tiers, and which blocks stay decoded.

    l1_bytes: decoded blocks that stay; 0 keeps none. l2_bytes: staging, and decoded blocks brought
    up early. l3_bytes: records. Memory is taken as it is used: a large budget costs nothing.
    policy: "dense" keeps the first blocks that fit and streams the rest, for attention that reads
    every block each step; "lru" keeps the last ones used, for access that comes back to few.
    share_equal: blocks whose records are equal are held once; costs a hash of each record.
    """

    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    policy: Policy = "dense"
    share_equal: bool = False

    def __post_init__(self) -> None:
        for name, least in (("l1_bytes", 0), ("l2_bytes", 1), ("l3_bytes", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} {value!r} is not an int")
            if not least <= value < MAX_TIER_BYTES:
                raise ConfigError(f"{name} {value} is not within {least}..{MAX_TIER_BYTES - 1}")
        if self.policy not in POLICIES:
            raise ConfigError(f"policy {self.policy!r} is not one of {', '.join(POLICIES)}")
