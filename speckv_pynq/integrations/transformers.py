"""SpecKV as a cache of Hugging Face transformers (5.19 and later).

    cache = SpecKVCache.for_model(model, CacheConfig(scheme="int4"))
    model.generate(**inputs, past_key_values=cache)

Each row of a batch keeps its first tokens (sinks) and its newest ones (the recent window and the unfinished block)
exact; full blocks in between are coded and come back through the tiers. A token is exact in the forward pass that
makes it and until its block is coded (an fp32 model's in fp16, where blocks are fp16); from then on every reader sees
the one decoded value, whatever is cropped, reordered or forked. One cache
serves one thread and inference only.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from speckv_pynq.errors import ConfigError, SpeckvError, UnsupportedLayer
from speckv_pynq.integrations._backing import Backing
from speckv_pynq.integrations._cache_config import DEFAULTS, CacheConfig
from speckv_pynq.integrations._choice import Chooser
from speckv_pynq.integrations._layer import SpecKVLayer
from speckv_pynq.integrations._model import torch_dtype
from speckv_pynq.integrations._span import Span
from speckv_pynq.integrations._sparse import Sparse, SparseStats
from speckv_pynq.integrations._store import State, Store
from speckv_pynq.integrations._workspace import Workspace
from speckv_pynq.system import CXLSpecKVSystem
from speckv_pynq.tiers import TierStats

__all__ = ["CacheConfig", "CacheStats", "SparseStats", "SpecKVCache"]


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds, in bytes counted, not estimated. A ratio with nothing to divide by is NaN.

    tokens: of all rows, padding included; fp16_bytes: what they would take in all layers at two bytes a value.
    ratio_records: FP16 bytes of the coded blocks / bytes of their records. exact_bytes: sinks, recent
    windows and open runs.
    held_bytes: L3 frames, exact_bytes and all metadata, what sparse attention keeps of keys included; ratio_held =
    fp16_bytes / held_bytes. workspace_bytes: what attention reads, apart, like L1 and L2 (in `tiers`). Caches forked
    from one another share their tiers, and each reports them whole.
    """

    tokens: int
    fp16_bytes: int
    ratio_records: float
    ratio_held: float
    held_bytes: int
    exact_bytes: int
    workspace_bytes: int
    tiers: TierStats
    sparse: SparseStats | None = None


