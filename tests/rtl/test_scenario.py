"""Commands end to end: what the RTL engine leaves in memory is what the driver on csim leaves."""

import pytest

from tests.rtl.simulate import simulate

# Small, for the sake of the build: memories of parts that have nothing to do here.
TOP = {
    "MaxBlockBytes": 16384,
    "DirectoryEntries": 64,
    "TlbEntries": 16,
    "Commands": 32,
    "Prefetches": 16,
}


@pytest.mark.requires("libspeckv")
@pytest.mark.parametrize(
    ("top", "parameters"),
    [("speckv_engine", {}), ("cxl_speckv_top", TOP)],
    ids=["reference codec", "all of it"],
)
def test_the_engine_does_what_the_driver_does(top, parameters):
    got = simulate(top, "tb_scenario", parameters=parameters)
    assert got["blocks"] > 40
    assert len(got["statuses"]) > 8
