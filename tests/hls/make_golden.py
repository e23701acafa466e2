"""Golden records: python -m tests.hls.make_golden writes tests/hls/golden; --check only compares.

Records of every scheme, made by the reference: files that other languages and boards can be tested on,
and that make a change of the format visible in review. Blocks come from splitmix64 and integer steps
alone, so no NumPy version changes them; two are real (tests/data).

golden/records.bin holds the records one behind the other; golden/manifest.json says for each what block
it was made of (style, seed), what a reader must expect, where the record lies, and the SHA-256 of the
decoded K, then V. golden/codebook.safetensors is the codebook of the records of scheme klt; made once, because
linear algebra differs in its last bits from machine to machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.reference.record import SCHEMES
from speckv_pynq.spec import DType, Kind, Scheme
from tests.blocks import REAL_BLOCKS, identity
from tests.codebooks import Shape, random_codebook

FOLDER = Path(__file__).parent / "golden"
RECORDS, MANIFEST = FOLDER / "records.bin", FOLDER / "manifest.json"
CODEBOOK = FOLDER / "codebook.safetensors"
STYLES = ("zeros", "runs", "normal", "wide", "any")


def splitmix64(seed: int, count: int) -> np.ndarray:
    """(count,) uint64: the generator's outputs for a seed."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def golden_bits(style: str, seed: int, shape: tuple[int, int, int], dtype: DType) -> np.ndarray:
    """uint16 bit patterns (tokens, heads, head_dim) of one kind."""
    words = splitmix64(seed << 32, int(np.prod(shape))).reshape(shape)
    bits, extra = words.astype(np.uint16), (words >> np.uint64(32)).astype(np.uint16)
    mantissa_bits, bias = {DType.FP16: (10, 15), DType.BF16: (7, 127)}[dtype]
    exponents = {"normal": 4, "runs": 4, "wide": 28}.get(style, 0)
    if style == "zeros":
        return bits & 0x8000
    if style == "any":
        return bits
    field = bias - exponents // 2 + extra % exponents
    bits = (bits & (0x8000 | (1 << mantissa_bits) - 1)) | (field << mantissa_bits)
    if style == "runs":  # every value 24 times
        bits = np.repeat(bits.reshape(-1)[::24], 24)[: bits.size].reshape(shape)
    return bits.astype(np.uint16)


def blocks() -> Iterator[tuple[str, int, BlockInfo]]:
    """(style, seed, info) of every golden block."""
    shapes = [(16, 1, 64), (16, 1, 80), (32, 1, 64), (16, 2, 64), (16, 1, 128)]
    kinds = (Kind.BOTH, Kind.KEY, Kind.BOTH, Kind.VALUE, Kind.BOTH)
    for i, style in enumerate(STYLES):
        for j, dtype in enumerate((DType.FP16, DType.BF16)):
            n = 2 * i + j
            info = BlockInfo(
                *shapes[(i + j) % len(shapes)],
                dtype=dtype,
                kinds=kinds[(i + 2 * j) % len(kinds)],
                first_layer=n,
                first_head=n % 3,
                first_position=32 * n + 4,
                layout_fingerprint=0x0123456789ABCDEF + n,
            )
            yield style, n + 1, info
    for row in (0, 5):
        yield "smollm2", row, BlockInfo(32, 3, 64, first_layer=row, first_position=448)


def arrays_of(style: str, seed: int, info: BlockInfo) -> tuple[np.ndarray | None, ...]:
    """(k, v) bit patterns, None for a kind that the block lacks."""
    if style == "smollm2":
        with np.load(REAL_BLOCKS) as real:
            return tuple(real[name][seed].view(np.uint16) for name in ("key", "value"))
    made = {
        kind: golden_bits(style, 2 * seed + i, info.shape, DType(info.dtype))
        for i, kind in enumerate((Kind.KEY, Kind.VALUE))
    }
    return tuple(bits if kind in info.kinds else None for kind, bits in made.items())


def codebook() -> Codebook:
    """For blocks of one head of 64, layers 2 to 5."""
    if not CODEBOOK.exists():
        random_codebook(11, Shape(1, 64), units=4, scale=0.5, first_layer=2).save(CODEBOOK)
    return Codebook.load(CODEBOOK)


def klt_blocks() -> Iterator[tuple[str, int, BlockInfo]]:
    """The same for scheme klt: what the codebook expects, and what goes to int4 or stays raw."""
    fingerprint = codebook().fingerprint
    for n, (style, tokens) in enumerate(
        [("normal", 16), ("normal", 32), ("wide", 64), ("any", 16)]
    ):
        info = BlockInfo(
            *(tokens, 1, 64),
            dtype=(DType.FP16, DType.BF16)[n % 2],
            first_layer=2 + n,
            first_position=1000 * n + 7,
            codebook_fingerprint=fingerprint,
        )
        yield style, 40 + n, info


def digest(k: np.ndarray | None, v: np.ndarray | None) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for a in (k, v) if a is not None)).hexdigest()


def build() -> tuple[bytes, str]:
    """(records.bin, manifest.json)."""
    records, entries = b"", []
    # The bytes of other blocks would only be repeated by scheme raw.
    cases = [
        (*block, scheme)
        for block in blocks()
        for scheme in SCHEMES
        if scheme != Scheme.RAW or block[0] == "any"
    ]
    for chosen, book in ((cases, None), ([(*b, Scheme.KLT) for b in klt_blocks()], codebook())):
        for style, seed, info, scheme in chosen:
            k, v = arrays_of(style, seed, info)
            record = encode_record(k, v, scheme, codebook=book, **identity(info))
            entries.append(
                {
                    "style": style,
                    "seed": seed,
                    "scheme": scheme.name.lower(),
                    "expect": {name: int(value) for name, value in info.__dict__.items()},
                    "offset": len(records),
                    "bytes": len(record),
                    "decoded_sha256": digest(*decode_record(record, info, book)),
                }
            )
            records += record
    manifest = {"format_version": spec.FORMAT_VERSION, "records": entries}
    return records, json.dumps(manifest, indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    records, manifest = build()
    if check:
        return int(RECORDS.read_bytes() != records or MANIFEST.read_text() != manifest)
    FOLDER.mkdir(exist_ok=True)
    RECORDS.write_bytes(records)
    MANIFEST.write_text(manifest)
    print(f"{len(records)} bytes of records, {len(manifest)} of manifest")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