class SpecKVCache(Cache):
    """A transformers Cache whose full blocks are coded. Make it with `for_model`; `close` or garbage frees it."""

    def __init__(self, backing: Backing, padding: tuple[int, ...] | None = None) -> None:
        shape, config = backing.shape, backing.config
        private = backing.keeps_all
        each = backing.span_layers
        count = shape.layers // each if private else 1
        heads = each * shape.heads
        self._store = Store(
            backing.tiers,
            [Workspace(heads, shape.head_dim, each, private=private) for _ in range(count)],
            shape.layers,
            each,
            shape.heads,
            shape.head_dim,
            config.block_tokens,
            config.sinks,
            config.recent,
            torch_dtype(shape.dtype),
            torch_dtype(config.exact_dtype_for(shape.dtype)),
            padding,
            backing.prefix_keys,
        )
        if config.sparse:
            self._store.sparse = _sparse(backing, self._store)
        spans = [Span(first, self._store) for first in range(0, shape.layers, each)]
        layers = [SpecKVLayer(i, self._store, spans[i // each]) for i in range(shape.layers)]
        super().__init__(layers=layers)
        self._spans = spans
        self._backing = backing
        backing.enter()
        self._free = weakref.finalize(self, _free, backing, self._store, self.layers)

    @classmethod
    def for_model(
        cls,
        model_or_config: Any,
        config: CacheConfig = DEFAULTS,
        *,
        attention_mask: torch.Tensor | None = None,
    ) -> SpecKVCache:
        """A cache for this model, or for models of this config (whose dtype must then be stated in it).

        attention_mask: as for `set_padding`. UnsupportedLayer when the model has layers other than full attention.
        With sparse attention, which needs the model itself, its attention implementation is set to "speckv_sparse" and
        stays so: with other caches it computes what "sdpa" does. UnsupportedLayer when it cannot be set.
        """
        cache = cls(Backing(model_or_config, config))
        if attention_mask is not None:
            cache.set_padding(attention_mask)
        return cache

    def set_padding(self, attention_mask: torch.Tensor) -> None:
        """Tells where rows begin: (rows, tokens), zero on left padding. Call it before the first tokens.

        Transformers shows the mask to the model, not to the cache. Without it results are right all the same, but
        the sinks of a padded row are coded like its other tokens. It holds until `reset`.
        """
        if self.get_seq_length():
            raise ConfigError(f"set_padding after {self.get_seq_length()} tokens; reset() first")
        if attention_mask.ndim != 2 or not bool(attention_mask.any(1).all()):
            raise ConfigError(
                f"attention_mask {tuple(attention_mask.shape)}: not (rows, tokens), or a row without tokens"
            )
        first = (attention_mask != 0).int().argmax(1)
        self._store.padding = tuple(int(n) for n in first.tolist())

    def tell_tokens(self, input_ids: torch.Tensor) -> None:
        """Tells which tokens come first: (rows, tokens), padding included. Call it before the first of them.

        Blocks that come from the same tokens are then coded and held once, for all rows, forks and siblings of this
        cache: a model's keys and values follow from the tokens before them. Transformers shows tokens to the model, not
        to the cache, so who tells them vouches for them. Tokens beyond those told are coded as ever.
        """
        if self.get_seq_length():
            raise ConfigError(f"tell_tokens after {self.get_seq_length()} tokens; reset() first")
        if input_ids.ndim != 2 or input_ids.is_floating_point():
            raise ConfigError(
                f"input_ids {tuple(input_ids.shape)} {input_ids.dtype}: not (rows, tokens) of integers"
            )
        if self._backing.shape.varies_with_length:
            raise UnsupportedLayer(
                f"RoPE {self._backing.shape.rope}: keys depend on a sequence's length, equal tokens do not make equal "
                "blocks; use share_equal"
            )
        self._store.prompt.tell(input_ids.cpu().numpy())

    @property
    def sparse(self) -> bool:
        """Whether a pass of one token reads some blocks only."""
        return self._backing.config.sparse

    @property
    def codebook_bytes(self) -> int:
        """Bytes of the codebook on the device, 0 without one; forks share it."""
        loaded = self._store.tiers.codec.codebook
        return 0 if loaded is None else loaded.nbytes

    # ---- operations on all layers; one that stops half-way leaves the cache unusable, not wrong

    def reset(self) -> None:
        """Drops all tokens and the padding; the next update is a first one."""
        self._check_open()
        self._store.broken = "reset() stopped half-way"
        for layer in self.layers:
            layer.reset()
        self._store.padding = self._store.broken = None
        self._store.prompt.forget()
        if self._store.sparse is not None:
            self._store.sparse.reset()

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove tokens; a positive number is the length to keep, as before 5.20."""
        self._each("crop", lambda layer: layer.crop(tokens_to_remove))
        self._store.prompt.crop(self.get_seq_length())
        if self._store.sparse is not None:
            self._store.sparse.crop(self.get_seq_length())
        if not self.get_seq_length():
            self._store.padding = None

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i becomes what row beam_idx[i] is."""
        rows = beam_idx.tolist()
        self._each("reorder_cache", lambda layer: layer.reorder_cache(rows))
        self._store.prompt.select(rows)
        if self._store.sparse is not None:
            self._store.sparse.chooser.select(rows)

    def batch_repeat_interleave(self, repeats: int) -> None:
        count = self._rows
        self._each("batch_repeat_interleave", lambda layer: layer.batch_repeat_interleave(repeats))
        self._store.prompt.repeat(repeats)
        if self._store.sparse is not None:
            self._store.sparse.chooser.select(np.repeat(np.arange(count), repeats).tolist())

    def batch_select_indices(self, indices: Any) -> None:
        count = self._rows
        self._each("batch_select_indices", lambda layer: layer.batch_select_indices(indices))
        self._store.prompt.select(indices)
        if self._store.sparse is not None:
            self._store.sparse.chooser.select(torch.arange(count)[indices].tolist())

    @property
    def _rows(self) -> int:
        return self._spans[0].rows or 0

    def _each(self, name: str, change: Callable[[SpecKVLayer], None]) -> None:
        self._check_open()
        self._store.check()
        try:
            for layer in self.layers:
                change(layer)
        except BaseException as error:
            if layer.index >= self._store.span_layers or not isinstance(error, SpeckvError):
                self._store.broken = f"{name} stopped at layer {layer.index}: {error!r}"
            raise

    def _check_open(self) -> None:
        if not self._free.alive:
            raise SpeckvError("the cache is closed")

    # ---- forks, statistics, end

    def fork(self) -> SpecKVCache:
        """Another cache with the same contents: records are shared, exact tokens copied. `copy.deepcopy` does it."""
        self._check_open()
        self._store.check()
        other = type(self)(self._backing, self._store.padding)
        other._store.prompt.same_as(self._store.prompt)
        if self._store.sparse is not None and other._store.sparse is not None:
            other._store.sparse.chooser.same_as(self._store.sparse.chooser)
        for mine, its in zip(self.layers, other.layers, strict=True):
            its.fork_of(mine)
        return other

    def sibling(self) -> SpecKVCache:
        """An empty cache on the same system: budgets are shared, and equal blocks of both are held once."""
        self._check_open()
        return type(self)(self._backing)

    @property
    def system(self) -> CXLSpecKVSystem:
        """What the cache runs on: statistics, blocks by address, leases."""
        return self._backing.system

    def __deepcopy__(self, memo: dict[int, Any]) -> SpecKVCache:
        return self.fork()

    def __copy__(self) -> SpecKVCache:
        return self.fork()

    def __reduce__(self) -> Any:
        raise TypeError("a SpecKVCache owns device memory and cannot be pickled; fork() copies it")

    def stats(self) -> CacheStats:
        """Sizes as they are now."""
        self._check_open()
        shape, tiers = self._backing.shape, self._store.tiers.stats()
        states = [span.state for span in self._spans if span.state is not None]
        rows = states[0].layout.rows if states else 0
        token_bytes = 2 * self._store.span_layers * shape.heads * shape.head_dim * 2
        fp16_bytes = sum(s.layout.rows * s.layout.length for s in states) * token_bytes
        exact_bytes = sum(s.kept.nbytes + s.open.nbytes for s in states)
        own_bytes = sum(s.handles.nbytes for s in states)
        own_bytes += sum({id(s.layout): s.layout.nbytes for s in states}.values())
        if self._store.sparse is not None:
            own_bytes += self._store.sparse.chooser.nbytes
        held_bytes = tiers.l3_bytes + tiers.metadata_bytes + exact_bytes + own_bytes
        workspace_bytes = sum(workspace.nbytes for workspace in self._store.workspaces)
        keeps_all = self._backing.keeps_all
        if keeps_all:
            standing = [w.standing for w in self._store.workspaces if w.standing is not None]
            tiers = replace(
                tiers,
                l1_bytes=workspace_bytes,
                l1_blocks=sum(len(s.handles) for s in standing),
                hits_l1=tiers.hits_l1 + self._store.standing_hits,
            )
        return CacheStats(
            tokens=rows * self.get_seq_length(),
            fp16_bytes=fp16_bytes,
            ratio_records=_ratio(tiers.block_fp16_bytes, tiers.record_bytes),
            ratio_held=_ratio(fp16_bytes, held_bytes if fp16_bytes else 0),
            held_bytes=held_bytes,
            exact_bytes=exact_bytes,
            workspace_bytes=0 if keeps_all else workspace_bytes,
            tiers=tiers,
            sparse=None if self._store.sparse is None else self._store.sparse.counts,
        )

    def close(self) -> None:
        """Frees everything; harmless when repeated. Later calls raise SpeckvError."""
        self._free()

    def __enter__(self) -> SpecKVCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _sparse(backing: Backing, store: Store) -> Sparse:
    shape, config = backing.shape, backing.config
    chooser = Chooser(
        shape.layers,
        shape.heads,
        shape.head_dim,
        config.block_tokens,
        config.recent,
        config.budget,
        config.least_blocks,
        config.fit_layers,
    )
    states: list[State | None] = [None] * shape.layers
    return Sparse(chooser, store.tiers, store.workspaces[0], config.ahead, states)


def _ratio(full: int, part: int) -> float:
    return full / part if part else math.nan


def _free(backing: Backing, store: Store, layers: list[SpecKVLayer]) -> None:
    try:
        for layer in layers:
            layer.reset()
    finally:
        store.closed = True
        for workspace in store.workspaces:
            workspace.free()
        backing.leave()
