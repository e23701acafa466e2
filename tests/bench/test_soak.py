"""A thousand sequences come, fork, share, diverge and go; what the soak itself would notice."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq.bench import soak, soak_world
from speckv_pynq.errors import CheckFailed, ConfigError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.spec import DType, Scheme

pytestmark = pytest.mark.requires("libspeckv")


def test_a_thousand_sequences_in_the_library() -> None:
    counts = soak.Soak(soak.Settings("c", 2.0)).run()
    assert counts.sequences_most >= 1000
    for name in ("evictions", "forks", "shared_blocks", "blocks_overwritten", "freed_sequences"):
        assert getattr(counts, name) > 100, name


@pytest.mark.parametrize("case", ["python int4", "python raw"])
def test_sequences_in_the_system(case: str) -> None:
    counts = soak.Soak(soak.Settings(case, 1.0, sequences=80)).run()
    assert counts.sequences_most >= 80
    assert min(counts.forks, counts.shared_blocks, counts.blocks_read) > 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", soak.CASES)
def test_a_thousand_sequences_for_ten_minutes(case: str) -> None:
    counts = soak.Soak(soak.Settings(case, 600.0)).run()
    assert min(counts.evictions, counts.pool_full, counts.forks, counts.shared_blocks) > 100


@pytest.mark.parametrize("scheme", [Scheme.RAW, Scheme.INT4])
def test_what_is_expected_is_what_the_reference_makes(scheme: Scheme) -> None:
    for pattern in (0, 8 + 256, 3, 777, 100_001, soak_world.PATTERNS - 1):
        k, v = soak_world.written(pattern)
        record = encode_record(k, v, scheme, dtype=DType.FP16)
        info = BlockInfo(soak_world.TOKENS, soak_world.HEADS, soak_world.HEAD_DIM)
        assert np.stack(decode_record(record, info)).tobytes() == soak_world.decoded(
            pattern, scheme
        )
        assert len(record) == soak_world.record_bytes(pattern, scheme)


@pytest.mark.parametrize("case", soak.CASES)
@pytest.mark.parametrize("what", ["a write unseen", "a free unseen", "a block too many"])
def test_what_is_wrong_is_found(case: str, what: str) -> None:
    run = soak.Soak(soak.Settings(case, 1.0, sequences=50))
    request = run.fresh([1, 2, 3])
    other = run.fresh([4, 5, 6])
    run.read(request)
    run.engine.check()
    if what == "a write unseen":
        run.engine.write(request, 1, 9)
        with pytest.raises(CheckFailed, match="wrong bytes"):
            run.read(request)
        return
    if what == "a free unseen":
        run.engine.free(other)
    else:
        run.engine.write(request, 3, 7)
    with pytest.raises(CheckFailed):
        run.engine.check()


def test_memory_that_grows_beyond_what_is_declared_is_found() -> None:
    run = soak.Soak(soak.Settings("c", 1.0, sequences=50))
    limit = soak.RSS_GROWTH_BYTES
    run.samples = np.array([(t / 10, 50_000_000 + t * limit, 1_000_000) for t in range(10)])
    run.sampled = len(run.samples)
    with pytest.raises(CheckFailed, match="RSS grew"):
        run.judge()


def test_settings_have_limits() -> None:
    for wrong in ({"case": "d"}, {"sequences": 3}, {"seconds": 0.0}):
        with pytest.raises(ConfigError):
            soak.Settings(**wrong)  # type: ignore[arg-type]
