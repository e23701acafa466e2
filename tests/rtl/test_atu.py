"""The translation unit: hits in four cycles, walks beside them, faults with their cause, nothing stale."""

import functools

import pytest

from tests.rtl.simulate import simulate


@functools.cache
def run(testcase, **settings):
    parameters = {"Ways": settings["ways"]} if "ways" in settings else {}
    return simulate("atu", "tb_atu", testcase=testcase, parameters=parameters, settings=settings)


def test_a_hit_takes_four_cycles_and_one_starts_every_cycle():
    got = run("hits")
    assert got["latency_cycles"] == 4
    assert got["beats_per_cycle"] == 1


def test_hits_pass_misses_and_several_walks_are_under_way():
    assert run("hits_pass_misses")["walks_at_once"] == 8


def test_the_least_recently_used_way_is_replaced():
    run("the_least_recently_used_goes")


@pytest.mark.parametrize(("stall", "pressure"), [(0.0, 0.0), (0.1, 0.6)])
def test_answers_are_those_of_the_reference_while_entries_change(stall, pressure):
    got = run("random_traffic", stall=stall, pressure=pressure)
    assert got["lookups"] >= 2500
    assert min(got["hits"], got["misses"], got["changes"]) > 50


def test_a_silent_memory_ends_each_walk_in_time():
    assert run("silent_memory")["timeouts"] >= 60


@pytest.mark.slow
@pytest.mark.parametrize("ways", [4, 8])
def test_long_random_traffic(ways):
    run("random_traffic", lookups=20_000, pressure=0.2, ways=ways)
