"""KV entries by address over the C library (speckv.h): the same memory system that C programs use."""

from speckv_pynq.allocator.config import AllocatorConfig, AllocatorStats
from speckv_pynq.allocator.engine import CxlSpeckvKVAllocator
from speckv_pynq.allocator.memory import SpeckvAllocator
from speckv_pynq.allocator.view import OVERWRITE, READ, WRITE, Cursor, View

__all__ = [
    "OVERWRITE", "READ", "WRITE", "AllocatorConfig", "AllocatorStats", "Cursor", "CxlSpeckvKVAllocator",
    "SpeckvAllocator", "View",
]  # fmt: skip
