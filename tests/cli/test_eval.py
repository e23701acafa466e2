"""`speckv eval` on a tiny model: schema, exactness of raw, seeds."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.requires("libspeckv", "torch", "transformers")

KEYS = {
    "ratio_records",
    "ratio_held",
    "dppl_percent",
    "dppl_low",
    "dppl_high",
    "agree_percent",
    "kl_nats",
    "tokens",
}


@pytest.fixture
def evaluated(speckv, model_folder, text_file):
    def run(*arguments):
        base = (
            "eval",
            "--model",
            model_folder,
            "--text",
            text_file,
            "--context",
            200,
            "--batch",
            2,
        )
        ran = speckv(*base, *arguments)
        assert (ran.code, ran.err) == (0, "")
        return ran

    return run


def test_schema_of_several_schemes(evaluated):
    ran = evaluated("--scheme", "int4", "--scheme", "raw", "--scheme", "int8_delta_rle")
    figures = ran.figures
    assert set(figures) >= KEYS
    assert [result["scheme"] for result in figures["results"]] == ["int4", "raw", "int8_delta_rle"]
    assert all(set(result) >= KEYS for result in figures["results"])
    assert figures["dppl_percent"] == figures["results"][0]["dppl_percent"]
    assert figures["dppl_low"] <= figures["dppl_percent"] <= figures["dppl_high"]
    assert 3 < figures["ratio_records"] < 4
    assert figures["sequences"] == 10
    assert figures["tokens"] == 10 * 199
    assert figures["machine"]["kernels"]
    assert all(scheme in ran.out for scheme in ("int4", "raw", "int8_delta_rle"))


def test_raw_changes_nothing(evaluated):
    figures = evaluated("--scheme", "raw").figures
    assert figures["dppl_percent"] == figures["kl_nats"] == 0
    assert (figures["dppl_low"], figures["dppl_high"], figures["agree_percent"]) == (0, 0, 100)
    assert figures["raw_fallbacks"] == 0


def test_the_seed_decides_which_text(evaluated):
    runs = [evaluated("--max-tokens", 300, "--seed", seed).figures for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0]["exact_ppl"] != runs[2]["exact_ppl"]
    assert runs[0]["sequences"] == 2


def test_one_sequence_has_no_interval(evaluated):
    figures = evaluated("--max-tokens", 100).figures
    assert figures["dppl_low"] is None
    assert figures["dppl_high"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--context", 5000], "fewer than one context of 5000"),
        (["--codebook", "c.npz"], "scheme int4 takes none"),
        (["--compute", "cuda"], "no CUDA device"),
    ],
)
def test_errors(speckv, model_folder, text_file, arguments, words):
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    ran = speckv("eval", "--model", model_folder, "--text", text_file, *arguments)
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_a_folder_without_a_model(speckv, tmp_path):
    ran = speckv("eval", "--model", tmp_path)
    assert ran.code == 2
    assert "nor a directory with a config.json" in ran.err
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    ran = speckv("eval", "--model", tmp_path)
    assert ran.code == 2
    assert "does not load" in ran.err
    assert ran.err.count("\n") == 1
