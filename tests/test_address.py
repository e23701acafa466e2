"""Virtual KV addresses: the spec's vectors, round trips, and typed errors at every border."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.address import KVAddress, pack_address, unpack_address
from speckv_pynq.errors import ConfigError

FIELDS = {name: bits for name, bits, _ in spec.ADDRESS_FIELDS}


@pytest.mark.parametrize("vector", spec.ADDRESS_VECTORS)
def test_vectors_of_the_spec(vector: tuple[int, ...]) -> None:
    *fields, high, low = vector
    assert pack_address(*fields) == (high, low)
    assert unpack_address(high, low) == tuple(fields)


@given(st.builds(KVAddress, *(st.integers(0, (1 << bits) - 1) for bits in FIELDS.values())))
def test_round_trip_keeps_every_field_and_the_order(address: KVAddress) -> None:
    high, low = pack_address(*address)
    assert unpack_address(high, low) == address
    assert ((high, low) < pack_address(*KVAddress(0x80000000, 0, 0, 0, 0))) == (
        address.req_id < 0x80000000
    )


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("past", ["below", "above"])
def test_fields_outside_their_width_are_refused(name: str, past: str) -> None:
    value = -1 if past == "below" else 1 << FIELDS[name]
    with pytest.raises(
        ConfigError, match=rf"{name} {value} is outside 0\.\.{2 ** FIELDS[name] - 1}"
    ):
        pack_address(**{**dict.fromkeys(FIELDS, 0), name: value})


@pytest.mark.parametrize(("high", "low"), [(1 << 25, 0), (-1, 0), (0, 1 << 64), (0, -1)])
def test_words_with_bits_of_no_field_are_refused(high: int, low: int) -> None:
    with pytest.raises(ConfigError, match="word"):
        unpack_address(high, low)
