"""The DMA engine with the codecs at its ports: memory as the reference leaves it, at the codecs' rate."""

from __future__ import annotations

import pytest

from speckv_pynq.spec import Scheme
from tests.rtl.simulate import simulate

pytestmark = pytest.mark.slow  # in CI, the top's scenario goes through the same modules

PARAMETERS = {"MaxBlockBytes": 32768}
SCHEMES = [int(Scheme.RAW), int(Scheme.INT4)]  # that both codecs have


def run(testcase: str, **settings: object) -> dict[str, object]:
    return simulate(
        "dma_codec", "tb_dma_codec", parameters=PARAMETERS, settings=settings, testcase=testcase
    )


def test_blocks_go_there_and_back():
    run("there_and_back", latency=20, schemes=SCHEMES)


@pytest.mark.parametrize("stall", [0.2, 0.5])
def test_stalls_of_memory_change_nothing(stall):
    run("there_and_back", latency=5, stall=stall, reorder=True, count=60, schemes=SCHEMES)


def test_bus_errors_stay_with_their_descriptor():
    run("bus_errors")


def test_long_transfers_keep_the_bus_busy():
    """Blocks are read, and written, nearly a line a cycle."""
    got = run("throughput")
    for scheme in ("raw", "int4"):
        assert got[f"{scheme}_compress_read_busy"] >= 0.95
        assert got[f"{scheme}_decompress_write_busy"] >= 0.95
