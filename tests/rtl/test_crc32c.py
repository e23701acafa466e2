"""CRC32C in hardware equals the reference's for every length, and the CRC of two parts joins."""

import pytest

from tests.rtl.simulate import simulate

pytestmark = pytest.mark.slow  # in CI, the codecs go through it


def test_states_of_messages_of_every_length():
    got = simulate("crc32c", "tb_crc32c", testcase="messages")
    assert got["messages"] == 190
    assert got["latency_cycles"] == 10


def test_states_of_two_parts_join():
    got = simulate("crc32c_shift", "tb_crc32c", parameters={"Bits": 16}, testcase="parts_join")
    assert got["parts"] == 23
