"""Streams through a register and a FIFO under stalls and back-pressure."""

import pytest

from tests.rtl.simulate import simulate

PRESSURES = [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.5, 0.5), (0.1, 0.9)]
TOPS = [("axis_register", {"Width": 512}), ("fifo", {"Width": 64, "Depth": 4})]


@pytest.mark.parametrize(("top", "parameters"), TOPS, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize(("stall", "pressure"), PRESSURES)
def test_order_is_kept_and_nothing_is_lost(top, parameters, stall, pressure):
    settings = {"stall": stall, "pressure": pressure}
    got = simulate(top, "tb_axis_register", parameters=parameters, settings=settings)
    assert got["items"] == 2000


@pytest.mark.parametrize(("top", "parameters"), TOPS, ids=lambda v: v if isinstance(v, str) else "")
def test_one_item_a_cycle_without_stalls(top, parameters):
    got = simulate(top, "tb_axis_register", parameters=parameters)
    assert got["cycles"] <= got["items"] + 4
