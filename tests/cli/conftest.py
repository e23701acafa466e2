"""A tiny model directory with a byte tokenizer, and the command line run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from speckv_pynq.cli import main

LAYERS, CONTEXT = 2, 4096


@dataclass(frozen=True)
class Ran:
    """What a command line gave."""

    code: int
    out: str
    err: str
    figures: Any


@pytest.fixture
def speckv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `speckv ARGUMENTS --json FILE`; json=False leaves --json out."""

    def run(*arguments: object, json_file: bool = True) -> Ran:
        path = tmp_path / "figures.json"
        path.unlink(missing_ok=True)
        argv = [str(argument) for argument in arguments]
        try:
            code = main([*argv, *(["--json", str(path)] if json_file else [])])
        except SystemExit as end:  # argparse's way out
            code = int(end.code or 0)
        text = capsys.readouterr()
        figures = json.loads(path.read_text()) if path.exists() else None
        return Ran(code, text.out, text.err, figures)

    return run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers and a tokenizer of one token a byte."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)  # models this small lose by threads
    torch.manual_seed(0)
    tokenizer = _byte_tokenizer(transformers)
    config = transformers.LlamaConfig(
        hidden_size=128,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        num_hidden_layers=LAYERS,
        intermediate_size=128,
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
    )
    folder = tmp_path_factory.mktemp("model")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def codebook_file(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codebook for that model, both layers in a record; random, so that it loses much."""
    transformers = pytest.importorskip("transformers")
    from tests.integrations.grouped import codebook

    path = tmp_path_factory.mktemp("codebook") / "random.safetensors"
    codebook(transformers.AutoConfig.from_pretrained(model_folder), 2).save(path)
    return path


def _byte_tokenizer(transformers: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thousand bytes of text."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(
        "".join(f"Line {i} of a text that is only there to be read.\n" for i in range(45))
    )
    return path
