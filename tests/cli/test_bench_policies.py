"""`speckv bench policies` on a tiny model: schema, and that no policy beats the optimum."""

from __future__ import annotations

import pytest

from speckv_pynq.config import POLICIES

pytestmark = pytest.mark.requires("libspeckv", "torch", "transformers")


def test_policies(speckv, model_folder, text_file):
    ran = speckv(
        "bench", "policies", "--model", model_folder, "--text", text_file, "--tokens", 700, "--steps", 40,
        "--turns", 60,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    results = ran.figures["results"]
    assert [r["trace"] for r in results] == [
        name for name in ("attention", "conversations", "scans") for _ in range(3)
    ]
    for result in results:
        ratios = result["hit_ratios"]
        assert list(ratios) == [*POLICIES, "s3-fifo", "arc", "optimum"]
        assert max(ratios.values()) == ratios["optimum"] < 1
        assert result["synthetic"] == (result["trace"] != "attention")
        assert result["slots"] == round(result["share"] * result["blocks"])
    # A quarter of 20 or 21 complete blocks, rounded up, a layer a step.
    steps_of_21 = 700 - 21 * 32
    assert results[0]["uses"] == 2 * (40 * 5 + steps_of_21)
    assert set(ran.figures["hit_us"]) == set(POLICIES)


@pytest.mark.parametrize(
    ("option", "value"), [("--budget", 0), ("--budget", 1.5), ("--steps", 2529)]
)
def test_what_cannot_be_recorded_is_one_line(speckv, option, value):
    ran = speckv("bench", "policies", option, value)
    assert ran.code == 2
    assert option in ran.err
    assert ran.err.count("\n") == 1
