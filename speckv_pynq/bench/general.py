"""General-purpose compressors on pieces of a cache: zstd, lz4, blosc2 with shuffle; each on one thread."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speckv_pynq.errors import DependencyMissing, SpeckvError

GENERAL = 7  # cases that general_cases makes


@dataclass(frozen=True)
class General:
    """A compressor over all pieces; encode returns the bytes that it made."""

    name: str
    encode: Callable[[], int]
    decode: Callable[[], None]


def general_cases(pieces: Sequence[np.ndarray]) -> list[General]:
    """Those measured. pieces: C-contiguous float16 arrays. Each must give the same bytes back, or SpeckvError."""
    zstandard, lz4, blosc2 = (_need(name) for name in ("zstandard", "lz4.frame", "blosc2"))
    cases = []
    for level in (1, 3):
        packer, opener = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
        cases.append(_case(f"zstd -{level}", pieces, packer.compress, opener.decompress))
    cases.append(_case("lz4", pieces, lz4.compress, lz4.decompress))
    filters = {"shuffle": blosc2.Filter.SHUFFLE, "bitshuffle": blosc2.Filter.BITSHUFFLE}
    codecs = {"lz4": (blosc2.Codec.LZ4, 1), "zstd": (blosc2.Codec.ZSTD, 1)}
    for filter_name, chosen in filters.items():
        for codec_name, (codec, level) in codecs.items():
            cases.append(
                _blosc2(
                    f"blosc2 {filter_name}+{codec_name}",
                    pieces,
                    {"codec": codec, "clevel": level, "filters": [chosen], "filters_meta": [0]},
                )
            )
    return cases


def _case(
    name: str,
    pieces: Sequence[np.ndarray],
    compress: Callable[[Any], Any],
    decompress: Callable[[Any], Any],
) -> General:
    packed: list[Any] = [compress(piece.data.cast("B")) for piece in pieces]
    if any(decompress(p) != piece.tobytes() for p, piece in zip(packed, pieces, strict=True)):
        raise SpeckvError(f"{name} does not give the same bytes back")

    def encode() -> int:
        packed[:] = [compress(piece.data.cast("B")) for piece in pieces]
        return sum(map(len, packed))

    def decode() -> None:
        for p in packed:
            decompress(p)

    return General(name, encode, decode)


def _blosc2(name: str, pieces: Sequence[np.ndarray], parameters: dict[str, Any]) -> General:
    blosc2 = _need("blosc2")
    cparams = {**parameters, "typesize": 2, "nthreads": 1}
    out = np.empty(max(piece.nbytes for piece in pieces), np.uint8)

    def compress(piece: Any) -> Any:
        return blosc2.compress2(piece, **cparams)

    def decompress(packed: Any) -> Any:
        return blosc2.decompress2(packed, nthreads=1)

    case = _case(name, pieces, compress, decompress)
    if len({piece.nbytes for piece in pieces}) != 1:
        return case
    packed: list[Any] = []

    def encode() -> int:
        packed[:] = [compress(piece.data.cast("B")) for piece in pieces]
        return sum(map(len, packed))

    def decode() -> None:  # into memory that is there already
        for p in packed:
            blosc2.decompress2(p, dst=out, nthreads=1)

    return General(name, encode, decode)


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            f"{name} is needed for comparison: pip install 'speckv-pynq[bench]'"
        ) from error
