"""fp16 and bf16 as integers: bit patterns taken apart and put together exactly, no float operation.

A finite value is (-1)**sign * mantissa * 2**(exponent - bias - mantissa_bits). `exponent` is the
stored field, except that subnormals (field 0) count as field 1 without the hidden bit: so one
formula covers both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from speckv_pynq.spec import DType

SIGN_BIT = 0x8000
MAGNITUDE_MASK = 0x7FFF


@dataclass(frozen=True)
class FloatFormat:
    """A 16-bit float format: how many stored mantissa bits, and the exponent bias."""

    mantissa_bits: int
    bias: int

    @property
    def hidden_bit(self) -> int:
        return 1 << self.mantissa_bits

    @property
    def infinity(self) -> int:
        """Bit pattern of +infinity; larger magnitudes are NaN."""
        return MAGNITUDE_MASK >> self.mantissa_bits << self.mantissa_bits

    @property
    def max_finite(self) -> int:
        return self.infinity - 1


FORMATS = {DType.FP16: FloatFormat(10, 15), DType.BF16: FloatFormat(7, 127)}


def is_finite(bits: np.ndarray, fmt: FloatFormat) -> bool:
    """Whether no value of bits (uint16, any shape) is NaN or infinite."""
    return bool((bits & MAGNITUDE_MASK).max(initial=0) < fmt.infinity)


def take_apart(bits: np.ndarray, fmt: FloatFormat) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bits: uint16, finite -> (sign 0 or 1, exponent >= 1, mantissa), each int64 of the same shape."""
    wide = bits.astype(np.int64)
    field = (wide & MAGNITUDE_MASK) >> fmt.mantissa_bits
    mantissa = (wide & (fmt.hidden_bit - 1)) | np.where(field > 0, fmt.hidden_bit, 0)
    return wide >> 15, np.maximum(field, 1), mantissa


def bit_length(n: np.ndarray) -> np.ndarray:
    """Bits needed for each n (int64, >= 0): 0 for 0, 1 for 1, 2 for 2 and 3, ..."""
    out = np.zeros_like(n)
    rest = n.copy()
    for shift in (32, 16, 8, 4, 2, 1):
        big = rest >> shift != 0
        out += np.where(big, shift, 0)
        rest = np.where(big, rest >> shift, rest)
    return out + (rest > 0)


def round_half_even(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator (int64, >= 0 and > 0) to the nearest integer, ties to even."""
    quotient, rest = np.divmod(numerator, denominator)
    up = (2 * rest > denominator) | ((2 * rest == denominator) & (quotient & 1 == 1))
    return quotient + up


def magnitude_from_ratio(
    numerator: np.ndarray, denominator: int, exponent: np.ndarray | int, fmt: FloatFormat
) -> np.ndarray:
    """Nearest magnitude to numerator / denominator * 2**exponent: uint16 bits, sign clear.

    numerator: int64 in [0, 2**24); denominator: 1..255. Ties go to the even pattern, subnormals are
    exact like any other value, and what is above the largest finite value becomes that value.
    """
    numerator = np.asarray(numerator, np.int64)
    exponent = np.broadcast_to(np.asarray(exponent, np.int64), numerator.shape)
    # floor(log2(numerator / denominator)): the difference of bit lengths, or one less.
    top = bit_length(numerator) - denominator.bit_length()
    short = numerator << np.maximum(-top, 0) < np.int64(denominator) << np.maximum(top, 0)
    top = top - short + exponent
    last_bit = np.maximum(top, 1 - fmt.bias) - fmt.mantissa_bits  # weight of the result's last bit
    shift = np.clip(last_bit - exponent, -32, 32)  # 32: far enough for any numerator to become 0
    mantissa = round_half_even(
        numerator << np.maximum(-shift, 0), np.int64(denominator) << np.maximum(shift, 0)
    )
    # The hidden bit, and the carry of a mantissa rounded up, add themselves into the exponent.
    field = last_bit + fmt.mantissa_bits + fmt.bias - 1
    bits = np.minimum((field << fmt.mantissa_bits) + mantissa, fmt.max_finite)
    return np.where(numerator == 0, 0, bits).astype(np.uint16)
