"""Jobs for the bench of kv_compress: descriptors, beats of blocks, and what must come out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo, encode_record
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import FINITE_CASES, REAL_BLOCKS, identity, make_bits, to_bits
from tests.rtl.beats import LINE, completion_of, to_beats

SCHEMES = (Scheme.RAW, Scheme.INT8_DELTA_RLE, Scheme.INT4)
CASES = (*FINITE_CASES, "any")  # the last: values that are not finite, too


@dataclass
class Job:
    """descriptor, beats: as the engine takes them; record, completion: as it must give them."""

    descriptor: int
    beats: list[int]
    record: list[int]
    completion: int
    tags: dict[str, object] = field(default_factory=dict)


def descriptor_of(info: BlockInfo, scheme: int, **fields: int) -> int:
    row = np.zeros(1, spec.DESCRIPTOR)
    for name in BlockInfo.__dataclass_fields__:
        row[name] = getattr(info, name)
    row["scheme"] = scheme
    row["record_capacity"] = info.block_bytes + spec.MIN_SLOT_BYTES
    for name, value in fields.items():
        row[name] = value
    return int.from_bytes(row.tobytes(), "little")


def job_of(info: BlockInfo, scheme: Scheme, arrays: dict[Kind, np.ndarray], **tags: object) -> Job:
    record = encode_record(arrays.get(Kind.KEY), arrays.get(Kind.VALUE), scheme, **identity(info))
    flags = int(
        np.frombuffer(record[: spec.RECORD_HEADER.itemsize], spec.RECORD_HEADER)["flags"][0]
    )
    fallback = bool(flags & Flag.RAW) and scheme != Scheme.RAW
    tags |= {"scheme": scheme.name, "dtype": info.dtype.name, "kinds": info.kinds.name}
    tags |= {"tokens": info.tokens, "head_dim": info.head_dim, "fallback": fallback}
    return Job(
        descriptor_of(info, scheme),
        to_beats(b"".join(arrays[kind].tobytes() for kind in info.kind_list)),
        to_beats(record),
        completion_of(Status.OK, flags, len(record)),
        tags,
    )


def drawn_info(chance: random.Random, scheme: Scheme, most_bytes: int) -> BlockInfo:
    """A shape and an identity, every field over its range, no larger than most_bytes."""
    dtypes = (DType.FP16, DType.BF16) + ((DType.FP32,) if scheme == Scheme.RAW else ())
    while True:
        info = BlockInfo(
            chance.choice(spec.BLOCK_TOKENS_ALLOWED),
            1,
            chance.choice(spec.HEAD_DIM_ALLOWED),
            dtype=chance.choice(dtypes),
            kinds=chance.choice((Kind.BOTH, Kind.BOTH, Kind.KEY, Kind.VALUE)),
            first_layer=chance.getrandbits(16),
            layer_count=chance.randrange(256),
            first_head=chance.getrandbits(16),
            first_position=chance.getrandbits(32),
            layout_fingerprint=chance.getrandbits(64),
            codebook_fingerprint=chance.getrandbits(64),
        )
        heads = most_bytes // info.block_bytes
        if heads:
            names = BlockInfo.__dataclass_fields__
            fields = {name: getattr(info, name) for name in names}
            return BlockInfo(**fields | {"heads": chance.randint(1, heads)})


def random_jobs(
    chance: random.Random, schemes: tuple[Scheme, ...], most_bytes: int
) -> Iterator[Job]:
    while True:
        scheme = chance.choice(schemes)
        info = drawn_info(chance, scheme, most_bytes)
        arrays = {}
        case = ""
        for kind in info.kind_list:
            case = chance.choice(CASES)
            if info.dtype == DType.FP32:
                words = np.frombuffer(chance.randbytes(4 * info.kind_values), np.uint32)
                arrays[kind] = words.reshape(info.shape)
            else:
                arrays[kind] = make_bits(case, chance.getrandbits(32), info.shape, info.dtype)
        yield job_of(info, scheme, arrays, case=case)


def real_blocks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> layers; keys and values float16 (blocks, tokens, heads, head_dim)."""
    with np.load(REAL_BLOCKS) as file:
        return file["layers"], file["key"], file["value"]


def whole_real_jobs(scheme: Scheme) -> list[Job]:
    """The real blocks as they are."""
    jobs = []
    for layer, k, v in zip(*real_blocks(), strict=True):
        info = BlockInfo(*k.shape, first_layer=int(layer))
        arrays = {Kind.KEY: k.view(np.uint16), Kind.VALUE: v.view(np.uint16)}
        jobs.append(job_of(info, scheme, arrays))
    return jobs


