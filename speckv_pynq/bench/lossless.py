"""What scheme lossless reaches on a real cache, and the entropies that bound it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from speckv_pynq import spec
from speckv_pynq.bench.codec import SINKS
from speckv_pynq.bench.models import Loaded
from speckv_pynq.codec import BlockShape, Codec, block_ids
from speckv_pynq.device import open_device
from speckv_pynq.integrations._forward import forward

Bits = npt.NDArray[np.unsignedinteger[Any]]
_INTEGERS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32)}


@torch.inference_mode()
def cache_bits(loaded: Loaded, ids: torch.Tensor, block_tokens: int) -> Bits:
    """The cache of a text in the model's own dtype, sinks left out, as bit patterns.

    (layers, n, 2, block_tokens, heads, head_dim) uint16, or uint32 of an fp32 model; K and V.
    """
    cache = DynamicCache(config=loaded.model.config)
    forward(loaded.model, ids[None].to(loaded.model.device), cache, last=1)
    layers = []
    for layer in cache.layers:
        states = torch.stack([layer.keys[0], layer.values[0]]).cpu()  # (2, heads, tokens, head_dim)
        states = states.transpose(1, 2)[:, SINKS:].contiguous()
        signed, unsigned = _INTEGERS[states.element_size()]
        n = states.shape[1] // block_tokens
        states = states[:, : n * block_tokens].view(signed)
        states = states.unflatten(1, (n, block_tokens)).transpose(0, 1)
        layers.append(states.contiguous().numpy().view(unsigned))
    return np.stack(layers)


@dataclass(frozen=True)
class Floats:
    """Where a dtype has what."""

    mantissa_bits: int
    bias: int
    dtype: spec.DType


FLOATS = {
    "fp16": Floats(10, 15, spec.DType.FP16),
    "bf16": Floats(7, 127, spec.DType.BF16),
}


def records_bytes(bits: Bits, dtype: spec.DType) -> int:
    """Bytes of lossless records of all blocks of cache_bits."""
    layers, n, _, tokens, heads, head_dim = bits.shape
    shape, count = BlockShape(tokens, heads, head_dim, dtype), layers * n
    ids = block_ids(
        np.repeat(np.arange(layers), n), np.tile(np.arange(n) * tokens, layers), 0, heads
    )
    with open_device("csim", num_engines=1) as device:
        source = device.allocate(bits.nbytes)
        records = device.allocate(count * shape.slot_bytes)
        source.array.view(bits.dtype)[:] = bits.ravel()
        codec = Codec(device, shape, spec.Scheme.LOSSLESS)
        at, slots = np.arange(count) * shape.block_bytes, np.arange(count) * shape.slot_bytes
        return int(codec.encode(source, ids, at, records, slots)["record_bytes"].sum())


def zstd_bytes(bits: Bits, level: int = 19) -> int | None:
    """A layer at a time; low and high bytes apart, which suits zstd best. None: not installed."""
    try:
        import zstandard
    except ImportError:
        return None
    coder = zstandard.ZstdCompressor(level=level)
    planes = [layer.reshape(-1, 1).view(np.uint8).T.tobytes() for layer in bits]
    return sum(len(coder.compress(plane)) for plane in planes)


def _conditional(symbol: np.ndarray, context: np.ndarray) -> float:
    """Entropy of symbol given context, bits; both counted on the data itself, which flatters."""
    pairs = np.unique(context.astype(np.int64) << 32 | symbol, return_counts=True)[1]
    alone = np.unique(context, return_counts=True)[1]
    total = (alone * np.log2(alone)).sum() - (pairs * np.log2(pairs)).sum()
    return float(total / symbol.size)


def counted(bits: Bits, floats: Floats) -> dict[str, float]:
    """Bits a value of models that count: sign and exponent given a context, the mantissa as it is."""
    top = (bits >> floats.mantissa_bits).astype(np.int64)
    before, now = top[:, :, :, :-1], top[:, :, :, 1:]
    loudness = (top & 0xFF if floats.bias == 127 else top & 0x1F).mean(axis=3, keepdims=True)
    level = np.broadcast_to(np.round(2 * loudness).astype(np.int64), now.shape)
    layer = np.arange(len(bits)).reshape(-1, 1, 1, 1, 1, 1)
    return {
        "each value alone": _conditional(top, top * 0) + floats.mantissa_bits,
        "given the token before": _conditional(now, before) + floats.mantissa_bits,
        "given the token before and the channel's mean exponent in the block (not counted)": (
            _conditional(now, before << 12 | level) + floats.mantissa_bits
        ),
        "the same, tables of each layer": (
            _conditional(now, (before << 12 | level) << 8 | layer + 0 * now) + floats.mantissa_bits
        ),
    }


def _rows(bits: Bits, floats: Floats, inv_freq: npt.NDArray[Any] | None) -> tuple[Any, Any]:
    """Per layer (tokens, 2 heads head_dim): values as float64 with keys un-rotated, and log2 of their last place."""
    layers = bits.shape[0]
    if floats.bias == 15:
        values = bits.view(np.float16).astype(np.float64)
    else:
        values = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    magnitude = (bits & 0x7FFF) >> floats.mantissa_bits
    place = np.maximum(magnitude, 1).astype(np.int64) - floats.bias - floats.mantissa_bits

    def tokens_first(a: np.ndarray) -> np.ndarray:
        return np.moveaxis(a, 2, 3).reshape(layers, -1, 2, *bits.shape[4:])

    values, place = tokens_first(values), tokens_first(place)
    if inv_freq is not None:
        angle = (SINKS + np.arange(values.shape[1]))[:, None] * inv_freq
        c, s = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
        a, b = np.split(values[:, :, 0], 2, axis=-1)
        values[:, :, 0] = np.concatenate([a * c + b * s, b * c - a * s], axis=-1)
    flat = (layers, values.shape[1], -1)
    return values.reshape(flat), place.reshape(flat)


def _density_bits(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """-log2 of the density of test, a histogram of train; both have mean 0 and deviation 1."""
    edges = np.linspace(-7, 7, 561)
    counts = np.histogram(np.arcsinh(2 * train), edges)[0] + 0.5
    density = counts / counts.sum() / np.diff(edges)
    at = np.clip(np.searchsorted(edges, np.arcsinh(2 * test)) - 1, 0, len(density) - 1)
    return -np.log2(density[at] * 2 / np.sqrt(1 + 4 * test**2))


def predicted(
    bits: Bits, floats: Floats, inv_freq: npt.NDArray[Any] | None, train: float = 0.75
) -> dict[str, float]:
    """Bits a value of predictions fitted on the first tokens and measured on the others; ideal arithmetic.

    These need a codebook of the model: what a channel's mean, the channels before it in the token, and the layer below
    say linearly; the error's density is counted over all channels of a layer.
    """
    values, place = _rows(bits, floats, inv_freq)
    cut = int(values.shape[1] * train)
    out: dict[str, list[float]] = {}
    for layer, (y, last) in enumerate(zip(values, place, strict=True)):
        below = [("", np.ones((len(y), 1)))]
        if layer:
            below.append((" and the layer below", np.c_[values[layer - 1], np.ones(len(y))]))
        for name, known in below:
            gram = known[:cut].T @ known[:cut]
            gram += 1e-3 * np.diag(np.diag(gram))
            error = y - known @ np.linalg.solve(gram, known[:cut].T @ y[:cut])
            covariance = error[:cut].T @ error[:cut] / cut
            covariance += 1e-4 * np.diag(np.diag(covariance))
            for what, root in (
                ("mean", np.diag(np.sqrt(np.diag(covariance)))),
                ("mean, channels before", np.linalg.cholesky(covariance)),
            ):
                z = np.linalg.solve(root, error.T).T
                cost = _density_bits(z[:cut], z[cut:]).mean() + np.log2(np.diag(root)).mean()
                out.setdefault(what + name, []).append(float(cost - last[cut:].mean()))
    return {name: float(np.mean(costs)) for name, costs in out.items()}


def inverse_frequencies(loaded: Loaded, head_dim: int) -> npt.NDArray[Any] | None:
    """(head_dim / 2,) of a model that rotates whole heads by halves, unscaled; None: keys stay as they are."""
    rotary = getattr(getattr(loaded.model, "model", None), "rotary_emb", None)
    found = getattr(rotary, "inv_freq", None)
    if found is None or found.numel() != head_dim // 2:
        return None
    return np.asarray(found.detach().cpu().double().numpy())
