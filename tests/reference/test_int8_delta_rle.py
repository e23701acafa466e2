"""int8_delta_rle: its error bound, its runs, and every way a payload can contradict itself."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq.errors import RecordError
from speckv_pynq.reference import int8_delta_rle
from speckv_pynq.reference.floats import FORMATS
from speckv_pynq.spec import DType, Kind, Status
from tests.blocks import FINITE_CASES, LOSSY_DTYPES, make_bits, shapes, to_floats

FP16 = FORMATS[DType.FP16]
SHAPE = (16, 1, 64)
VALUES = 16 * 64


@given(shapes(), st.sampled_from(FINITE_CASES), st.integers(0, 999), st.sampled_from(LOSSY_DTYPES))
def test_error_is_within_half_a_step(
    shape: tuple[int, int, int], case: str, seed: int, dtype: DType
) -> None:
    bits, fmt = make_bits(case, seed, shape, dtype), FORMATS[dtype]
    payload, params = int8_delta_rle.encode({Kind.KEY: bits}, fmt)
    back = int8_delta_rle.decode(payload, params, Kind.KEY, shape, fmt)[Kind.KEY]
    x, y = to_floats(bits, dtype), to_floats(back, dtype)
    largest = np.abs(x).max()
    # 2**-9: the reciprocal is cut at 20 bits; then half a unit in the last place of the result.
    last_place = max(largest * 2.0**-fmt.mantissa_bits, 2.0 ** (1 - fmt.bias - fmt.mantissa_bits))
    assert np.abs(x - y).max() <= largest / 127 * (0.5 + 2.0**-9) + last_place / 2


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
@pytest.mark.parametrize("absmax", [0, 1, 2, 63, 127, 0x3FF, 0x400, 0x3C00, 0x5A5A, 0x7BFF])
def test_decode_table_is_the_nearest_value_of_the_exact_ratio(absmax: int, dtype: DType) -> None:
    table = int8_delta_rle.dequantise_table(absmax, FORMATS[dtype])
    codes = np.arange(FORMATS[dtype].max_finite + 1, dtype=np.uint16)
    values = to_floats(codes, dtype)
    largest = Fraction(float(values[absmax]))
    for q, got in enumerate(table.tolist()):
        want = largest * q / 127
        distance = {
            code: abs(Fraction(float(values[code])) - want)
            for code in range(max(got - 1, 0), min(got + 2, codes.size))
        }
        assert distance[got] == min(distance.values())
        ties = [code for code, d in distance.items() if d == distance[got]]
        assert len(ties) == 1 or got % 2 == 0


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 600)), min_size=1, max_size=8))
def test_runs_expand_to_what_went_in_and_are_as_long_as_they_get(
    runs: list[tuple[int, int]],
) -> None:
    values = np.concatenate([np.full(n, value, np.uint8) for value, n in runs])
    pairs = np.frombuffer(int8_delta_rle.run_lengths(values), np.uint8).reshape(-1, 2)
    assert np.array_equal(np.repeat(pairs[:, 1], pairs[:, 0].astype(int) + 1), values)
    same = pairs[1:, 1] == pairs[:-1, 1]
    assert (pairs[:-1, 0][same] == 255).all()


def test_known_bytes() -> None:
    """Worked by hand: 1.0 is 127, 0.5 is 64 (63.5 rounds up), -1.0 is -127, then zeros."""
    bits = np.zeros(SHAPE, np.uint16)
    bits.flat[:3] = 0x3C00, 0x3800, 0xBC00
    payload, params = int8_delta_rle.encode({Kind.VALUE: bits}, FP16)
    assert payload == bytes([0, 127, 0, 193, 0, 65, 0, 127] + [255, 0] * 3 + [251, 0])
    assert params == bytes([0, 0, 0x00, 0x3C, 0, 0, 0, 0])


ONE = 0x3C00
RUNS = b"\xff\x00" * (VALUES // 256)


@pytest.mark.parametrize(
    ("payload", "params", "kinds"),
    [
        (RUNS, (ONE, 0, len(RUNS) + 2), Kind.KEY),  # K's runs longer than the payload
        (RUNS + RUNS, (ONE, ONE, 7), Kind.BOTH),  # half a pair
        (RUNS[:-2], (ONE, 0, len(RUNS) - 2), Kind.KEY),  # too few values
        (RUNS + b"\x00\x00", (ONE, 0, len(RUNS) + 2), Kind.KEY),  # one value too many
        (b"", (ONE, 0, 0), Kind.KEY),  # none at all
        (RUNS, (FP16.infinity, 0, len(RUNS)), Kind.KEY),  # absmax infinite
        (RUNS, (ONE | 0x8000, 0, len(RUNS)), Kind.KEY),  # absmax negative
        (b"\x00\x80\x00\x80" + b"\xff\x00" * 3 + b"\xfd\x00", (ONE, 0, 12), Kind.KEY),  # q = -128
        (RUNS, (ONE, 0, len(RUNS)), Kind.VALUE),  # K's runs, but no K
        (RUNS, (ONE, ONE, 0), Kind.VALUE),  # K's absmax, but no K
        (RUNS, (ONE, ONE, len(RUNS)), Kind.KEY),  # V's absmax, but no V
        (RUNS + RUNS, (ONE, 0, len(RUNS)), Kind.KEY),  # V's runs, but no V
    ],
)
def test_contradictions_are_refused(
    payload: bytes, params: tuple[int, int, int], kinds: Kind
) -> None:
    packed = int8_delta_rle.PARAMS.pack(*params)
    with pytest.raises(RecordError) as caught:
        int8_delta_rle.decode(payload, packed, kinds, SHAPE, FP16)
    assert caught.value.status == Status.BAD_PAYLOAD
    assert str(caught.value.value) in str(caught.value)
