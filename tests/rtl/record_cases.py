"""Blocks and records for benches of the decompressor: random ones of every shape, and blocks of a real cache."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from speckv_pynq import spec
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import BlockInfo, decode_record
from speckv_pynq.reference.record import check_header, parse_header
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import FINITE_CASES, REAL_BLOCKS, make_bits
from tests.hls.kernels import descriptor
from tests.rtl.beats import LINE, completion_of, to_beats

KINDS = (Kind.KEY, Kind.VALUE, Kind.BOTH)
Block = tuple[BlockInfo, np.ndarray | None, np.ndarray | None]


def small_info(chance: random.Random, dtypes: tuple[DType, ...], most_bytes: int) -> BlockInfo:
    """A shape whose block has at most most_bytes, with an identity of its own."""
    while True:
        info = BlockInfo(
            tokens=chance.choice(spec.BLOCK_TOKENS_ALLOWED),
            heads=chance.choice((1, 1, 2, 3, 5)),
            head_dim=chance.choice(spec.HEAD_DIM_ALLOWED),
            dtype=chance.choice(dtypes),
            kinds=chance.choice(KINDS),
            first_layer=chance.randrange(1 << 16),
            layer_count=chance.randrange(1, 4),
            first_head=chance.randrange(1 << 16),
            first_position=chance.randrange(1 << 32),
            layout_fingerprint=chance.getrandbits(64),
            codebook_fingerprint=chance.choice((0, chance.getrandbits(64))),
        )
        if info.block_bytes <= most_bytes:
            return info


def random_block(chance: random.Random, info: BlockInfo, case: str | None = None) -> Block:
    """case: of tests.blocks; None: one of those with finite values. fp32: any bits."""

    def kind() -> np.ndarray:
        if info.dtype == DType.FP32:
            words = chance.randbytes(4 * info.kind_values)
            return np.frombuffer(words, np.uint32).reshape(info.shape)
        name = case or chance.choice(FINITE_CASES)
        return make_bits(name, chance.getrandbits(32), info.shape, DType(info.dtype))

    k = kind() if Kind.KEY in info.kinds else None
    v = kind() if Kind.VALUE in info.kinds else None
    return info, k, v


def real_blocks(most_bytes: int) -> Iterator[Block]:
    """Blocks of SmolLM2's cache: 16 tokens from any position and any of its heads, all 32, K or V alone."""
    with np.load(REAL_BLOCKS) as file:
        layers, keys, values = (file[name] for name in ("layers", "key", "value"))
    tokens, heads, head_dim = keys.shape[1:]
    cuts = [
        (size, count, start, head, i)
        for size in (16, 32)
        for count in range(1, heads + 1)
        for start in range(tokens - size + 1)
        for head in range(heads - count + 1)
        for i in range(len(layers))
    ]
    for kinds in (Kind.BOTH, Kind.KEY, Kind.VALUE):
        for size, count, start, head, i in cuts:
            info = BlockInfo(
                size,
                count,
                head_dim,
                kinds=kinds,
                first_layer=int(layers[i]),
                first_head=head,
                first_position=start,
            )
            if info.block_bytes > most_bytes:
                continue
            cut = (i, slice(start, start + size), slice(head, head + count))
            k, v = (np.ascontiguousarray(a[cut]).view(np.uint16) for a in (keys, values))
            yield info, k if Kind.KEY in kinds else None, v if Kind.VALUE in kinds else None


@dataclass(frozen=True)
class Case:
    """A descriptor, the beats that come for it, and what the decompressor must answer."""

    descriptor: int
    beats: list[tuple[int, bool]]  # with tlast
    completion: int
    block: list[tuple[int, bool]]

    @property
    def status(self) -> Status:
        return Status(self.completion & 0xFFFF)


def answer(record: bytes, info: BlockInfo) -> tuple[int, bytes]:
    """What the reference makes of these bytes -> (completion, block). klt and lossless payloads are refused."""
    try:
        header = parse_header(record)
        check_header(header, info)
        coded = not header["flags"] & Flag.RAW
        if coded and header["scheme"] > Scheme.INT4:
            return completion_of(
                Status.BAD_SCHEME, value=int(header["scheme"]), limit=Scheme.INT4
            ), b""
        arrays = decode_record(record, info)
    except RecordError as error:
        return completion_of(
            int(error.status or 0), value=error.value or 0, limit=error.limit or 0
        ), b""
    size = LINE + -(-int(header["payload_bytes"]) // LINE) * LINE
    block = b"".join(a.tobytes() for a in arrays if a is not None)
    return completion_of(flags=int(header["flags"]), record_bytes=size), block


def with_last(beats: list[int]) -> list[tuple[int, bool]]:
    return [(beat, i == len(beats) - 1) for i, beat in enumerate(beats)]


def case_of(record: bytes, info: BlockInfo, slack: int = 0, **fields: int) -> Case:
    """record: whole lines. slack: beats that come after it. fields: of the descriptor; with a fault in one of them,
    the answer must be given by replacing `completion`."""
    record = record + bytes(-len(record) % LINE)
    read = record + b"\xa5" * (LINE * slack)
    table = descriptor(info, Scheme.RAW, record_capacity=len(read), **fields)
    completion, block = answer(read, info)
    return Case(
        int.from_bytes(table.tobytes(), "little"),
        with_last(to_beats(read)),
        completion,
        with_last(to_beats(block)),
    )
