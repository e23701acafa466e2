"""The directory in RTL answers as the reference does, with evictions on top."""

import functools

import pytest

from tests.rtl.simulate import simulate

SMALL = {"Entries": 16, "Ways": 4, "Agents": 4}
ONE = {"Entries": 1, "Ways": 1, "Agents": 3}


@functools.cache
def random_run(operations, stall=0.0, seed=1):
    settings = {"operations": operations, "stall": stall}
    return simulate(
        "coherence_directory",
        "tb_coherence_directory",
        parameters=SMALL,
        settings=settings,
        testcase="random_requests",
        seed=seed,
    )


@pytest.mark.slow  # CI has every request in every state, below
@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_random_requests_are_answered_as_by_the_reference(stall):
    assert random_run(4000, stall)["operations"] == 4000


def test_an_operation_takes_at_most_six_cycles():
    assert random_run(4000, 0.0)["latency_cycles"] <= 6


def test_every_request_in_every_reachable_state_of_one_entry():
    got = simulate(
        "coherence_directory",
        "tb_coherence_directory",
        parameters=ONE,
        settings={"agents": 3, "ways": 1, "sets": 1, "keys": 2},
        testcase="every_state",
    )
    assert got["states"] > 100


@pytest.mark.slow
def test_long_random_traces():
    for seed in (2, 3):
        random_run(20_000, 0.2, seed)


@pytest.mark.slow
def test_the_size_that_is_built():
    """4,096 entries of 64 agents; keys of two sets, so that blocks are evicted."""
    got = simulate(
        "coherence_directory",
        "tb_coherence_directory",
        settings={"operations": 5000, "agents": 64, "ways": 8, "sets": 512, "in_sets": 2},
        testcase="random_requests",
    )
    assert got["latency_cycles"] <= 6
    assert got["coverage"]["answer"]["EVICTING"] > 10
