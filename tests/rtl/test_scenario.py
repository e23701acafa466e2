"""Commands end to end: what the RTL engine leaves in memory is what the driver on csim leaves."""

import pytest

from tests.rtl.simulate import simulate

# Small memories, for the sake of the build.
TOP = {
    "MaxBlockBytes": 16384,
    "DirectoryEntries": 64,
    "TlbEntries": 16,
    "Commands": 32,
    "Prefetches": 16,
}


# The model takes minutes to build where others build too.
pytestmark = [pytest.mark.requires("libspeckv"), pytest.mark.timeout(1800)]


@pytest.mark.parametrize("settings", [{}, {"stall": 0.3, "latency": 3}], ids=["", "stalling"])
def test_the_engine_does_what_the_driver_does(settings):
    got = simulate("cxl_speckv_top", "tb_scenario", parameters=TOP, settings=settings, large=True)
    assert got["blocks"] > 40
    assert len(got["statuses"]) > 8


def test_a_hint_becomes_blocks_in_l2():
    settings = {"slot_bytes": TOP["MaxBlockBytes"]}
    got = simulate(
        "cxl_speckv_top", "tb_prefetch_path", parameters=TOP, settings=settings, large=True
    )
    assert got["filled"] == 2
