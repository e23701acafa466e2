"""CRC32C: published vectors, and the vectorised form against the bitwise definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq.reference import crc32c
from speckv_pynq.reference.crc32c import POLYNOMIAL


def bitwise(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (POLYNOMIAL if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "want"),  # RFC 3720, appendix B.4; the first is the usual check value
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_published_vectors(data: bytes, want: int) -> None:
    assert crc32c(data) == want


@given(st.binary(max_size=700))
def test_equals_the_bitwise_definition(data: bytes) -> None:
    assert crc32c(data) == bitwise(data)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_may_be_computed_in_pieces(data: bytes, cut: int) -> None:
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)
