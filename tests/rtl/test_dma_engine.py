"""The DMA engine: memory equal to the reference's in every byte, errors where they belong, full throughput."""

from __future__ import annotations

import pytest

from speckv_pynq.spec import DType, Scheme, Status
from tests.hls.test_statuses import COMPRESS_FAULTS, DESCRIPTOR_FAULTS
from tests.rtl.simulate import simulate

pytestmark = pytest.mark.slow  # in CI, the top's scenario goes through it

# As the HLS kernels are built, so that their table of faults holds.
KERNELS = {"MaxBlockBytes": 1 << 20}
LAST_SCHEME = int(Scheme.INT4)  # of the codecs in RTL


def faults(table: list, last_dtype: DType) -> list:
    """(fields, status, value, limit) of faults that a descriptor shows without its codec."""
    rows = []
    for fields, status, value, limit in table:
        if "scheme" in fields:
            status, value, limit = Status.BAD_SCHEME, fields["scheme"], LAST_SCHEME
        given = {name: int(number) for name, number in fields.items()}
        rows.append((given, int(status), int(value), int(last_dtype if limit is None else limit)))
    return rows


SETTINGS = [
    {"latency": 1},
    {"latency": 30, "stall": 0.3, "reorder": True},
    {"latency": 3, "stall": 0.7, "counts": [1, 3, 6, 4]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_moves_equal_the_reference(settings):
    got = simulate(
        "dma_engine", "tb_dma_engine", parameters=KERNELS, settings=settings, testcase="moves"
    )
    assert got["coverage"]["move"]


def test_errors_stay_with_their_descriptor():
    settings = {
        "compress": faults(DESCRIPTOR_FAULTS + COMPRESS_FAULTS, DType.BF16),
        "decompress": faults(DESCRIPTOR_FAULTS, DType.FP32),
    }
    cases = [
        "default_scheme",
        "bad_descriptors",
        "bad_copies",
        "damaged_records",
        "bus_errors",
        "bus_errors_of_copies",
        "completions_that_cannot_be_written",
        "cancelled",
    ]
    simulate("dma_engine", "tb_dma_engine", parameters=KERNELS, settings=settings, testcase=cases)


def test_long_transfers_keep_the_bus_busy():
    got = simulate("dma_engine", "tb_dma_engine", parameters=KERNELS, testcase="throughput")
    for move in ("copy", "compress", "decompress"):
        assert got[f"{move}_read_busy"] >= 0.95
        assert got[f"{move}_write_busy"] >= 0.95
