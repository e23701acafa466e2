"""Caches whose records join the blocks of several layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from speckv_pynq import spec
from speckv_pynq.block import BlockShape
from speckv_pynq.codebook import Codebook
from speckv_pynq.device import Device
from speckv_pynq.integrations import transformers
from speckv_pynq.integrations._backing import Backing
from speckv_pynq.integrations._rope import Rope
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig
from tests.codebooks import Shape, random_codebook


def codebook(config: Any, group: int, seed: int = 0) -> Codebook:
    """Random, for values of standard deviation 1, but with this model's geometry and RoPE."""
    layers, heads = config.num_hidden_layers, group * config.num_key_value_heads
    made = random_codebook(
        seed, Shape(heads, config.head_dim, layer_count=group), units=layers // group
    )
    rope = Rope.of(config)
    units = tuple(
        dataclasses.replace(unit, turns=rope.turns, interleaved=rope.interleaved)
        for unit in made.units
    )
    return Codebook(units, made.tables)


class _RawBacking(Backing):
    """Groups layers as its codebook says, but keeps blocks as they are."""

    def _open(
        self, dtype: spec.DType, codebook: Codebook | None, device: Device
    ) -> CXLSpecKVSystem:
        shape, config = self.shape, self.config
        heads = self.span_layers * shape.heads
        block = BlockShape(config.block_tokens, heads, shape.head_dim, dtype)
        return CXLSpecKVSystem(
            Geometry(shape.layers, heads, shape.head_dim, dtype),
            SystemConfig(scheme="raw", block_tokens=config.block_tokens),
            device=device,
            tiers=config.tiers_for(block, device, self.keeps_all),
        )


def raw_groups(
    patch: pytest.MonkeyPatch, made: Any, group: int, mask: Any = None, **settings: Any
) -> SpecKVCache:
    """An exact cache for fp32 models whose records join `group` layers."""
    config = getattr(made, "config", made)
    patch.setattr(transformers, "Backing", _RawBacking)
    chosen = CacheConfig("klt", block_dtype="fp32", codebook=codebook(config, group), **settings)
    return SpecKVCache.for_model(made, chosen, attention_mask=mask)
