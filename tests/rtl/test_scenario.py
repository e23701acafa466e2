"""Commands end to end: what the RTL engine leaves in memory is what the driver on csim leaves."""

import pytest

from tests.rtl.simulate import simulate


@pytest.mark.requires("libspeckv")
def test_the_engine_does_what_the_driver_does():
    got = simulate("speckv_engine", "tb_scenario")
    assert got["blocks"] > 40
    assert len(got["statuses"]) > 8
