"""`speckv generate` on a tiny model."""

from __future__ import annotations

import io

import pytest

pytestmark = pytest.mark.requires("libspeckv", "torch", "transformers")

PROMPT = "Say something about blocks, records and lines, and about what a frame is. " * 2


def test_streams_the_text_of_the_exact_cache(speckv, model_folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ran = speckv(
        "generate", "--model", model_folder, "--prompt", PROMPT, "--scheme", "raw",
        "--max-new-tokens", 40, "--l1-mb", 0,
    )  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    want = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    text = tokenizer.decode(want)
    assert ran.figures["text"] == text
    assert ran.out.startswith(text)
    assert ran.figures["prompt_tokens"] == ids.shape[1]
    assert ran.figures["new_tokens"] == 40
    assert ran.figures["hits"]["l1"] == 0
    assert ran.figures["hits"]["l3"] > 0
    assert ran.figures["ratio_records"] == 8192 / (
        2 * 8192 + 64
    )  # raw keeps an FP32 model's blocks in FP32
    assert ran.figures["tokens_per_s"] > 0


def test_prompt_from_a_file_and_from_stdin(speckv, model_folder, tmp_path, monkeypatch):
    path = tmp_path / "prompt.txt"
    path.write_text(PROMPT)
    base = ("generate", "--model", model_folder, "--max-new-tokens", 5)
    by_file = speckv(*base, "--prompt-file", path)
    monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT))
    by_stdin = speckv(*base, "--prompt-file", "-")
    assert by_file.figures["text"] == by_stdin.figures["text"]


def test_klt_with_a_codebook(speckv, model_folder, codebook_file):
    base = ("generate", "--model", model_folder, "--prompt", PROMPT * 3, "--max-new-tokens", 20)
    ran = speckv(*base, "--scheme", "klt", "--codebook", codebook_file)
    assert (ran.code, ran.err.count("speckv:")) == (0, 0)
    assert ran.figures["new_tokens"] == 20
    assert ran.figures["ratio_records"] > 3
    assert "scheme int4 takes none" in speckv(*base, "--codebook", codebook_file).err


def test_sampling_is_seeded(speckv, model_folder):
    base = ("generate", "--model", model_folder, "--prompt", PROMPT, "--temperature", 1.5)
    texts = [
        speckv(*base, "--max-new-tokens", 20, "--seed", seed).figures["text"] for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", " "], "the prompt is empty"),
        (["--prompt-file", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--prompt", PROMPT, "--temperature", -1], "< 0"),
        (["--prompt", PROMPT * 4, "--l3-mb", 0.001], "l3"),
        (["--prompt", PROMPT, "--sinks", -1], "sinks -1"),
        (["--prompt", PROMPT, "--scheme", "klt"], "speckv calibrate"),
        (
            ["--prompt", PROMPT, "--scheme", "klt", "--codebook", __file__],
            "not a readable safetensors",
        ),
    ],
)
def test_errors_are_one_line(speckv, model_folder, arguments, words):
    ran = speckv("generate", "--model", model_folder, *arguments)
    assert ran.code == 2, ran.err
    assert words in ran.err.lower() or words in ran.err
    assert ran.err.count("\n") == 1
