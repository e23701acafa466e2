"""Memory behind the tiers, by name, and records on a disk (FileStore)."""

from speckv_pynq.pool.opening import open_pool
from speckv_pynq.pool.protocol import PoolMemory

__all__ = ["PoolMemory", "open_pool"]