def real_jobs(chance: random.Random, schemes: tuple[Scheme, ...]) -> Iterator[Job]:
    """Cuts of the real blocks: any 16 or all 32 tokens, any heads, either element type."""
    layers, key, value = real_blocks()
    while True:
        row = chance.randrange(len(layers))
        tokens = chance.choice((16, 16, 32))
        start = chance.randint(0, key.shape[1] - tokens)
        head = chance.randrange(key.shape[2])
        heads = slice(head, chance.randint(head, key.shape[2] - 1) + 1)
        dtype = chance.choice((DType.FP16, DType.BF16))
        k, v = (
            to_bits(a[row, start : start + tokens, heads].astype(np.float64), dtype)
            for a in (key, value)
        )
        kinds = chance.choice((Kind.BOTH, Kind.BOTH, Kind.KEY, Kind.VALUE))
        info = BlockInfo(
            *k.shape, dtype=dtype, kinds=kinds, first_layer=int(layers[row]), first_position=start
        )
        arrays = {kind: a for kind, a in ((Kind.KEY, k), (Kind.VALUE, v)) if kind in kinds}
        yield job_of(info, chance.choice(schemes), arrays, case="real")


INFO = BlockInfo(16, 2, 64)
SLOT = INFO.block_bytes + spec.MIN_SLOT_BYTES


def refused_jobs(max_block_bytes: int) -> list[Job]:
    """Descriptors that the engine must refuse, with what it must say: each takes no beats."""
    last = Scheme.INT4
    much = 0xFFFF * 16 * 64 * 4
    faults: list[tuple[dict[str, int], Status, int, int]] = [
        ({"scheme": Scheme.KLT}, Status.BAD_SCHEME, Scheme.KLT, last),
        ({"scheme": Scheme.LOSSLESS, "dtype": 9}, Status.BAD_SCHEME, Scheme.LOSSLESS, last),
        ({"scheme": 255}, Status.BAD_SCHEME, 255, last),
        ({"dtype": DType.FP32}, Status.BAD_DTYPE, DType.FP32, DType.BF16),
        ({"dtype": 3, "kinds": 0}, Status.BAD_DTYPE, 3, DType.BF16),
        ({"scheme": Scheme.RAW, "dtype": 3}, Status.BAD_DTYPE, 3, DType.FP32),
        ({"kinds": 0, "tokens": 0}, Status.BAD_SHAPE, 0, Kind.BOTH),
        ({"kinds": 4}, Status.BAD_SHAPE, 4, Kind.BOTH),
        ({"tokens": 48, "head_dim": 0}, Status.BAD_SHAPE, 48, 64),
        ({"tokens": 0x4010}, Status.BAD_SHAPE, 0x4010, 64),
        ({"head_dim": 72, "heads": 0}, Status.BAD_SHAPE, 72, 256),
        ({"heads": 0}, Status.BAD_SHAPE, 0, 1),
        ({"heads": 0xFFFF, "record_offset": 1}, Status.BLOCK_TOO_LARGE, much, max_block_bytes),
        (
            {"heads": 0xFFFF, "tokens": 64, "head_dim": 256},
            Status.BLOCK_TOO_LARGE,
            0xFFFF * 65536 % (1 << 32),
            max_block_bytes,
        ),
        ({"record_offset": 8, "key_offset": 1}, Status.MISALIGNED, 8, LINE),
        ({"key_offset": (1 << 40) + 32}, Status.MISALIGNED, 32, LINE),
        ({"value_offset": 1}, Status.MISALIGNED, 1, LINE),
        ({"record_capacity": SLOT + 63}, Status.MISALIGNED, SLOT + 63, LINE),
        ({"kinds": Kind.KEY, "value_offset": 64}, Status.OUT_OF_RANGE, 64, 0),
        ({"kinds": Kind.VALUE, "key_offset": LINE}, Status.OUT_OF_RANGE, LINE, 0),
        ({"record_capacity": SLOT - LINE}, Status.RECORD_TOO_SMALL, SLOT - LINE, SLOT),
        ({"record_capacity": 0}, Status.RECORD_TOO_SMALL, 0, SLOT),
    ]
    return [
        Job(
            descriptor_of(INFO, fields.pop("scheme", Scheme.INT4), **fields),
            [],
            [],
            completion_of(status, 0, 0, value, limit),
            {"refused": status.name},
        )
        for fields, status, value, limit in faults
    ]
