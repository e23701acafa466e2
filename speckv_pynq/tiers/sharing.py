"""Equal blocks held once: keys that say that blocks are equal, and the handles of those that are held."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import StaleHandle
from speckv_pynq.native import U64, Core

Key = bytes  # 32 of them
_LEAST = 1024  # keys before the index looks for those of blocks that are gone


def content_key(records: Iterable[npt.NDArray[np.uint8]]) -> Key:
    """SHA-256 of a block's records, padding included.

    Their headers name scheme, layer, position, layout and codebook, so that equal keys mean that one block serves
    for both, whoever asks.
    """
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.tobytes())
    return digest.digest()


class PrefixKeys:
    """Keys of blocks by the tokens that they come from: a model's K and V follow from those, up to rounding.

    salt: what else they follow from: model, layout, scheme, codebook.
    """

    def __init__(self, salt: bytes) -> None:
        self._start = hashlib.sha256(b"speckv prefix" + len(salt).to_bytes(8, "little") + salt)

    def chain(self, tokens: npt.NDArray[np.integer], ends: Sequence[int]) -> list[bytes]:
        """SHA-256 over tokens[:end] for each of the ends, which rise; tokens: (n,) of one sequence."""
        digest, done, out = self._start.copy(), 0, []
        for end in ends:
            digest.update(np.ascontiguousarray(tokens[done:end], "<i8").tobytes())
            done = end
            out.append(digest.digest())
        return out

    @staticmethod
    def of_layer(prefix: bytes, layer: int) -> Key:
        """The key of a layer's block whose last token ends the prefix."""
        return hashlib.sha256(prefix + layer.to_bytes(8, "little")).digest()


class SharedBlocks:
    """Handles by key. It holds no reference: what is gone is found out when it is asked for."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._handles: dict[Key, int] = {}
        self._purge_at = _LEAST

    def take(self, keys: Sequence[Key | None]) -> U64:
        """A reference more for each block that is held: handles, (n,), 0 for one that is not (or has no key)."""
        found = np.array([0 if k is None else self._handles.get(k, 0) for k in keys], np.uint64)
        for i in np.flatnonzero(found).tolist():
            try:
                self._core.retain(found[i : i + 1])
            except StaleHandle:
                key = keys[i]
                assert key is not None
                self._handles.pop(key, None)
                found[i] = 0
        return found

    def add(self, keys: Sequence[Key | None], handles: U64) -> None:
        """Tells which blocks have these keys."""
        self._handles.update(
            (key, handle)
            for key, handle in zip(keys, handles.tolist(), strict=True)
            if key is not None
        )
        if len(self._handles) >= self._purge_at:
            self._purge()

    @property
    def nbytes(self) -> int:
        """What the index takes: table, keys, handles."""
        if not self._handles:
            return 0
        key, handle = next(iter(self._handles.items()))
        each = sys.getsizeof(key) + sys.getsizeof(handle)
        return sys.getsizeof(self._handles) + each * len(self._handles)

    def _purge(self) -> None:
        alive = {k: h for k, h in self._handles.items() if self._core.block(h)[0]}
        self._handles = alive
        self._purge_at = max(_LEAST, 2 * len(alive))


def first_of_equals(keys: Sequence[Key | None]) -> npt.NDArray[np.intp]:
    """(n,): the first index with the same key; its own where there is none."""
    seen: dict[Key, int] = {}
    return np.array(
        [i if key is None else seen.setdefault(key, i) for i, key in enumerate(keys)], np.intp
    )
