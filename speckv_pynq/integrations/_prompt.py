"""The tokens that a cache was told to come first, and the keys of the blocks that they make."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import ConfigError
from speckv_pynq.tiers.sharing import Key, PrefixKeys


class Prompt:
    """tokens: (rows, n), or None: nothing was told. Rows are those of the cache."""

    def __init__(self, keys: PrefixKeys, block_tokens: int) -> None:
        self._keys, self._block_tokens = keys, block_tokens
        self._tokens: npt.NDArray[np.int64] | None = None
        self._prefixes: dict[tuple[int, int, int], bytes] = {}  # row, first, end -> of its tokens

    def tell(self, tokens: npt.NDArray[np.integer]) -> None:
        self._set(np.array(tokens, np.int64))

    def forget(self) -> None:
        self._set(None)

    def crop(self, length: int) -> None:
        """What is cut may come again as other tokens."""
        if self._tokens is not None:
            self._set(self._tokens[:, :length] if length else None)

    def select(self, rows: Any) -> None:
        if self._tokens is not None:
            self._set(self._tokens[np.asarray(rows)])

    def repeat(self, repeats: int) -> None:
        if self._tokens is not None:
            self._set(self._tokens.repeat(repeats, axis=0))

    def same_as(self, other: Prompt) -> None:
        self._set(other._tokens)

    def block_keys(
        self,
        layer: int,
        rows: npt.NDArray[np.integer],
        starts: npt.NDArray[np.integer],
        padding: npt.NDArray[np.integer],
    ) -> list[Key | None] | None:
        """Keys of blocks that begin at `starts` of `rows`, (n,) each, behind so much padding; None where not told."""
        if self._tokens is None:
            return None
        count, told = self._tokens.shape
        if rows.max(initial=0) >= count:
            raise ConfigError(f"tell_tokens was told {count} rows, the model runs {rows.max() + 1}")
        ends = starts + self._block_tokens
        out: list[Key | None] = []
        for row, first, end in zip(rows.tolist(), padding.tolist(), ends.tolist(), strict=True):
            # A block that holds padding is a row's own.
            whole = end <= told and end - self._block_tokens >= first
            out.append(self._key(layer, row, first, end) if whole else None)
        return out

    def _key(self, layer: int, row: int, first: int, end: int) -> Key:
        prefix = self._prefixes.get((row, first, end))
        if prefix is None:
            assert self._tokens is not None
            tokens = self._tokens[row, first:]
            ends = range(end, self._tokens.shape[1] + 1, self._block_tokens)
            chain = self._keys.chain(tokens, [e - first for e in ends])
            self._prefixes.update(((row, first, e), k) for e, k in zip(ends, chain, strict=True))
            prefix = self._prefixes[row, first, end]
        return self._keys.of_layer(prefix, layer)

    def _set(self, tokens: npt.NDArray[np.int64] | None) -> None:
        self._tokens = tokens
        self._prefixes = {}
