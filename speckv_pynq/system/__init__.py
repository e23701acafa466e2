"""One object for everything below an adapter: device, codebook, tiers, page table, directory of leases."""

from speckv_pynq.system.config import SystemConfig
from speckv_pynq.system.stats import SystemStats, prometheus
from speckv_pynq.system.system import CXLSpecKVSystem, Geometry

__all__ = ["CXLSpecKVSystem", "Geometry", "SystemConfig", "SystemStats", "prometheus"]
