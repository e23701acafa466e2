"""Memory behind the tiers, by name, and records on a disk (FileStore)."""

from speckv_pynq.pool.opening import open_pool
from speckv_pynq.pool.protocol import PoolMemory
from speckv_pynq.pool.store import FileStore, StoreStats

__all__ = ["FileStore", "PoolMemory", "StoreStats", "open_pool"]
