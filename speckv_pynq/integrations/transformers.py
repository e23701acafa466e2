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
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers.cache_utils import Cache

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.codec import BlockShape
from speckv_pynq.config import POLICIES, Policy, TierConfig
from speckv_pynq.device import Device, open_device
from speckv_pynq.errors import ConfigError, SpeckvError, UnsupportedLayer
from speckv_pynq.integrations._codebook import codebook_for
from speckv_pynq.integrations._layer import SpecKVLayer
from speckv_pynq.integrations._model import ModelShape, torch_dtype
from speckv_pynq.integrations._span import Span
from speckv_pynq.integrations._store import Store
from speckv_pynq.integrations._workspace import Workspace
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig
from speckv_pynq.tiers import TierManager, TierStats
from speckv_pynq.tiers.sharing import PrefixKeys

__all__ = ["CacheConfig", "CacheStats", "SpecKVCache"]

GIB = 1 << 30
LOSSY = (spec.Scheme.INT8_DELTA_RLE, spec.Scheme.INT4, spec.Scheme.KLT)


@dataclass(frozen=True)
class CacheConfig:
    """How a cache codes and where it keeps blocks.

    scheme: name of a spec.Scheme, lower case. block_tokens: positions a block holds. sinks: first tokens of a row
    that stay exact. recent: newest tokens that stay exact although they would fill a block; attention weighs them
    most. l1_bytes, l2_bytes, l3_bytes: budgets of the tiers; l1_bytes None: everything stays decoded, for a model on
    the CPU as the very tensors that attention reads; l2_bytes None: what staging needs. l3_pool: the memory of L3, by
    name (docs/pools.md). share_equal: blocks whose records are equal are held once (see also `tell_tokens`). policy:
    "dense" (a fixed share stays in L1, right for attention that reads everything), "lru" or "heat" (see
    speckv_pynq.config.TierConfig). device: see
    speckv_pynq.device.open_device. num_engines None: for a model on the CPU as many as torch's threads leave cores
    for, 1 or 2 (those threads spin, and engines beside them are slower than one alone), otherwise the device's own
    choice. block_dtype: "fp16", "bf16" or "fp32"; None: the model's dtype, but fp16 for the blocks of an fp32 model
    under a lossy scheme.
    codebook: for scheme klt: a file of `speckv calibrate`, or what Codebook.load made of it; None: the one that comes
    with the package for this model. Where it joins N layers in a record, tokens of a layer are exact until the last
    of the N has them.
    """

    scheme: str = "int4"
    block_tokens: int = spec.BLOCK_TOKENS
    sinks: int = 4
    recent: int = 32
    l1_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int = 128 * GIB
    l3_pool: str = "device"
    share_equal: bool = False
    policy: Policy = "dense"
    device: str = "csim"
    num_engines: int | None = None
    block_dtype: str | None = None
    codebook: str | Path | Codebook | None = None

    def __post_init__(self) -> None:
        _one_of("scheme", self.scheme, [s.name.lower() for s in spec.Scheme])
        _one_of("block_tokens", self.block_tokens, spec.BLOCK_TOKENS_ALLOWED)
        _one_of("policy", self.policy, POLICIES)
        if self.block_dtype is not None:
            _one_of("block_dtype", self.block_dtype, [d.name.lower() for d in spec.DType])
        if self.codebook is not None and self.scheme != "klt":
            raise ConfigError(f"codebook given, but scheme {self.scheme} takes none: klt does")
        for name in ("sinks", "recent", "l1_bytes", "l2_bytes", "l3_bytes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} {value} is negative")

    def tiers_for(self, block: BlockShape, device: Device, keeps_all: bool) -> TierConfig:
        """The budgets, with those that were left open. keeps_all: L1 is the cache's own tensors."""
        l1_bytes, l2_bytes = 0 if keeps_all else self.l1_bytes, self.l2_bytes
        if l1_bytes is None:
            if device.name != "csim":
                raise ConfigError(
                    f"l1_bytes must be stated: memory of {device.name} is not grown on demand"
                )
            l1_bytes = 1 << 40  # address space; pages appear as blocks come
        if l2_bytes is None:
            l2_bytes = max(16 << 20, 4 * block.slot_bytes)
        return TierConfig(
            l1_bytes, l2_bytes, self.l3_bytes, self.policy, self.share_equal, self.l3_pool
        )

    def engines_for(self, on_cpu: bool) -> int | None:
        """num_engines, chosen where it was left open for a model on the CPU."""
        if self.num_engines is not None or self.device != "csim" or not on_cpu:
            return self.num_engines
        return min(2, max(1, len(os.sched_getaffinity(0)) - torch.get_num_threads()))

    def block_dtype_for(self, model: spec.DType) -> spec.DType:
        """The element type of blocks of a model of that dtype."""
        if self.block_dtype is not None:
            return spec.DType[self.block_dtype.upper()]
        lossy = spec.Scheme[self.scheme.upper()] in LOSSY
        return spec.DType.FP16 if model == spec.DType.FP32 and lossy else model

    def exact_dtype_for(self, model: spec.DType) -> spec.DType:
        """What uncoded tokens are held in: no finer than blocks where those hold an fp32 model's values as fp16."""
        block = self.block_dtype_for(model)
        return block if block == spec.DType.FP16 else model


