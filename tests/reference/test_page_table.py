"""The page table: what is mapped is found, what is not is not, whatever came and went before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.address import pack_address
from speckv_pynq.errors import ConfigError
from speckv_pynq.reference.page_table import PageTable, key_hash, key_mask
from speckv_pynq.spec import PageFlag, Translation

SHAPE = {
    "record_bytes": 128,
    "tokens": 32,
    "heads": 3,
    "head_dim": 64,
    "layer_count": 1,
    "kinds": 3,
}
OFFSETS = st.integers(0, 1 << 40).map(lambda line: line * spec.LINE_BYTES)


def address(*fields: int) -> int:
    high, low = pack_address(*fields)
    return high << 64 | low


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), OFFSETS), max_size=60))
def test_walks_find_what_a_dictionary_holds(steps):
    table, expected = PageTable(6), {}
    for maps, key, offset in steps:
        if maps:
            table.map(key, record_offset=offset, **SHAPE)
            expected[key] = offset
        else:
            assert (table.unmap(key) is not None) == (expected.pop(key, None) is not None)
    for key in range(31):
        status, _ = table.walk(key)
        place = table.place_of(key)
        assert (status == Translation.OK) == (key in expected) == (place is not None)
        if place is not None:
            assert table.entries[place]["record_offset"] == expected[key]


def test_a_deleted_entry_does_not_hide_the_one_behind_it():
    table = PageTable(0)  # one place: all keys collide
    table.map(1, **SHAPE)
    with pytest.raises(ConfigError, match="larger table"):
        table.map(2, **SHAPE)
    table = PageTable(4)
    first, second = next(
        (a, b) for a in range(99) for b in range(a) if key_hash(a) % 16 == key_hash(b) % 16
    )
    table.map(first, **SHAPE)
    table.map(second, **SHAPE)
    table.unmap(first)
    assert table.walk(second)[0] == Translation.OK
    assert table.map(first, **SHAPE) == key_hash(first) % 16  # its place is used again


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("record_offset", 32),
        ("record_bytes", 0),
        ("record_bytes", 100),
        ("tokens", 0),
        ("kinds", 4),
        ("flags", PageFlag.VALID | PageFlag.DELETED),
        ("flags", PageFlag.VALID | 0x80),
    ],
)
def test_an_entry_that_contradicts_itself_is_told(field, value):
    table = PageTable(4)
    table.entries[table.map(7, **SHAPE)][field] = value
    assert table.walk(7) == (Translation.BAD_ENTRY, bytes(64))


def test_a_key_is_the_same_for_all_addresses_of_a_record_and_for_no_other():
    mask = key_mask(block_tokens=32, heads=4, kinds=2)
    key = address(5, 7, 4, 64, 0)
    inside = [
        address(5, 7, head, pos, kind) for head in (4, 7) for pos in (64, 95) for kind in (0, 1)
    ]
    outside = [
        address(5, 7, 4, 96, 0),
        address(5, 7, 8, 64, 0),
        address(5, 8, 4, 64, 0),
        address(6, 7, 4, 64, 0),
    ]
    assert {a & mask for a in inside} == {key}
    assert all(a & mask != key for a in outside)
    with pytest.raises(ConfigError, match="power of two"):
        key_mask(heads=3)
