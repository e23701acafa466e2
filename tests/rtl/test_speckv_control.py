"""The command processor behind its registers, with a stand-in for the DMA engine."""

import pytest

from tests.rtl.simulate import simulate

MEMORIES = [{"stall": 0.0, "latency": 4}, {"stall": 0.4, "latency": 1}]


@pytest.mark.parametrize("settings", MEMORIES, ids=["quick", "stalling"])
def test_commands_end_as_the_driver_would_end_them(settings):
    simulate("speckv_control", "tb_speckv_control", settings=settings)
