"""Virtual KV addresses: `[req_id:32][layer:16][head:8][pos:32][kind:1]`, 89 bits in two 64-bit words.

Widths and test vectors stand in hls/spec.toml, from which C and SystemVerilog get the same packing.
"""

from __future__ import annotations

from typing import NamedTuple

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError

WORD_BITS = 64
WORD_MASK = (1 << WORD_BITS) - 1


class KVAddress(NamedTuple):
    """One key or value of one token: request, layer, KV head, position; kind 0 is the key."""

    req_id: int
    layer: int
    head: int
    pos: int
    kind: int


def pack_address(req_id: int, layer: int, head: int, pos: int, kind: int) -> tuple[int, int]:
    """-> (high, low) 64-bit words; ConfigError names a field outside its width and the limit."""
    address = KVAddress(req_id, layer, head, pos, kind)
    packed = 0
    for name, bits, shift in spec.ADDRESS_FIELDS:
        value = int(getattr(address, name))
        if not 0 <= value < 1 << bits:
            raise ConfigError(f"{name} {value} is outside 0..{(1 << bits) - 1} ({bits} bits)")
        packed |= value << shift
    return packed >> WORD_BITS, packed & WORD_MASK


def unpack_address(high: int, low: int) -> KVAddress:
    """The fields of a packed address; ConfigError where a word has bits that no field owns."""
    for name, word, bits in (
        ("high", high, spec.ADDRESS_BITS - WORD_BITS),
        ("low", low, WORD_BITS),
    ):
        if not 0 <= word < 1 << bits:
            raise ConfigError(f"{name} word {word:#x} is outside 0..{(1 << bits) - 1:#x}")
    packed = int(high) << WORD_BITS | int(low)
    return KVAddress(*(packed >> shift & (1 << bits) - 1 for _, bits, shift in spec.ADDRESS_FIELDS))
