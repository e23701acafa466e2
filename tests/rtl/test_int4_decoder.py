"""int4 in hardware: every payload decodes to the reference's block, one beat a cycle."""

import pytest

from tests.rtl.simulate import simulate

pytestmark = pytest.mark.slow  # in CI, kv_decompress goes through it

SIZE = {"MaxBlockBytes": 16384}


@pytest.mark.parametrize(("stall", "pressure"), [(0.2, 0.2)])
def test_blocks_equal_the_references(stall, pressure):
    settings = {"stall": stall, "pressure": pressure}
    got = simulate(
        "int4_decoder", "tb_int4_decoder", parameters=SIZE, settings=settings, testcase="blocks"
    )
    assert got["beats"] > 1000


@pytest.mark.parametrize("shape", [(32, 2, 64), (16, 1, 128)])
def test_one_beat_a_cycle(shape):
    got = simulate(
        "int4_decoder",
        "tb_int4_decoder",
        parameters=SIZE,
        settings={"shape": shape},
        testcase="rate",
    )
    assert got["beats_per_cycle"] == 1.0


def test_five_beats_in_six_cycles_for_heads_of_80():
    got = simulate(
        "int4_decoder",
        "tb_int4_decoder",
        parameters=SIZE,
        settings={"shape": (32, 2, 80)},
        testcase="rate",
    )
    assert got["beats_per_cycle"] > 0.83
