"""`speckv eval` on a tiny model: schema, exactness of raw, seeds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from speckv_pynq.codebook import Codebook

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


def test_sparse_attention_beside_dense(evaluated):
    """All blocks are dense attention. A quarter would be 6 of 26: at least 16 are read."""
    ran = evaluated(
        "--context", 400, "--prefill", 380, "--max-tokens", 60, "--scheme", "raw",
        "--attention", "sparse", "--budget", 1, "--budget", 0.25,
    )  # fmt: skip
    dense, whole, few = ran.figures["results"]
    assert [r["name"] for r in (dense, whole, few)] == ["raw", "raw sparse 1", "raw sparse 0.25"]
    assert dense["tokens"] == whole["tokens"] == few["tokens"] == 4 * 19
    assert dense["kl_nats"] == 0
    assert whole["kl_nats"] < 1e-6
    assert few["kl_nats"] > whole["kl_nats"]
    assert dense["read_percent"] == whole["read_percent"] == 100
    assert 100 * 11 / 24 < few["read_percent"] < 100 * 13 / 22  # of 26 blocks 16; 4 of them exact
    assert (ran.figures["block_tokens"], ran.figures["prefill"]) == (16, 380)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", 0.25), "--budget is for --attention sparse"),
        (("--attention", "sparse", "--budget", 0), "budget 0.0"),
        (("--prefill", 199), "--prefill 199 is not within 0..198"),
    ],
)
def test_options_that_do_not_fit(speckv, model_folder, text_file, options, message):
    base = ("eval", "--model", model_folder, "--text", text_file, "--context", 200)
    ran = speckv(*base, *options)
    assert ran.code == 2
    assert message in ran.err


def test_the_seed_decides_which_text(evaluated):
    runs = [evaluated("--max-tokens", 300, "--seed", seed).figures for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0]["exact_ppl"] != runs[2]["exact_ppl"]
    assert runs[0]["sequences"] == 2


def test_the_curve_measures_schemes_and_rivals_in_one_run(evaluated, tmp_path):
    pytest.importorskip("matplotlib")
    picture, table = tmp_path / "curve.png", tmp_path / "table.md"
    rivals = ["--rival", "kivi-int4", "--rival", "kivi-int2", "--rival", "zstd"]
    ran = evaluated("--curve", picture, "--markdown", table, "--max-tokens", 900, *rivals)
    results = {result["name"]: result for result in ran.figures["results"]}
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert set(results) >= {"raw", "int8_delta_rle", "int4", "kivi-int4", "kivi-int2", "zstd"}
    assert "klt" not in results  # this model has no codebook
    assert {results[name]["exact_ppl"] for name in results} == {ran.figures["exact_ppl"]}
    assert results["kivi-int4"]["ratio_records"] == pytest.approx(16 / 5)
    assert results["kivi-int2"]["ratio_records"] == pytest.approx(16 / 3)
    assert max(results[name]["kl_nats"] for name in ("zstd", "raw")) < 1e-5  # fp32 rounded to fp16
    assert abs(results["kivi-int2"]["dppl_percent"]) > abs(results["kivi-int4"]["dppl_percent"])
    assert (results["int4"]["ours"], results["zstd"]["ours"]) == (True, False)
    text = table.read_text()
    assert all(f"| {name} | " in text for name in results)
    assert "speckv eval --curve" in text


def test_a_codebook_is_a_point_of_its_own(
    evaluated, speckv, model_folder, text_file, codebook_file
):
    figures = evaluated("--max-tokens", 300, "--codebook", codebook_file).figures
    assert (figures["name"], figures["scheme"]) == (
        "klt random",
        "klt",
    )  # no scope: the file's name
    assert figures["codebook"]["bytes"] == codebook_file.stat().st_size
    assert 0 < figures["ratio_with_codebook"] < figures["ratio_records"]
    assert figures["codebook"]["texts"] == ""
    ran = speckv(
        "eval", "--model", model_folder, "--text", text_file, "--context", 200,
        "--codebook", codebook_file, "--codebook", codebook_file,
    )  # fmt: skip
    assert ran.code == 2
    assert "two caches would be called 'klt random'" in ran.err


def test_text_that_a_codebook_was_made_from_is_pointed_out(
    evaluated, codebook_file, text_file, tmp_path
):
    codebook = Codebook.load(codebook_file)
    own = tmp_path / "own.safetensors"
    replace(codebook, metadata={**codebook.metadata, "texts": f"a.txt {text_file.name}"}).save(own)
    said = f"was calibrated on {text_file.name}"
    assert said in evaluated("--max-tokens", 300, "--codebook", own).out
    assert said not in evaluated("--max-tokens", 300, "--codebook", codebook_file).out


def test_the_curve_writes_its_figures_beside_the_picture(speckv, model_folder, text_file, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "c.png"
    base = ("eval", "--model", model_folder, "--text", text_file, "--context", 200)
    ran = speckv(
        *base, "--max-tokens", 300, "--scheme", "raw", "--rival", "none", "--curve", picture,
        json_file=False,
    )  # fmt: skip
    assert ran.code == 0
    assert [r["name"] for r in json.loads(picture.with_suffix(".json").read_text())["results"]] == [
        "raw"
    ]


def test_a_run_that_was_cut_off_goes_on(evaluated, tmp_path, monkeypatch):
    from speckv_pynq.bench import evaluation

    whole = evaluated("--scheme", "int4", "--rival", "kivi-int3").figures
    part, calls, score_text = tmp_path / "part.json", [], evaluation.score_text

    def stop(model, rows, exact, caches, *rest):
        calls.append(len(caches))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score_text(model, rows, exact, caches, *rest)

    monkeypatch.setattr(evaluation, "score_text", stop)
    with pytest.raises(AssertionError):
        evaluated("--scheme", "int4", "--resume", part)  # stops after two of five batches
    assert calls == [1, 1, 1]
    resumed = evaluated("--scheme", "int4", "--rival", "kivi-int3", "--resume", part).figures
    assert calls[3:] == [1, 1, 2, 2, 2]  # of the first batches only what is missing
    assert resumed == whole


def test_token_ids_of_files(evaluated, tmp_path):
    ids = tmp_path / "ids.npy"
    np.save(ids, np.arange(3 * 250, dtype=np.uint16).reshape(3, 250) % 200)
    figures = evaluated("--scheme", "raw", "--text", ids).figures
    assert figures["sequences"] == 3  # a piece never holds tokens of two rows
    assert figures["tokens"] == 3 * 199


def test_one_sequence_has_no_interval(evaluated):
    figures = evaluated("--max-tokens", 100).figures
    assert figures["dppl_low"] is None
    assert figures["dppl_high"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--context", 5000], "fewer than one context of 5000"),
        (["--scheme", "int4", "--codebook", __file__], "scheme int4 takes none"),
        (["--codebook", __file__], "not a readable safetensors file"),
        (["--scheme", "klt"], "none is shipped for"),
        (["--curve", "no/such/folder.png"], "cannot be written"),
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
