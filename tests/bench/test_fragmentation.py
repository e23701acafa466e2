"""A short day through a small pool: it fills, it empties, and what it says adds up."""

from __future__ import annotations

import pytest

from speckv_pynq.bench import fragmentation
from speckv_pynq.errors import ConfigError

pytestmark = pytest.mark.requires("libspeckv")


def test_a_day_leaves_nothing_behind() -> None:
    settings = fragmentation.Settings(requests=6000, pool_bytes=16 << 20)
    day = fragmentation.simulate(settings)
    assert len(day.hours) == fragmentation.HOURS
    assert (day.end_held_bytes, day.end_free_runs) == (0, 0)
    assert day.full + day.broken_up == day.evicted_requests > 0  # each refusal ends one
    assert max(hour.occupancy for hour in day.hours) > 0.9
    assert day.stranded_share < 0.15  # of a pool of 170 of the largest requests
    for hour in day.hours:
        assert hour.largest_free_bytes <= hour.free_bytes
        assert hour.free_bytes == round((1 - hour.occupancy) * settings.pool_bytes)
        assert hour.free_runs > 0


@pytest.mark.parametrize("wrong", [{"requests": 0}, {"occupancy": 0.0}, {"pool_bytes": 4096}])
def test_settings_have_limits(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        fragmentation.Settings(**wrong)
