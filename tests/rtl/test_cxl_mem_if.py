"""CXL.mem to AXI4, under traffic of every kind, slow credits, a slow, failing and dead memory."""

import pytest

from tests.rtl.simulate import simulate

BENCH = ("cxl_mem_if", "tb_cxl_mem_if")
BUILD = {"DeadlineCycles": 512, "AddressBits": 32}
TRAFFIC = [
    {"memory_stall": 0.3, "ndr_credit": 0.5, "drs_credit": 0.5},
    {
        "memory_stall": 0.0,
        "host_stall": 0.0,
        "latency": 40,
        "ndr_credit": 0.2,
        "drs_credit": 0.9,
        "decode_poison": 1,
    },
    {"memory_stall": 0.7, "host_stall": 0.0, "latency": 3, "ndr_credit": 0.9, "drs_credit": 0.2},
]


@pytest.mark.parametrize("settings", TRAFFIC)
def test_requests_are_answered_once_in_the_order_of_their_line(settings):
    got = simulate(
        *BENCH, parameters=BUILD, settings=settings | {"requests": 1500}, testcase="any_traffic"
    )
    assert got["random_requests"] == 3000


def test_rates_and_failures():
    cases = [
        "one_request_a_cycle",
        "either_kind_of_answer_goes_without_credits_of_the_other",
        "errors_of_memory_are_poison",
        "a_memory_that_does_not_answer_gives_poison_in_time",
        "what_is_outside_the_subset_is_completed_and_counted",
        "a_message_without_a_credit_is_dropped_and_reported",
    ]
    got = simulate(*BENCH, parameters=BUILD, testcase=cases)
    assert got["reads_per_cycle"] > 0.9
    assert got["writes_per_cycle"] > 0.9
    assert got["both_per_cycle"] > 1.8
    assert got["read_latency_cycles"] <= 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_much_traffic_through_few_entries(seed):
    build = BUILD | {"ReqCredits": 4, "RwdCredits": 2}
    settings = {"requests": 10000, "req_credits": 4, "rwd_credits": 2, "answer_credits": 1}
    simulate(*BENCH, parameters=build, settings=settings, testcase="any_traffic", seed=seed)
