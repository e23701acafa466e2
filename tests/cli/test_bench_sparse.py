"""`speckv bench sparse` on little data: schema, and what must hold of any figures."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.requires("libspeckv", "torch", "transformers")


def test_schema(speckv, model_folder, text_file):
    ran = speckv(
        "bench", "sparse", "--model", model_folder, "--text", text_file, "--tokens", 256, "--steps", 8,
        "--sequences", 1, "--fit", 1,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    figures = ran.figures
    assert set(figures["mass"]) == {"1/8", "1/4", "1/2"}
    for name, held in figures["mass"].items():
        assert held["oracle"] == max(held.values())
        under = 100 * (held["oracle"] - held["all signals"])
        assert figures["under_oracle"][name] == pytest.approx(under)
    assert {"history", "keys", "next token: copy"} <= {x["signal"] for x in figures["ablation"]}
    assert 0 <= figures["wasted"] <= 1
    assert "all signals, fitted" in figures["mass"]["1/4"]
    assert set(figures["weights"]) == {"fast", "slow", "keys", "misled", "age", "pointed"}
    assert figures["cost"]["bytes_per_block"] == 640


def test_steps_beyond_the_text(speckv, model_folder):
    ran = speckv("bench", "sparse", "--model", model_folder, "--tokens", 64, "--steps", 64)
    assert ran.code != 0
    assert "--steps 64 >= --tokens 64" in ran.err
