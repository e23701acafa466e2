"""lossless in csim: fp32, escapes, and payloads that contradict themselves end as in the reference."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo, encode_record, lossless, rans
from speckv_pynq.spec import DType, Flag, Kind, Scheme, Status
from tests.blocks import FINITE_CASES
from tests.hls.kernels import Kernels
from tests.hls.test_agrees_with_reference import assert_agrees
from tests.hls.test_damage import assert_as_reference, mutate
from tests.records import header_of, with_payload
from tests.reference.test_lossless import wide_bits


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("case", [*FINITE_CASES, "any"])
def test_each_kind_of_values(kernels: Kernels, case: str, dtype: DType) -> None:
    for shape in ((32, 3, 80), (16, 1, 64)):
        info = BlockInfo(*shape, dtype=dtype)
        k, v = (wide_bits(case, seed, shape, dtype) for seed in (1, 2))
        record = assert_agrees(kernels, info, k, v, Scheme.LOSSLESS)
        _, got_k, got_v = kernels.decode(record, info)
        assert got_k is not None
        assert got_v is not None
        assert (got_k.tobytes(), got_v.tobytes()) == (k.tobytes(), v.tobytes())


def test_too_many_escapes_make_the_block_raw(kernels: Kernels) -> None:
    """fp32, so that nothing else would: exponents that jump from token to token."""
    info = BlockInfo(64, 8, 256, dtype=DType.FP32, kinds=Kind.KEY)
    k = np.zeros(info.shape, np.uint32)
    k[1::2] = 200 << 23
    record = assert_agrees(kernels, info, k, None, Scheme.LOSSLESS)
    assert header_of(record)["flags"] == Flag.RAW


@pytest.mark.parametrize("dtype", DType)
def test_payloads_of_any_words(kernels: Kernels, dtype: DType) -> None:
    """Random words and escapes behind valid states: most streams run out, or leave something over."""
    info = BlockInfo(16, 1, 80, dtype=dtype, kinds=Kind.KEY)
    ones = wide_bits("normal", 1, info.shape, dtype)
    template = encode_record(ones, None, Scheme.LOSSLESS, dtype=dtype)
    rng = np.random.default_rng(11)
    records = []
    for _ in range(150):
        words, escapes = int(rng.integers(600)), int(rng.choice([0, 3, 90]))
        size = lossless.least_bytes(info.kind_values, dtype) + 2 * words + 2 * escapes
        states = rng.integers(rans.LOW, 1 << 32, spec.ENTROPY_LANES).astype("<u4").tobytes()
        payload = states + rng.bytes(size - len(states))
        if escapes and rng.integers(2):  # tops that values have
            tops = rng.integers(0, 128, escapes).astype("<u2").tobytes()
            payload = payload[: size - len(tops)] + tops
        params = lossless.PARAMS.pack(words, escapes, int(rng.integers(256)), 0)
        params = np.frombuffer(params, np.uint8)
        records.append(with_payload(template, payload, scheme_params=params))
    for decoded, record in zip(kernels.decode_many(records, info), records, strict=True):
        assert_as_reference(decoded, record, info)


def test_mutated_fp32_records(kernels: Kernels) -> None:
    info = BlockInfo(16, 2, 64, dtype=DType.FP32)
    rng = np.random.default_rng(12)
    k, v = (wide_bits("channels", seed, info.shape, DType.FP32) for seed in (1, 2))
    record = encode_record(k, v, Scheme.LOSSLESS, dtype=DType.FP32)
    mutants = [mutate(rng, record) for _ in range(300)]
    found = {
        assert_as_reference(decoded, mutant, info)
        for decoded, mutant in zip(kernels.decode_many(mutants, info), mutants, strict=True)
    }
    assert {Status.OK, Status.BAD_PAYLOAD} <= found
