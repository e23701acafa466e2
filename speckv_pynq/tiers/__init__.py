"""The tiers: L3 holds records, L1 decoded blocks, L2 what is on its way."""

from speckv_pynq.config import TierConfig
from speckv_pynq.tiers.manager import TierManager
from speckv_pynq.tiers.policies import DensePolicy, HeatPolicy, LruPolicy
from speckv_pynq.tiers.stats import TierStats
from speckv_pynq.tiers.strided import StridedKV

__all__ = [
    "DensePolicy", "HeatPolicy", "LruPolicy", "StridedKV", "TierConfig", "TierManager", "TierStats",
]  # fmt: skip
