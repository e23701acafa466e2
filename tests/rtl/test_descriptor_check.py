"""What the engine says of a descriptor before it touches a block."""

import pytest

from tests.rtl.simulate import simulate

pytestmark = pytest.mark.slow  # in CI, the codecs go through it

MAX_BLOCK_BYTES = 32768


def test_the_first_fault_is_told_with_its_value_and_limit():
    got = simulate(
        "descriptor_check",
        "tb_descriptor_check",
        parameters={"MaxBlockBytes": MAX_BLOCK_BYTES},
        settings={"max_block_bytes": MAX_BLOCK_BYTES},
    )
    assert got["cases"] > 100
