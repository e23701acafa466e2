"""Other people's ways to hold a KV cache in fewer bytes, as transformers caches: KIVI, QuantizedCache, zstd.

KIVI and zstd code the same tokens as a SpecKVCache of the same cut: sinks, recent window and the unfinished block
stay exact, and a token is read exactly in the pass that makes it. Their bytes are those of the coded values alone:
no header, no padding. QuantizedCache goes by its own rule: it keeps no sinks, and codes all that it holds anew, from
its own decoded values, whenever 128 exact tokens have gathered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer, QuantizedCache

from speckv_pynq.bench.contenders import Cut, Sizes
from speckv_pynq.errors import DependencyMissing

GROUP = 32  # values that share a scale and a zero point in KIVI
FP16_BYTES = 2
ZSTD_LEVEL = 3

# (keys, values), each (rows, heads, blocks, block_tokens, head_dim) -> the same decoded, and the bytes coded
Coding = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor, int]]


class BlockLayer(DynamicLayer):
    """A layer whose full blocks are replaced by what a coding makes of them, once, after the pass that fills them."""

    def __init__(self, cut: Cut, coding: Coding) -> None:
        super().__init__()
        self._cut, self._coding = cut, coding
        self.blocks = self.record_bytes = 0  # blocks: of each row

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = super().update(key_states, value_states)
        cut = self._cut
        due = max(0, keys.shape[2] - cut.sinks - cut.recent) // cut.block_tokens
        if due > self.blocks:
            first, end = (cut.sinks + n * cut.block_tokens for n in (self.blocks, due))
            parts = [
                x[:, :, first:end].unflatten(2, (-1, cut.block_tokens)) for x in (keys, values)
            ]
            *decoded, nbytes = self._coding(*parts)
            self.keys, self.values = keys.clone(), values.clone()  # this pass reads exact ones
            for held, new in zip((self.keys, self.values), decoded, strict=True):
                held[:, :, first:end] = new.flatten(2, 3)
            self.blocks, self.record_bytes = due, self.record_bytes + nbytes
        return keys, values

    def sizes(self) -> Sizes:
        if self.keys is None:
            return Sizes()
        fp16 = FP16_BYTES * (self.keys.numel() + self.values.numel())
        block_fp16 = fp16 * self.blocks * self._cut.block_tokens // self.keys.shape[2]
        return Sizes(
            fp16=fp16,
            held=self.record_bytes + fp16 - block_fp16,
            block_fp16=block_fp16,
            records=self.record_bytes,
            blocks=self.blocks * len(self.keys),
        )


@dataclass(frozen=True)
class BlockRival:
    """A coding of blocks that is applied as it is counted; nothing is held packed."""

    name: str
    cut: Cut
    coding: Coding
    ours: bool = False

    @property
    def scheme(self) -> str:
        return self.name

    def identity(self) -> str:
        return self.name

    def open(self, model: Any) -> AbstractContextManager[Any]:
        layers = model.config.get_text_config(decoder=True).num_hidden_layers
        return nullcontext(Cache(layers=[BlockLayer(self.cut, self.coding) for _ in range(layers)]))

    def sizes(self, cache: Any) -> Sizes:
        return sum((layer.sizes() for layer in cache.layers), Sizes())


def kivi(bits: int) -> Coding:
    """KIVI, arXiv 2402.02750: keys in groups of 32 tokens of a channel, values in groups of 32 channels of a token.

    Each group has an FP16 scale and zero point, so that a value takes bits + 1 bits.
    """

    def coding(keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        coded_keys, key_bytes = _grouped(keys.transpose(3, 4), bits)
        coded_values, value_bytes = _grouped(values, bits)
        return coded_keys.transpose(3, 4), coded_values, key_bytes + value_bytes

    return coding


def _grouped(x: torch.Tensor, bits: int) -> tuple[torch.Tensor, int]:
    """Asymmetric quantisation of groups along the last dimension, and its bytes."""
    group = math.gcd(GROUP, x.shape[-1])
    parts = x.float().unflatten(-1, (-1, group))
    low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
    top = 2**bits - 1
    zero = low.half().float()
    scale = ((high - low) / top).half().float()
    levels = ((parts - zero) / scale.where(scale > 0, torch.ones_like(scale))).round()
    decoded = levels.clamp(0, top) * scale + zero
    nbytes = (x.numel() * bits + 7) // 8 + 2 * FP16_BYTES * (x.numel() // group)
    return decoded.flatten(-2).to(x.dtype), nbytes


def zstd(level: int = ZSTD_LEVEL) -> Coding:
    """zstd of each block's FP16 (or BF16) bytes, K then V; exact, but for an FP32 model's rounding to FP16."""
    try:
        import zstandard
    except ImportError as error:
        raise DependencyMissing("zstd needs zstandard: pip install 'speckv-pynq[bench]'") from error
    packer = zstandard.ZstdCompressor(level=level)

    def coding(keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        both = torch.stack([keys, values])
        half = both.half() if both.dtype == torch.float32 else both
        blocks = half.permute(1, 3, 0, 4, 2, 5).flatten(0, 1).contiguous()  # as a raw record has it
        pieces = blocks.view(torch.int16).cpu().numpy()
        nbytes = sum(len(packer.compress(piece.tobytes())) for piece in pieces)
        keys, values = half.to(both.dtype)
        return keys, values, nbytes

    return coding


@dataclass(frozen=True)
class Quantized:
    """transformers' QuantizedCache as it comes: groups of 64, 128 exact tokens; axes as its documentation advises.

    Scales and zero points count two bytes each, as in an FP16 model, whatever they are here.
    """

    backend: str  # quanto or hqq
    bits: int
    ours: bool = False

    @property
    def name(self) -> str:
        return f"{self.backend}-int{self.bits}"

    @property
    def scheme(self) -> str:
        return self.name

    def identity(self) -> str:
        return self.name

    @contextmanager
    def open(self, model: Any) -> Iterator[Any]:
        axis = {"quanto": 0, "hqq": 1}[self.backend]
        try:
            cache = QuantizedCache(
                self.backend, model.config, nbits=self.bits, axis_key=axis, axis_value=axis
            )
        except ImportError as error:
            raise DependencyMissing(
                f"{self.backend} is not installed: pip install 'speckv-pynq[rivals]'"
            ) from error
        yield cache

    def sizes(self, cache: Any) -> Sizes:
        return sum((self._layer_sizes(layer) for layer in cache.layers), Sizes())

    def _layer_sizes(self, layer: Any) -> Sizes:
        halves = (layer._quantized_keys, layer._quantized_values)
        records, values = (sum(part) for part in zip(*map(_packed, halves), strict=True))
        exact = layer.keys.numel() + layer.values.numel()
        return Sizes(
            fp16=FP16_BYTES * (values + exact),
            held=records + FP16_BYTES * exact,
            block_fp16=FP16_BYTES * values,
            records=records,
        )


def _packed(part: Any) -> tuple[int, int]:
    """(bytes, values) of a tensor that a backend of QuantizedCache has quantised."""
    if isinstance(part, tuple):  # hqq
        packed, meta = part
        extra = meta["scale"].numel() + meta["zero"].numel()
        return packed.numel() * packed.element_size() + FP16_BYTES * extra, math.prod(meta["shape"])
    packed = part._data._data
    extra = part._scale.numel() + part._shift.numel()
    return packed.numel() * packed.element_size() + FP16_BYTES * extra, part.numel()


def rival(name: str, cut: Cut) -> BlockRival | Quantized:
    """The rival of a name: kivi-intB, quanto-intB, hqq-intB or zstd. DependencyMissing without zstandard."""
    method, _, bits = name.partition("-int")
    if method == "kivi":
        return BlockRival(name, cut, kivi(int(bits)))
    if method == "zstd":
        return BlockRival(name, cut, zstd())
    return Quantized(method, int(bits))
