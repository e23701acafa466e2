"""The native core through ctypes, over NumPy arrays; speckv_core.h says what each call does.

Errors are typed: ValueError for arguments, StaleHandle, PoolFull, MemoryError; a call that raises
has changed nothing.
"""

from speckv_pynq.native.binding import U8, U32, U64
from speckv_pynq.native.core import NO_OFFSET, Core, GetPlan, Tier
from speckv_pynq.native.pack import SlotLayout, Workers, pack_blocks, pack_level, unpack_blocks

__all__ = [
    "NO_OFFSET", "U8", "U32", "U64", "Core", "GetPlan", "SlotLayout", "Tier", "Workers",
    "pack_blocks", "pack_level", "unpack_blocks",
]  # fmt: skip
