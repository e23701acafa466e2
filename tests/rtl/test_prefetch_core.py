"""The prefetch core: asks for what SpecKV's definition says, whatever stalls, fails or is cancelled."""

import pytest

from tests.rtl.simulate import simulate

BENCH = ("prefetch_core", "tb_prefetch_core")
BUILD = {"PatienceCycles": 256, "PredictorCycles": 512}
SEQUENCE = "one_hint_after_the_other_asks_for_what_the_definition_says"
STORM = "a_storm_of_hints_loses_none_and_no_slot"


def test_all_of_it():
    got = simulate(*BENCH, parameters=BUILD)
    assert got["latency_cycles"] <= 25
    assert got["descriptors_per_cycle"] > 0.15


@pytest.mark.slow  # CI has the proof of the filter
def test_a_small_filter_fetches_again_and_never_skips_a_block_that_is_not_there():
    build = BUILD | {"FilterSets": 2, "FilterWays": 2}
    got = simulate(
        *BENCH,
        parameters=build,
        settings={"exact": False, "hints": 150},
        testcase=SEQUENCE,
    )
    assert got["fetched_again"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
@pytest.mark.parametrize("stall", [0.0, 0.3, 0.7])
def test_long_storms(seed, stall):
    settings = {"stall": stall, "hints": 3000}
    simulate(*BENCH, parameters=BUILD, settings=settings, testcase=[SEQUENCE, STORM], seed=seed)
