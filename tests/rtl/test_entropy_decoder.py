"""The 32 lanes of `klt` records, several records in turn."""

import pytest

from tests.rtl.simulate import simulate

TOP, BENCH = "entropy_decoder", "tb_entropy_decoder"


def test_symbols_seeds_and_verdicts_are_the_references():
    got = simulate(TOP, BENCH, testcase="records_in_turn")
    assert got["records"] > 80


def test_thirteen_records_keep_every_lane_busy():
    got = simulate(TOP, BENCH, testcase="rate")
    rates = got["symbols_per_cycle"]
    assert rates["1"] >= 2.4
    assert rates["13"] > 31.5
    assert rates["16"] > 31.5
    assert got["latency_cycles"] <= 40


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_many_records(seed):
    settings = {"batches": 40, "records": 40}
    simulate(TOP, BENCH, testcase="records_in_turn", settings=settings, seed=seed)
