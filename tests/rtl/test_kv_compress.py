"""kv_compress against the reference: every byte of records and completions, and its rate."""

import pytest

from tests.rtl.simulate import simulate

MAX_BLOCK_BYTES = 32768


def compress(testcase: str, seed: int = 1, **settings: object) -> dict[str, object]:
    return simulate(
        "kv_compress",
        "tb_kv_compress",
        parameters={"MaxBlockBytes": MAX_BLOCK_BYTES},
        settings={"max_block_bytes": MAX_BLOCK_BYTES, **settings},
        testcase=testcase,
        seed=seed,
    )


def test_records_and_refusals_are_the_reference_s():
    got = compress("jobs_of_all_kinds", random=130, real=30, refused=True, cover=True)
    assert got["jobs"] > 160


@pytest.mark.parametrize(("stall", "pressure"), [(0.4, 0.0), (0.0, 0.6), (0.2, 0.3)])
def test_stalls_and_back_pressure_change_nothing(stall, pressure):
    compress(
        "jobs_of_all_kinds",
        seed=int(10 * stall + 100 * pressure),
        random=40,
        real=10,
        refused=True,
        stall=stall,
        pressure=pressure,
    )


def test_blocks_of_the_largest_size():
    compress("jobs_of_all_kinds", seed=3, random=20, most_bytes=MAX_BLOCK_BYTES)


def test_a_reset_amid_a_block_leaves_nothing_behind():
    compress("reset_amid_a_block")


@pytest.mark.parametrize("scheme", ["RAW", "INT4", "INT8_DELTA_RLE"])
def test_one_beat_a_cycle_from_block_to_block(scheme):
    got = compress("one_beat_a_cycle", scheme=scheme, blocks=12)
    assert got["beats_per_cycle"] == 1.0
    # A header beside each raw block, a cycle between two payloads of int8_delta_rle.
    assert got["cycles_per_record"] <= got["block_beats"] + (scheme != "INT4")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["RAW", "INT4", "INT8_DELTA_RLE"])
@pytest.mark.parametrize("part", range(10))
def test_a_thousand_real_and_ten_thousand_random_blocks(scheme, part):
    settings = {"schemes": [scheme], "real": 100, "random": 1000, "stall": 0.02 * part}
    most_bytes = 8192 if part % 5 == 0 else 4096  # from 8192 on all shapes fit
    got = compress("jobs_of_all_kinds", seed=1000 + part, most_bytes=most_bytes, **settings)
    assert got["jobs"] == 1100
