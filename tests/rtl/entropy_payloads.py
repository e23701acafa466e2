"""Payloads for the entropy decoder: of real klt records, of random symbols, and damaged ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.codebook import FULL, Tables
from speckv_pynq.reference import BlockInfo, encode_record, rans
from speckv_pynq.reference.klt import PARAMS
from speckv_pynq.spec import DType, Scheme
from tests.blocks import identity, to_bits
from tests.codebooks import Shape, random_codebook, random_tables
from tests.records import header_of, payload_of

SHAPES = [
    Shape(3, 64),
    Shape(2, 80, transforms=2),
    Shape(4, 64, transforms=4, apart=True),
    Shape(1, 96, pairs=0),
]


@dataclass(frozen=True)
class Payload:
    """stream: states and words, maybe more. classes: of each component."""

    stream: bytes
    words: int
    tokens: int
    classes: npt.NDArray[np.uint8]
    what: str


def tables_of(rng: np.random.Generator, classes: int) -> Tables:
    """Random ones, and the extremes: two symbols of which one hardly occurs, all 32 equally often."""
    tables = random_tables(rng, classes)
    frequency, half = tables.frequency.copy(), tables.half.copy()
    for i in range(classes):
        kind = rng.integers(6)
        if kind == 0:
            half[i] = 0
            frequency[i] = 0
            frequency[i, :2] = (FULL - 1, 1) if rng.integers(2) else (1, FULL - 1)
        elif kind == 1:
            half[i] = spec.ENTROPY_SYMBOLS // 2 - 1
            frequency[i] = FULL // spec.ENTROPY_SYMBOLS
    return Tables(frequency, tables.cost, tables.raw_bits, half)


def random_payload(
    rng: np.random.Generator, tables: Tables, components: int | None = None, tokens: int = 0
) -> Payload:
    """Symbols as often as their table says, or each equally often: then more words than a block ever has."""
    tokens = tokens or int(rng.choice(spec.BLOCK_TOKENS_ALLOWED))
    components = components or int(rng.integers(1, 70))
    classes = rng.integers(0, tables.classes, components).astype(np.uint8)
    each = np.repeat(classes, tokens)
    if rng.integers(3):
        symbols = tables.symbol_at[each, rng.integers(0, FULL, len(each))].astype(np.int64)
    else:
        symbols = rng.integers(0, 2 * tables.half[each].astype(np.int64) + 2)
    seeds = rng.integers(0, 1 << 16, spec.ENTROPY_LANES).astype(np.uint16)
    stream, words = rans.encode(tables.frequency[each, symbols], tables.start[each, symbols], seeds)
    return Payload(stream, words, tokens, classes, f"{components} x {tokens} random symbols")


def klt_payloads(seed: int, count: int) -> tuple[Tables, list[Payload]]:
    """Of records that the reference makes with one codebook."""
    shape = SHAPES[seed % len(SHAPES)]
    codebook = random_codebook(seed, shape, units=1)
    unit = codebook.units[0]
    rng = np.random.default_rng(seed)
    payloads = []
    for i in range(count):
        tokens = spec.BLOCK_TOKENS_ALLOWED[i % 3]
        info = BlockInfo(
            tokens,
            shape.heads,
            shape.head_dim,
            DType.FP16,
            shape.kinds,
            codebook_fingerprint=codebook.fingerprint,
        )
        spread = rng.choice((0.01, 0.3, 1.0))
        k, v = (to_bits(spread * rng.standard_normal(info.shape), DType.FP16) for _ in range(2))
        record = encode_record(k, v, Scheme.KLT, codebook=codebook, **identity(info))
        header = header_of(record)
        if header["scheme"] != Scheme.KLT or header["flags"]:
            continue
        words, _, table_set, _ = PARAMS.unpack(header["scheme_params"].tobytes())
        payloads.append(
            Payload(payload_of(record), words, tokens, unit.classes[table_set], f"record {i}")
        )
    assert payloads
    return codebook.tables, payloads


def damaged(rng: np.random.Generator, payload: Payload) -> Payload:
    """A bit of a word or a state is wrong, words are missing or too many, a state is too small."""
    data = bytearray(payload.stream)
    words = payload.words
    kind = int(rng.integers(5))
    if kind == 0 and words:
        data[rans.STATE_BYTES + int(rng.integers(2 * words))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        data[int(rng.integers(rans.STATE_BYTES))] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        words = max(0, words - int(rng.integers(1, 100)))
    elif kind == 3:
        more = int(rng.integers(1, 300))
        data[rans.STATE_BYTES + 2 * words :] = rng.bytes(2 * more)
        words += more
    else:
        for lane in rng.integers(0, spec.ENTROPY_LANES, int(rng.integers(1, 4))).tolist():
            data[4 * lane + 2 : 4 * lane + 4] = b"\0\0"
    return replace(payload, stream=bytes(data), words=words, what=f"{payload.what}, damage {kind}")


def unfinished(rng: np.random.Generator, tables: Tables) -> Payload:
    """Without its last component, whose symbols, the last of each lane, took no words: the states give it away."""
    payload = random_payload(
        rng, tables, components=int(rng.integers(2, 40)), tokens=spec.ENTROPY_LANES
    )
    return replace(payload, classes=payload.classes[:-1], what=f"{payload.what}, the last left out")
