"""Records of requests in a store that outlives the process: keys, and what is read back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from speckv_pynq.address import pack_address, unpack_address
from speckv_pynq.pool import FileStore

KEY_BYTES: Final = 16
BATCH: Final = 256  # records that wait for the disk together


def key_of(req_id: int, layer: int, position: int) -> bytes:
    """The block's virtual KV address (its first key), big-endian."""
    high, low = pack_address(req_id, layer, 0, position, 0)
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def keys_of(store: FileStore, req_id: int) -> Iterator[tuple[bytes, int, int]]:
    """Keys of a request with layer and position, in that order."""
    for key in sorted(store.keys()):
        high, low = (int.from_bytes(key[at : at + 8], "big") for at in (0, 8))
        address = unpack_address(high, low)
        if address.req_id == req_id:
            yield key, address.layer, address.pos


def write(store: FileStore, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Stores key and record pairs; how many. Each batch is durable before the next one begins."""
    pairs, count = iter(records), 0
    while batch := dict(islice(pairs, BATCH)):
        store.store_many(batch)
        count += len(batch)
    return count
