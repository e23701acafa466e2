"""The generated registers under AXI4-Lite accesses with and without stalls."""

import pytest

from tests.rtl.simulate import simulate


@pytest.mark.parametrize("stall", [0.0, 0.6])
def test_registers_do_as_the_spec_says(stall):
    simulate("speckv_csr", "tb_speckv_csr", settings={"stall": stall})
