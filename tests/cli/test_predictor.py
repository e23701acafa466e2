"""`speckv predictor train` and `speckv bench predictor` on a tiny model."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq.predictor import Predictor

pytestmark = pytest.mark.requires("torch", "transformers")


@pytest.fixture
def trained(speckv, model_folder, text_file, tmp_path):
    def run(*arguments, source=("--text",)):
        sizes = ("--epochs", 1, "--rows", 8, "--steps", 16, "--always", 32)
        text = [*source, text_file] if source == ("--text",) else source
        base = ("predictor", "train", "--model", model_folder, *text)
        return speckv(*base, *sizes, "-o", tmp_path / "p.safetensors", *arguments)

    return run


def test_makes_a_predictor_that_the_bench_judges(
    trained, speckv, model_folder, text_file, tmp_path
):
    ran = trained()
    assert ran.code == 0
    found = Predictor.load(tmp_path / "p.safetensors")
    assert ran.figures["fingerprint"] == f"{found.fingerprint:016x}" in ran.out
    assert ran.figures["multiply_adds"] == found.multiply_adds <= 400_000
    assert found.metadata["texts"] == "text.txt"
    assert str(tmp_path) not in found.metadata["command"]
    np.save(tmp_path / "train.npy", np.arange(3000) % found.vocabulary)
    ran = speckv(
        *("bench", "predictor", "--model", model_folder, "--prose", text_file),
        *("--code", text_file, "--predictor", tmp_path / "p.safetensors"),
        *("--sequences", 2, "--context", 64, "--steps", 200, "--train", tmp_path / "train.npy"),
    )
    assert ran.code == 0, ran.err
    figures = ran.figures
    assert 0 <= figures["top1"] <= figures["top4"] <= figures["top8"] <= 1
    assert 0 <= figures["ceiling_top4"] <= 1
    assert 0 < figures["p50_us"] <= figures["p99_us"]
    names = {row["name"] for row in figures["accuracy"]["all"]}
    assert {"predictor", "copying alone", "bigram", "language model"} < names
    assert set(figures["speed"]) > {"49152", "152064"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vocabulary", 300], "--text needs the model's tokenizer"),
        (["--minutes", 0], "minutes 0.0"),
        (["--always", 4], "always 4"),
    ],
)
def test_errors(trained, arguments, words):
    ran = trained(*arguments)
    assert ran.code == 2
    assert words in ran.err


def test_no_text(trained):
    ran = trained(source=())
    assert ran.code == 2
    assert "no text" in ran.err


def test_a_predictor_of_another_vocabulary(speckv, model_folder):
    ran = speckv("bench", "predictor", "--model", model_folder)
    assert ran.code == 2
    assert "trained for 49152" in ran.err
