"""What a calibration is asked for, and how its units and transforms divide a model's channels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import torch

from speckv_pynq import spec
from speckv_pynq.codebook import channel_order
from speckv_pynq.errors import ConfigError

SCOPES = "head, layer, all or group:N"
KINDS = 2  # K and V
MB = 1_000_000


@dataclass(frozen=True)
class Settings:
    """How a codebook is made; the first three are what people choose, the others are for ablations.

    scope: one of SCOPES. One of target_dppl (percent), target_ratio and step must be set; step is in square roots
    of nats, of the Fisher metric. max_bytes: of the file; ranks are cut to fit. damping: of the Fisher matrix.
    dead_zone: half the width of the interval that is coded as 0, in steps (0.5: plain rounding). fisher_share: of the
    text that is run backward too. sample_tokens: kept to fit tables and synthesis.
    """

    scope: str = "layer"
    target_dppl: float | None = None
    target_ratio: float | None = None
    step: float | None = None
    max_bytes: int | None = None
    damping: float = 0.1
    dead_zone: float = 0.6
    sinks: int = 4
    recent: int = 32
    block_tokens: int = spec.BLOCK_TOKENS
    apart: bool = False
    fisher: bool = True
    unrotate: bool = True
    exclude_sinks: bool = True
    fit_synthesis: bool = True
    table_sets: int = spec.KLT_TABLE_SETS
    classes: int = 64
    fisher_share: float = 0.5
    sample_tokens: int = 24_576
    batch_tokens: int = 2_048
    seed: int = 0

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.target_dppl, self.target_ratio, self.step)) != 1:
            raise ConfigError("one of target_dppl, target_ratio and step must be given")
        for name in ("target_dppl", "target_ratio", "step", "damping"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} {value} <= 0")
        if not 0.5 <= self.dead_zone < 1:
            raise ConfigError(f"dead_zone {self.dead_zone} is not within 0.5..1")
        if not 0 < self.fisher_share <= 1:
            raise ConfigError(f"fisher_share {self.fisher_share} is not within 0..1")
        if not 1 <= self.table_sets <= spec.KLT_TABLE_SETS:
            raise ConfigError(
                f"table_sets {self.table_sets} is not within 1..{spec.KLT_TABLE_SETS}"
            )
        if self.block_tokens not in spec.BLOCK_TOKENS_ALLOWED:
            raise ConfigError(
                f"block_tokens {self.block_tokens}: not of {spec.BLOCK_TOKENS_ALLOWED}"
            )

    @property
    def byte_limit(self) -> int:
        """max_bytes, or what is asked of SmolLM2's codebooks: the limit that scope has by default."""
        if self.max_bytes is not None:
            return self.max_bytes
        return {"head": 12, "layer": 12, "all": 128}.get(self.scope, 64) * MB


@dataclass(frozen=True)
class Layout:
    """Units of `group` layers, each with `transforms` transforms, of a model's K and V.

    Vectors are (units * transforms, tokens, each): what one transform sees, in the order that codebook.Unit states.
    """

    layers: int
    heads: int
    head_dim: int
    group: int
    transforms: int
    apart: bool

    @staticmethod
    def of(scope: str, layers: int, heads: int, head_dim: int, apart: bool = False) -> Layout:
        """From a scope as in SCOPES; heads: KV heads of a layer."""
        found = re.fullmatch(r"group:([1-9]\d{0,2})", scope)
        if found is None and scope not in ("head", "layer", "all"):
            raise ConfigError(f"scope {scope!r}: not one of {SCOPES}")
        group = int(found[1]) if found else layers if scope == "all" else 1
        if layers % group:
            raise ConfigError(
                f"scope {scope}: the model's {layers} layers are no multiple of {group}"
            )
        transforms = heads if scope == "head" else 1
        return Layout(layers, heads, head_dim, group, transforms * (KINDS if apart else 1), apart)

    @property
    def units(self) -> int:
        return self.layers // self.group

    @property
    def unit_heads(self) -> int:
        return self.group * self.heads

    @property
    def inputs(self) -> int:
        """Channels of a unit."""
        return KINDS * self.unit_heads * self.head_dim

    @property
    def each(self) -> int:
        """Channels of a transform."""
        return self.inputs // self.transforms

    @property
    def token_bytes(self) -> int:
        """FP16 bytes of a token in all layers."""
        return 2 * self.units * self.inputs

    @cached_property
    def order(self) -> torch.Tensor:
        """(inputs,) int64: codebook.Unit.order."""
        found = channel_order(KINDS, self.unit_heads, self.head_dim, self.transforms, self.apart)
        return torch.from_numpy(found)

    def gather(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """(units * transforms, tokens, each) of keys and values (layers, tokens, heads, head_dim)."""
        tokens = keys.shape[1]
        both = torch.stack([keys, values])  # kind, layer, token, head, element
        both = both.reshape(KINDS, self.units, self.group, tokens, self.heads, self.head_dim)
        channels = both.permute(1, 3, 0, 2, 4, 5).reshape(self.units, tokens, self.inputs)
        channels = channels[..., self.order.to(keys.device)]
        parts = channels.reshape(self.units, tokens, self.transforms, self.each)
        return parts.transpose(1, 2).reshape(-1, tokens, self.each)

    def scatter(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The inverse of `gather`."""
        tokens = vectors.shape[1]
        parts = vectors.reshape(self.units, self.transforms, tokens, self.each).transpose(1, 2)
        channels = torch.empty(
            self.units, tokens, self.inputs, dtype=vectors.dtype, device=vectors.device
        )
        channels[..., self.order.to(vectors.device)] = parts.reshape(
            self.units, tokens, self.inputs
        )
        both = channels.reshape(self.units, tokens, KINDS, self.group, self.heads, self.head_dim)
        both = both.permute(2, 0, 3, 1, 4, 5).reshape(
            KINDS, self.layers, tokens, self.heads, self.head_dim
        )
        return both[0], both[1]

    def of_channels(self, natural: torch.Tensor) -> torch.Tensor:
        """(units * transforms, each) of figures (kinds, layers, heads, head_dim) that stand for all tokens."""
        return self.gather(natural[0][:, None], natural[1][:, None])[:, 0]
