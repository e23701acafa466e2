"""Taking floats apart and rounding back is exact: every code of both formats, every tie."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq.reference.floats import FORMATS, magnitude_from_ratio, take_apart
from speckv_pynq.spec import DType
from tests.blocks import LOSSY_DTYPES, to_floats

EVERY_CODE = np.arange(1 << 16, dtype=np.uint16)


def finite_codes(dtype: DType) -> np.ndarray:
    magnitude = EVERY_CODE & 0x7FFF
    return EVERY_CODE[magnitude < FORMATS[dtype].infinity]


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_every_finite_code_has_the_value_of_its_parts(dtype: DType) -> None:
    codes, fmt = finite_codes(dtype), FORMATS[dtype]
    sign, exponent, mantissa = take_apart(codes, fmt)
    values = (1.0 - 2.0 * sign) * np.ldexp(
        mantissa.astype(np.float64), exponent - fmt.bias - fmt.mantissa_bits
    )
    assert np.array_equal(values, to_floats(codes, dtype))


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_every_finite_code_survives_a_round_trip(dtype: DType) -> None:
    codes, fmt = finite_codes(dtype), FORMATS[dtype]
    _, exponent, mantissa = take_apart(codes, fmt)
    back = magnitude_from_ratio(mantissa, 1, exponent - fmt.bias - fmt.mantissa_bits, fmt)
    assert np.array_equal(back, codes & 0x7FFF)


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_halfway_between_codes_goes_to_the_even_one(dtype: DType) -> None:
    fmt = FORMATS[dtype]
    codes = EVERY_CODE[: fmt.max_finite]  # each with the next one above it
    _, exponent, mantissa = take_apart(codes, fmt)
    halfway = magnitude_from_ratio(
        2 * mantissa + 1, 1, exponent - fmt.bias - fmt.mantissa_bits - 1, fmt
    )
    assert np.array_equal(halfway, codes + (codes & 1))


def nearest_by_search(value: Fraction, dtype: DType) -> int:
    """Independent of the code under test: the nearest of all finite codes, ties to even."""
    fmt, low, high = FORMATS[dtype], 0, FORMATS[dtype].max_finite

    def exact(code: int) -> Fraction:
        return Fraction(float(to_floats(np.array([code], np.uint16), dtype)[0]))

    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if exact(middle) <= value else (low, middle - 1)
    if low == fmt.max_finite:
        return low
    below, above = value - exact(low), exact(low + 1) - value
    return low if below < above or (below == above and low % 2 == 0) else low + 1


@given(
    numerator=st.integers(0, (1 << 24) - 1),
    denominator=st.integers(1, 255),
    exponent=st.integers(-160, 130),
    dtype=st.sampled_from(LOSSY_DTYPES),
)
def test_ratios_round_to_the_nearest_code(
    numerator: int, denominator: int, exponent: int, dtype: DType
) -> None:
    got = magnitude_from_ratio(np.array([numerator]), denominator, exponent, FORMATS[dtype])[0]
    value = Fraction(numerator, denominator) * Fraction(2) ** exponent
    assert int(got) == nearest_by_search(value, dtype)
