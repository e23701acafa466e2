"""`speckv calibrate` on a tiny model: the file, its metadata, the figures."""

from __future__ import annotations

import pytest

from speckv_pynq.codebook import Codebook

pytestmark = pytest.mark.requires("torch", "transformers")


@pytest.fixture
def calibrated(speckv, model_folder, text_file, tmp_path):
    def run(*arguments, out="c.safetensors"):
        base = ("calibrate", "--model", model_folder, "--text", text_file, "--context", 150)
        sizes = ("--sample-tokens", 2000, "--eval-tokens", 300, "-o", tmp_path / out)
        return speckv(*base, *sizes, *arguments)

    return run


def test_makes_a_codebook_that_says_what_it_is(calibrated, tmp_path):
    ran = calibrated("--step", 0.05)
    assert (ran.code, ran.err) == (0, "")
    found = Codebook.load(tmp_path / "c.safetensors")
    assert ran.figures["fingerprint"] == f"{found.fingerprint:016x}" in ran.out
    assert ran.figures["bytes"] == (tmp_path / "c.safetensors").stat().st_size
    assert ran.figures["ratio"] == pytest.approx(float(found.metadata["expected_ratio"]), abs=1e-3)
    assert len(found.metadata["model_fingerprint"]) == 16
    assert found.metadata["texts"] == "text.txt"
    assert "calibrate" in found.metadata["command"]
    assert found.metadata["command"].startswith("speckv calibrate --")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--context", 5000], "no text of 1 files"),
        (["--context", 1000], "a fifth is held out"),
        (["--tokens", 10**6], "1000000 tokens asked for"),
        (["--step", 0.1, "--dead-zone", 2], "dead_zone 2.0"),
        (["--scope", "group:7"], "no multiple of 7"),
        (["--step", 0.1, "--target-dppl", 1], "not allowed with"),
    ],
)
def test_errors(calibrated, arguments, words):
    ran = calibrated(*arguments)
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_a_folder_that_is_not_there(calibrated):
    ran = calibrated("--step", 0.1, out="no/c.safetensors")
    assert ran.code == 2
    assert "cannot be written" in ran.err