def _one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} {value!r} is not one of {list(allowed)}")


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds, in bytes counted, not estimated. A ratio with nothing to divide by is NaN.

    tokens: of all rows, padding included; fp16_bytes: what they would take in all layers at two bytes a value.
    ratio_records: FP16 bytes of the coded blocks / bytes of their records. exact_bytes: sinks, recent
    windows and open runs.
    held_bytes: L3 frames, exact_bytes and all metadata; ratio_held = fp16_bytes / held_bytes.
    workspace_bytes: what attention reads, apart, like L1 and L2 (in `tiers`). Caches forked from one another share
    their tiers, and each reports them whole.
    """

    tokens: int
    fp16_bytes: int
    ratio_records: float
    ratio_held: float
    held_bytes: int
    exact_bytes: int
    workspace_bytes: int
    tiers: TierStats


class _Backing:
    """The system below a cache, shared with its forks and siblings; the last of them closes it."""

    def __init__(self, model_or_config: Any, config: CacheConfig) -> None:
        self.shape, self.config = ModelShape.of(model_or_config), config
        device = getattr(model_or_config, "device", None)
        on_cpu = device is None or device.type == "cpu"
        self.keeps_all = config.l1_bytes is None and on_cpu
        self._users = 0
        dtype = config.block_dtype_for(self.shape.dtype)
        codebook = None
        if config.scheme == "klt":
            codebook = codebook_for(model_or_config, self.shape, dtype, config.codebook)
        self.span_layers = 1 if codebook is None else codebook.layer_count
        self.system = self._open(
            dtype, codebook, open_device(config.device, config.engines_for(on_cpu))
        )
        code = 0 if codebook is None else codebook.fingerprint
        salt = f"{self.system.geometry.fingerprint:x} {code:x} {config.scheme}"
        self.prefix_keys = PrefixKeys(salt.encode())

    def _open(
        self, dtype: spec.DType, codebook: Codebook | None, device: Device
    ) -> CXLSpecKVSystem:
        shape, config = self.shape, self.config
        block = BlockShape(
            config.block_tokens, self.span_layers * shape.heads, shape.head_dim, dtype
        )
        try:
            tiers = config.tiers_for(block, device, self.keeps_all)
        except BaseException:
            device.close()
            raise
        fingerprint = shape.fingerprint(dtype, config.block_tokens)
        return CXLSpecKVSystem(
            Geometry(shape.layers, shape.heads, shape.head_dim, dtype, fingerprint),
            SystemConfig(scheme=config.scheme, block_tokens=config.block_tokens),
            codebook,
            device=device,
            tiers=tiers,
        )

    @property
    def tiers(self) -> TierManager:
        return self.system.tiers

    def enter(self) -> None:
        self._users += 1

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            self.system.close()


class SpecKVCache(Cache):
    """A transformers Cache whose full blocks are coded. Make it with `for_model`; `close` or garbage frees it."""

    def __init__(self, backing: _Backing, padding: tuple[int, ...] | None = None) -> None:
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
        config: CacheConfig = CacheConfig(),
        *,
        attention_mask: torch.Tensor | None = None,
    ) -> SpecKVCache:
        """A cache for this model, or for models of this config (whose dtype must then be stated in it).

        attention_mask: as for `set_padding`. UnsupportedLayer when the model has layers other than full attention.
        """
        cache = cls(_Backing(model_or_config, config))
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

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last -tokens_to_remove tokens; a positive number is the length to keep, as before 5.20."""
        self._each("crop", lambda layer: layer.crop(tokens_to_remove))
        self._store.prompt.crop(self.get_seq_length())
        if not self.get_seq_length():
            self._store.padding = None

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i becomes what row beam_idx[i] is."""
        rows = beam_idx.tolist()
        self._each("reorder_cache", lambda layer: layer.reorder_cache(rows))
        self._store.prompt.select(rows)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._each("batch_repeat_interleave", lambda layer: layer.batch_repeat_interleave(repeats))
        self._store.prompt.repeat(repeats)

    def batch_select_indices(self, indices: Any) -> None:
        self._each("batch_select_indices", lambda layer: layer.batch_select_indices(indices))
        self._store.prompt.select(indices)

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
        )

    def close(self) -> None:
        """Frees everything; harmless when repeated. Later calls raise SpeckvError."""
        self._free()

    def __enter__(self) -> SpecKVCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _ratio(full: int, part: int) -> float:
    return full / part if part else math.nan


def _free(backing: _Backing, store: Store, layers: list[SpecKVLayer]) -> None:
    try:
        for layer in layers:
            layer.reset()
    finally:
        store.closed = True
        for workspace in store.workspaces:
            workspace.free()
        backing.leave()
