"""csim makes the reference's klt records, and the reference's blocks of them, for codebooks of every form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import FINITE_CASES, identity, make_bits, to_bits
from tests.codebooks import Shape, random_codebook
from tests.hls.kernels import (
    Kernels,
    block_bytes_of,
    descriptor,
    guarded,
    image_of,
    is_untouched,
    same,
)
from tests.records import header_of, payload_of, with_payload

LAYER = 5
FORMS = [
    Shape(3, 64),
    Shape(2, 80, transforms=2),
    Shape(4, 64, transforms=4, apart=True),
    Shape(4, 128, Kind.KEY, interleaved=True, pairs=16),
    Shape(1, 80, Kind.VALUE),
    Shape(6, 64, transforms=3, layer_count=2),
    Shape(1, 96, pairs=0),
    Shape(1, 256, apart=True, transforms=2, interleaved=True),
]


def info_of(
    shape: Shape, codebook: Codebook, tokens: int, dtype: DType, position: int
) -> BlockInfo:
    return BlockInfo(
        tokens,
        shape.heads,
        shape.head_dim,
        dtype,
        shape.kinds,
        first_layer=LAYER + shape.layer_count,
        layer_count=shape.layer_count,
        first_position=position,
        codebook_fingerprint=codebook.fingerprint,
    )


def normal_block(
    info: BlockInfo, seed: int, scale: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    rng = np.random.default_rng(seed)
    k, v = (to_bits(scale * rng.standard_normal(info.shape), DType(info.dtype)) for _ in range(2))
    return k if Kind.KEY in info.kinds else None, v if Kind.VALUE in info.kinds else None


def assert_agrees(
    kernels: Kernels,
    info: BlockInfo,
    k: np.ndarray | None,
    v: np.ndarray | None,
    codebook: Codebook,
) -> bytes:
    """Encodes with both, compares, decodes with both, compares; returns the record."""
    want = encode_record(k, v, Scheme.KLT, codebook=codebook, **identity(info))
    completion, record = kernels.encode(info, k, v, Scheme.KLT, codebook, 1)
    assert (completion["status"], completion["value"], completion["limit"]) == (Status.OK, 0, 0)
    assert record == want
    done, got_k, got_v = kernels.decode(record, info, codebook, 1)
    assert done["status"] == Status.OK
    want_k, want_v = decode_record(record, info, codebook)
    assert same(got_k, want_k)
    assert same(got_v, want_v)
    return record


@given(
    st.sampled_from(FORMS),
    st.integers(0, 30),
    st.sampled_from(spec.BLOCK_TOKENS_ALLOWED),
    st.sampled_from((DType.FP16, DType.BF16)),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from((0.0, 0.01, 0.3, 1.0, 4.0)),
)
def test_blocks_of_every_form(
    kernels: Kernels,
    shape: Shape,
    seed: int,
    tokens: int,
    dtype: DType,
    position: int,
    spread: float,
) -> None:
    codebook = random_codebook(seed, shape, units=2, first_layer=LAYER)
    info = info_of(shape, codebook, tokens, dtype, position)
    k, v = normal_block(info, seed, spread)
    assert_agrees(kernels, info, k, v, codebook)


@given(st.integers(0, 1 << 20), st.sampled_from((*FINITE_CASES, "any")))
def test_blocks_that_no_codebook_expects(kernels: Kernels, seed: int, case: str) -> None:
    shape = FORMS[seed % len(FORMS)]
    codebook = random_codebook(seed % 7, shape, units=2, first_layer=LAYER)
    info = info_of(shape, codebook, 16, DType(seed % 2), seed)
    k, v = (make_bits(case, seed + i, info.shape, DType(info.dtype)) for i in range(2))
    k, v = (k if Kind.KEY in info.kinds else None), (v if Kind.VALUE in info.kinds else None)
    record = assert_agrees(kernels, info, k, v, codebook)
    raw_allowed = case == "any" or header_of(record)["scheme"] == Scheme.KLT
    assert raw_allowed or header_of(record)["scheme"] == Scheme.INT4
    assert case == "any" or not header_of(record)["flags"] & Flag.RAW


def sample(seed: int = 3) -> tuple[Codebook, BlockInfo, bytes]:
    codebook = random_codebook(seed, FORMS[0], units=2, first_layer=LAYER)
    info = info_of(FORMS[0], codebook, 32, DType.FP16, 77)
    k, v = normal_block(info, seed, 1.0)
    record = encode_record(k, v, Scheme.KLT, codebook=codebook, **identity(info))
    assert header_of(record)["scheme"] == Scheme.KLT
    return codebook, info, record


@given(st.integers(0, 1 << 30), st.integers(1, 4))
def test_damage_behind_the_checksum_is_told_as_the_reference_tells_it(
    kernels: Kernels, seed: int, hits: int
) -> None:
    codebook, info, record = sample(seed % 5)
    rng = np.random.default_rng(seed)
    payload = bytearray(payload_of(record))
    for _ in range(hits):
        at = (
            int(rng.integers(len(payload)))
            if rng.random() < 0.5
            else int(rng.integers(min(140, len(payload))))
        )
        payload[at] ^= 1 << int(rng.integers(8))
    params = header_of(record)["scheme_params"].copy()
    if rng.random() < 0.3:
        params[rng.integers(8)] ^= 1 << rng.integers(8)
    if rng.random() < 0.2:
        payload = payload[: int(rng.integers(len(payload)))]
    bad = with_payload(record, bytes(payload), scheme_params=params)
    done, got_k, got_v = kernels.decode(bad, info, codebook, 1)
    want: tuple[int | None, int, int] = (Status.OK, 0, 0)
    want_k = want_v = None
    try:
        want_k, want_v = decode_record(bad, info, codebook)
    except RecordError as error:
        want = (error.status, error.value, error.limit)
    assert (done["status"], done["value"], done["limit"]) == want
    assert same(got_k, want_k)
    assert same(got_v, want_v)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("codebook_slot", 0),
        ("codebook_slot", 2),
        ("codebook_slot", 0xFFFF),
        ("codebook_fingerprint", 1),
        ("first_layer", LAYER),
        ("layer_count", 2),
        ("heads", 1),
        ("head_dim", 80),
        ("kinds", Kind.KEY),
    ],
)
def test_a_unit_made_for_other_blocks_is_refused(kernels: Kernels, field: str, value: int) -> None:
    codebook, info, _ = sample()
    table = descriptor(info, Scheme.KLT, codebook_slot=1)
    table[field] = value
    if field == "kinds":
        table["value_offset"] = 0
    table["record_capacity"] = 1 << 20
    block, slot = np.zeros(1 << 18, np.uint8), np.zeros(1 << 20, np.uint8)
    status, done = kernels.call("compress", block, slot, table, image=image_of(codebook))
    assert status == Status.OK
    assert done["status"] == Status.CODEBOOK_MISMATCH
    assert not slot.any()


def test_a_sum_of_zero_is_zero_whatever_the_rounding(kernels: Kernels) -> None:
    codebook, info, _ = sample()
    units = []
    for unit in codebook.units:
        analysis, rounding = unit.analysis.copy(), unit.rounding.copy()
        analysis[::2] = 0
        rounding[::2] = 3 << unit.shift[::2].astype(np.int32)
        units.append(replace(unit, analysis=analysis, rounding=rounding))
    codebook = replace(codebook, units=tuple(units))
    info = replace(info, codebook_fingerprint=codebook.fingerprint)
    assert_agrees(kernels, info, *normal_block(info, 3, 1.0), codebook)


def test_without_a_codebook_blocks_and_records_are_refused(kernels: Kernels) -> None:
    _, info, record = sample()
    completion, _ = kernels.encode(info, *normal_block(info, 0, 1.0), Scheme.KLT)
    assert completion["status"] == Status.CODEBOOK_MISMATCH
    done, _, _ = kernels.decode(record, info)
    assert done["status"] == Status.CODEBOOK_MISMATCH


@given(st.integers(0, 1 << 30))
def test_an_image_of_any_bytes_is_read_within_its_bounds(kernels: Kernels, seed: int) -> None:
    """Results mean nothing then; that nothing crashes, and slots stay within bounds, is what is tested."""
    codebook, info, record = sample(seed % 5)
    image, rng = image_of(codebook), np.random.default_rng(seed)
    lines = image[: len(codebook.units) + 1] if rng.random() < 0.5 else image
    for _ in range(rng.integers(1, 40)):
        lines[rng.integers(len(lines)), rng.integers(16, 64)] = rng.integers(256)
    image = image[: rng.integers(2, len(image) + 1)] if rng.random() < 0.3 else image
    table = descriptor(info, Scheme.KLT, codebook_slot=1)
    memory, slot = guarded(int(table["record_capacity"][0]))
    kernels.call("compress", block_bytes_of(*normal_block(info, 0, 1.0)), slot, table, image=image)
    margin = (len(memory) - len(slot)) // 2
    assert is_untouched(memory[:margin])
    assert is_untouched(memory[-margin:])
    table["record_capacity"] = len(record)
    memory, block = guarded(info.block_bytes)
    kernels.call("decompress", np.frombuffer(record, np.uint8), block, table, image=image)
    assert is_untouched(memory[:margin])
    assert is_untouched(memory[-margin:])
