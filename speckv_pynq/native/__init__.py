"""The native core through ctypes, over NumPy arrays; speckv_core.h says what each call does.

Errors are typed: ValueError for arguments, StaleHandle, PoolFull, MemoryError; a call that raises
has changed nothing.
"""

from speckv_pynq.native.binding import F64, U8, U32, U64
from speckv_pynq.native.core import NO_OFFSET, Core, GetPlan, Tier
from speckv_pynq.native.keys import key_promise
from speckv_pynq.native.pack import SlotLayout, Workers, pack_blocks, pack_level, unpack_blocks
from speckv_pynq.native.page_table import PageTable, PageTableStats, block_keys

__all__ = [
    "NO_OFFSET", "F64", "U8", "U32", "U64", "Core", "GetPlan", "PageTable", "PageTableStats", "SlotLayout", "Tier",
    "Workers", "block_keys", "key_promise", "pack_blocks", "pack_level", "unpack_blocks",
]  # fmt: skip
