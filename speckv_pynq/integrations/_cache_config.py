"""How a cache codes and where it keeps blocks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.codec import BlockShape
from speckv_pynq.config import POLICIES, PREFETCHES, Policy, Prefetch, TierConfig
from speckv_pynq.device import Device
from speckv_pynq.errors import ConfigError

GIB = 1 << 30
LOSSY = (spec.Scheme.INT8_DELTA_RLE, spec.Scheme.INT4, spec.Scheme.KLT)
Attention = Literal["dense", "sparse"]
SPARSE_BLOCK_TOKENS = 16


@dataclass(frozen=True)
class CacheConfig:
    """How a cache codes and where it keeps blocks.

    scheme: name of a spec.Scheme, lower case. block_tokens: positions a block holds; None: 32, with sparse attention
    16. sinks: first tokens of a row that stay exact. recent: newest tokens that stay exact although they would fill a
    block; attention weighs them most. l1_bytes, l2_bytes, l3_bytes: budgets of the tiers; l1_bytes None: everything
    stays decoded, for a model on the CPU and dense attention as the very tensors that attention reads; l2_bytes None:
    what staging needs. l3_pool: the memory of L3, by name (docs/pools.md). share_equal: blocks whose records are equal
    are held once (see also `tell_tokens`). policy: "dense" (a fixed share stays in L1, right for attention that reads
    everything), "lru" or "heat" (see speckv_pynq.config.TierConfig); None: "dense", with sparse attention "heat".
    prefetch: "dense" brings up in the background what later layers, then the next step, will read, as many blocks as L2
    holds or prefetch_depth says; it has no effect where everything stays decoded, and is not for sparse attention.
    "none": the default, for on csim the kernels take the cores that a model on the CPU runs on.
    device: see speckv_pynq.device.open_device. num_engines None: for a model on the CPU as many as torch's threads
    leave cores for, 1 or 2 (those threads spin, and engines beside them are slower than one alone), otherwise the
    device's own choice. block_dtype: "fp16", "bf16" or "fp32"; None: the model's dtype, but fp16 for the blocks of an
    fp32 model under a lossy scheme.
    codebook: for scheme klt: a file of `speckv calibrate`, or what Codebook.load made of it; None: the one that comes
    with the package for this model. Where it joins N layers in a record, tokens of a layer are exact until the last
    of the N has them.
    attention: "dense": all tokens are read. "sparse": a pass of one token reads, in each layer, only the blocks that
    rank best for its query; passes of several tokens read all (docs/sparse_attention.md). budget: for sparse
    attention, the share of a row's blocks that such a pass reads in a layer, sinks, recent window and open run
    counted, but never fewer than least_blocks. fit_layers: the budget is the mean of the layers, of which those whose
    attention is spread wider, in the last tokens of a longer pass, read more, and others less; False: each layer reads
    as many. ahead: for sparse attention, the blocks that the next layer is likely to choose are brought up before its
    query is there: fewer of them are waited for, but more are brought up in all.
    """

    scheme: str = "int4"
    block_tokens: int = None  # type: ignore[assignment]  # always a number once made
    sinks: int = 4
    recent: int = 32
    l1_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int = 128 * GIB
    l3_pool: str = "device"
    share_equal: bool = False
    policy: Policy = None  # type: ignore[assignment]  # always a name once made
    prefetch: Prefetch = "none"
    prefetch_depth: int | None = None
    device: str = "csim"
    num_engines: int | None = None
    block_dtype: str | None = None
    codebook: str | Path | Codebook | None = None
    attention: Attention = "dense"
    budget: float = 0.25
    least_blocks: int = 16
    fit_layers: bool = True
    ahead: bool = False

    def __post_init__(self) -> None:
        _one_of("attention", self.attention, get_args(Attention))
        if self.block_tokens is None:
            tokens = SPARSE_BLOCK_TOKENS if self.sparse else spec.BLOCK_TOKENS
            object.__setattr__(self, "block_tokens", tokens)
        if self.policy is None:
            object.__setattr__(self, "policy", "heat" if self.sparse else "dense")
        if self.sparse and self.prefetch == "dense":
            raise ConfigError('prefetch "dense" is not for sparse attention: ahead=True is')
        if not 0 < self.budget <= 1:
            raise ConfigError(f"budget {self.budget} is not a share of the blocks: 0 < budget <= 1")
        _one_of("scheme", self.scheme, [s.name.lower() for s in spec.Scheme])
        _one_of("block_tokens", self.block_tokens, spec.BLOCK_TOKENS_ALLOWED)
        _one_of("policy", self.policy, POLICIES)
        _one_of("prefetch", self.prefetch, PREFETCHES)
        if self.block_dtype is not None:
            _one_of("block_dtype", self.block_dtype, [d.name.lower() for d in spec.DType])
        if self.codebook is not None and self.scheme != "klt":
            raise ConfigError(f"codebook given, but scheme {self.scheme} takes none: klt does")
        for name in ("sinks", "recent", "least_blocks", "l1_bytes", "l2_bytes", "l3_bytes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} {value} is negative")

    @property
    def sparse(self) -> bool:
        """Whether a pass of one token reads some blocks only."""
        return self.attention == "sparse"

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
            l1_bytes, l2_bytes, self.l3_bytes, self.policy, self.share_equal, self.l3_pool,
            self.prefetch, self.prefetch_depth,
        )  # fmt: skip

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


DEFAULTS = CacheConfig()
