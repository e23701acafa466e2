"""Records to blocks in hardware: equal to the reference in every byte and every completion."""

import pytest

from speckv_pynq.spec import Scheme
from tests.rtl.simulate import simulate

SIZE = {"MaxBlockBytes": 16384}
SCHEMES = [Scheme.RAW, Scheme.INT8_DELTA_RLE, Scheme.INT4]
PRESSURES = {Scheme.RAW: (0.0, 0.5), Scheme.INT8_DELTA_RLE: (0.2, 0.2), Scheme.INT4: (0.3, 0.3)}
FOUND = [
    "OK",
    "BAD_DTYPE",
    "BAD_SHAPE",
    "MISALIGNED",
    "RECORD_TOO_SMALL",
    "BAD_MAGIC",
    "BAD_VERSION",
    "BAD_FLAGS",
    "BAD_SCHEME",
    "SHAPE_MISMATCH",
    "IDENTITY_MISMATCH",
    "LAYOUT_MISMATCH",
    "CODEBOOK_MISMATCH",
    "BAD_PAYLOAD_BYTES",
    "BAD_CRC",
]


def decompress(testcase, **settings):
    return simulate(
        "kv_decompress", "tb_kv_decompress", parameters=SIZE, testcase=testcase, settings=settings
    )


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_blocks_equal_the_references(scheme):
    stall, pressure = PRESSURES[scheme]
    got = decompress("blocks", scheme=scheme, stall=stall, pressure=pressure)
    assert got["random"] == 60


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_damaged_records_answer_as_the_reference_does(scheme):
    statuses = FOUND if scheme == Scheme.RAW else [*FOUND, "BAD_PAYLOAD"]
    got = decompress("damage", scheme=scheme, statuses=statuses, stall=0.1, pressure=0.1)
    assert got["cases"] > 600


def test_int4_gives_a_beat_a_cycle():
    got = decompress("rate", scheme=Scheme.INT4, block="normal")
    assert got["beats_per_cycle"] == 1.0


def test_raw_gives_a_beat_for_each_that_comes():
    """A record is one beat longer than its block: its header."""
    got = decompress("rate", scheme=Scheme.RAW, block="normal", records=8)
    headers = 7  # between the first beat out and the last
    assert got["beats_per_cycle"] == (got["beats"] - 1) / (got["beats"] - 1 + headers)


@pytest.mark.parametrize("block", ["normal", "runs", "constant"])
def test_runs_give_a_beat_a_cycle_but_for_twenty_cycles_a_record(block):
    got = decompress("rate", scheme=Scheme.INT8_DELTA_RLE, block=block)
    assert got["beats_per_cycle"] >= 256 / (256 + 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_a_thousand_real_and_ten_thousand_random_blocks(scheme):
    got = decompress("blocks", scheme=scheme, random=10000, real=1000, block_bytes=8192)
    assert (got["random"], got["real"]) == (10000, 1000)
