"""The multiply-accumulate array of `klt`, both directions."""

import pytest

from tests.rtl.simulate import simulate

TOP, BENCH = "klt_mac", "tb_klt_mac"
# A quarter of the array: builds in a quarter of the time.
PARAMETERS = {"MacRows": 2, "MacTokens": 4}
SETTINGS = {"rows": 2, "tokens": 4}


def test_transforms_are_the_references():
    simulate(TOP, BENCH, testcase="transforms", parameters=PARAMETERS, settings=SETTINGS)


def test_a_beat_a_cycle_where_tiles_have_as_many_beats_as_the_array_has_rows():
    got = simulate(TOP, BENCH, testcase="rate", parameters=PARAMETERS, settings=SETTINGS)
    assert got["beats_per_cycle"]["32"] > 0.94
    assert got["beats_per_cycle"]["128"] > 0.95
    assert got["latency_cycles"] <= 30


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3])
def test_many_transforms_on_the_whole_array(seed):
    simulate(TOP, BENCH, testcase="transforms", settings={"units": 40}, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_array_is_kept_busy():
    got = simulate(TOP, BENCH, testcase="rate")
    assert got["beats_per_cycle"]["64"] > 0.88  # of 256 beats and the array's latency
