"""Encode and decode speed on real cache data, one core, beside memcpy and general-purpose compressors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from speckv_pynq import spec
from speckv_pynq.bench import klt_parts
from speckv_pynq.bench.general import GENERAL, general_cases
from speckv_pynq.bench.models import Loaded
from speckv_pynq.block import EXACT_SCHEMES
from speckv_pynq.codebook import Codebook
from speckv_pynq.codec import BlockShape, Codec, LoadedCodebook, block_ids
from speckv_pynq.device import Device, open_device
from speckv_pynq.errors import CodebookError
from speckv_pynq.integrations._forward import forward

SINKS = 4
SCHEMES = (*EXACT_SCHEMES, spec.Scheme.INT8_DELTA_RLE, spec.Scheme.INT4)
CASES = 2 + len(SCHEMES) + GENERAL  # memcpy too, and klt
Blocks = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Case:
    """What is timed. encode returns the bytes that it made; both work on the whole data."""

    name: str
    exact: bool
    encode: Callable[[], int]
    decode: Callable[[], None]
    raw_fallbacks: Callable[[], int] = lambda: 0


@dataclass(frozen=True)
class Rate:
    """GB (1e9 bytes) of FP16 a second, medians; ratio: FP16 bytes over encoded bytes."""

    scheme: str
    encode_gb_s: float
    decode_gb_s: float
    ratio: float
    exact: bool
    raw_fallbacks: int


@torch.inference_mode()
def cache_blocks(loaded: Loaded, ids: torch.Tensor, block_tokens: int) -> Blocks:
    """The cache of a text, sinks left out: (layers, n, 2, block_tokens, heads, head_dim) float16, K and V."""
    cache = DynamicCache(config=loaded.model.config)
    forward(loaded.model, ids[None].to(loaded.model.device), cache, last=1)
    layers = []
    for layer in cache.layers:
        states = torch.stack([layer.keys[0], layer.values[0]])  # (2, heads, tokens, head_dim)
        states = states.transpose(1, 2)[:, SINKS:].half().cpu()
        n = states.shape[1] // block_tokens
        states = states[:, : n * block_tokens].unflatten(1, (n, block_tokens)).transpose(0, 1)
        layers.append(states.contiguous().numpy())
    return np.stack(layers)


def measure(
    blocks: Blocks,
    repeats: int,
    codebook: Codebook | None = None,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[Rate], klt_parts.Parts | None]:
    """Rates of memcpy, every scheme and every general-purpose codec installed, interleaved over `repeats` rounds.

    Scheme klt, and what its parts take, only with a codebook.
    """
    with open_device("csim", num_engines=1) as device:
        cases = [_memcpy(blocks), *(_scheme(device, blocks, scheme) for scheme in SCHEMES)]
        klt = None if codebook is None else _klt(device, blocks, codebook)
        if klt is not None:
            cases.append(klt.case("klt"))
        # A layer at a time: far more than a block, which is to their advantage in ratio and in cost per call.
        cases += [Case(c.name, True, c.encode, c.decode) for c in general_cases(list(blocks))]
        rates = _run(cases, blocks.nbytes, repeats, progress)
        return rates, None if klt is None else klt.klt_parts(repeats)


def _run(
    cases: Sequence[Case], nbytes: int, repeats: int, progress: Callable[[], None]
) -> list[Rate]:
    encode_s: dict[str, list[float]] = {case.name: [] for case in cases}
    decode_s: dict[str, list[float]] = {case.name: [] for case in cases}
    encoded: dict[str, int] = {}
    for i in range(repeats + 1):  # the first round touches memory and is not counted
        for case in cases:
            started = time.perf_counter()
            encoded[case.name] = case.encode()
            between = time.perf_counter()
            case.decode()
            ended = time.perf_counter()
            if i:
                encode_s[case.name].append(between - started)
                decode_s[case.name].append(ended - between)
            progress()
    return [
        Rate(
            scheme=case.name,
            encode_gb_s=nbytes / statistics.median(encode_s[case.name]) / 1e9,
            decode_gb_s=nbytes / statistics.median(decode_s[case.name]) / 1e9,
            ratio=nbytes / encoded[case.name],
            exact=case.exact,
            raw_fallbacks=case.raw_fallbacks(),
        )
        for case in cases
    ]


def _memcpy(blocks: Blocks) -> Case:
    copy, back = np.empty_like(blocks), np.empty_like(blocks)

    def encode() -> int:
        np.copyto(copy, blocks)
        return blocks.nbytes

    return Case("memcpy", True, encode, lambda: np.copyto(back, copy))


class _SchemePart:
    """One scheme over some heads of the whole data, in one call: one table of descriptors."""

    def __init__(
        self,
        device: Device,
        blocks: Blocks,
        scheme: spec.Scheme,
        first_head: int = 0,
        codebook: LoadedCodebook | None = None,
    ) -> None:
        layers, n, _, tokens, heads, head_dim = blocks.shape
        count = layers * n
        shape = BlockShape(tokens, heads, head_dim, spec.DType.FP16)
        self._codec = Codec(device, shape, scheme, 0, codebook)
        layer = np.repeat(np.arange(layers) * self._codec.layer_count, n)
        position = np.tile(SINKS + np.arange(n) * tokens, layers)
        self._ids = block_ids(layer, position, first_head, heads)
        self._at = np.arange(count) * shape.block_bytes
        self._slots = np.arange(count) * shape.slot_bytes
        self._sizes = np.zeros(count, np.int64)
        self._flags = np.zeros(count, np.int64)
        self._source = device.allocate(count * shape.block_bytes)
        self._target = device.allocate(count * shape.block_bytes)
        self._records = device.allocate(count * shape.slot_bytes)
        self._source.array.view(np.float16)[:] = blocks.ravel()

    def encode(self) -> int:
        done = self._codec.encode(self._source, self._ids, self._at, self._records, self._slots)
        self._sizes[:], self._flags[:] = done["record_bytes"], done["flags"]
        return int(self._sizes.sum())

    def decode(self) -> None:
        self._codec.decode(
            self._records, self._ids, self._slots, self._sizes, self._target, self._at
        )

    def case(self, name: str) -> Case:
        return Case(name, False, self.encode, self.decode, self.raw_fallbacks)

    def klt_parts(self, repeats: int) -> klt_parts.Parts:
        """Of the records that `encode` made."""
        loaded = self._codec.codebook
        assert loaded is not None
        rows = self._codec.describe(self._ids, self._at, self._slots, self._sizes)
        return klt_parts.measure(
            loaded.codebook, self._records, loaded.buffer, rows, self._target.nbytes, repeats
        )

    def raw_fallbacks(self) -> int:
        if self._codec.scheme == spec.Scheme.RAW:
            return 0
        return int(np.count_nonzero(self._flags & spec.Flag.RAW))


def _klt(device: Device, blocks: Blocks, codebook: Codebook) -> _SchemePart:
    """Blocks as the codebook wants them: of `layer_count` layers each."""
    layers, n, kinds, tokens, heads, head_dim = blocks.shape
    each = codebook.layer_count
    if layers % each:
        raise CodebookError(f"the codebook joins {each} layers, the cache has {layers}")
    joined = blocks.reshape(layers // each, each, n, kinds, tokens, heads, head_dim)
    joined = joined.transpose(0, 2, 3, 4, 1, 5, 6).reshape(
        layers // each, n, kinds, tokens, each * heads, head_dim
    )
    loaded = LoadedCodebook(device, codebook)
    return _SchemePart(device, joined, spec.Scheme.KLT, codebook=loaded)


def _scheme(device: Device, blocks: Blocks, scheme: spec.Scheme) -> Case:
    """Blocks over the kernels' limit come in parts, by head."""
    _, _, _, tokens, heads, head_dim = blocks.shape
    parts = [
        _SchemePart(device, blocks[..., first : first + count, :], scheme, first)
        for first, count in BlockShape(tokens, heads, head_dim, spec.DType.FP16).split()
    ]

    def decode() -> None:
        for part in parts:
            part.decode()

    return Case(
        scheme.name.lower(),
        scheme in EXACT_SCHEMES,
        lambda: sum(part.encode() for part in parts),
        decode,
        lambda: sum(part.raw_fallbacks() for part in parts),
    )
