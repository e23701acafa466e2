"""Models and texts for measurements: SmolLM2 or a directory; token ids of files."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speckv_pynq.errors import ConfigError

SMOLLM2 = "smollm2"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CHARS_PER_TOKEN = 5  # English prose has fewer, so that this many characters suffice


@dataclass(frozen=True)
class Loaded:
    """A causal language model in evaluation mode, and its tokenizer."""

    name: str
    model: Any
    tokenizer: Any

    @property
    def token_bytes(self) -> int:
        """FP16 bytes of one token's K and V in all layers."""
        text = self.model.config.get_text_config(decoder=True)
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return int(2 * 2 * text.num_hidden_layers * heads * head_dim)

    @property
    def dtype(self) -> str:
        """Name of the weights' dtype, as in DTYPES."""
        return {dtype: name for name, dtype in DTYPES.items()}.get(self.model.dtype, "?")

    @property
    def processor(self) -> str:
        """What the model runs on: "cpu", or the name of a CUDA device."""
        device = self.model.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)

    def encode(self, text: str) -> torch.Tensor:
        """Token ids of a text, (tokens,) int64, without special tokens."""
        with (
            warnings.catch_warnings()
        ):  # "sequence length is longer than ...": it is cut afterwards
            warnings.simplefilter("ignore")
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64)


def load(name: str, dtype: str = "fp32", compute: str = "cpu") -> Loaded:
    """SmolLM2 (converted once, then offline) or a model directory of transformers; nothing is downloaded."""
    if compute == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--compute cuda: torch sees no CUDA device")
    if name == SMOLLM2:
        from speckv_pynq.integrations.smollm2 import load_smollm2

        model, tokenizer = load_smollm2(DTYPES[dtype])
    else:
        model, tokenizer = _load_directory(Path(name), DTYPES[dtype])
    return Loaded(name, model.to(compute).eval(), tokenizer)


def _load_directory(path: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"model {str(path)!r}: neither {SMOLLM2!r} nor a directory with a config.json"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(f"model {str(path)!r} does not load: {_first_line(error)}") from error
    return model, tokenizer


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def prose(tokens: int) -> str:
    """Text of the Python installation, long enough for so many tokens."""
    from speckv_pynq.integrations.smollm2 import python_prose

    try:
        return str(python_prose(tokens * CHARS_PER_TOKEN))
    except ValueError as error:
        raise ConfigError(f"no text given, and Python's own is too short: {error}") from error


def read_texts(paths: Sequence[Path]) -> str:
    """The files' contents in their order, blank lines between; what is not UTF-8 becomes U+FFFD."""
    try:
        return "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)
    except OSError as error:
        raise ConfigError(f"text {error.filename!r}: {error.strerror}") from error


def read_ids(loaded: Loaded, paths: Sequence[Path]) -> list[torch.Tensor]:
    """Token ids of files: of all texts joined, then of each .npy, or of each row of it; (tokens,) int64 each."""
    arrays = [path for path in paths if path.suffix == ".npy"]
    texts = [path for path in paths if path.suffix != ".npy"]
    out = [loaded.encode(read_texts(texts))] if texts else []
    vocabulary = loaded.model.config.get_text_config(decoder=True).vocab_size
    for path in arrays:
        out += read_array(path, vocabulary)
    return out


def read_array(path: Path, vocabulary: int) -> list[torch.Tensor]:
    """Token ids of a .npy file: (tokens,) int64 of each of its rows; ConfigError."""
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not an array of token ids: {error}") from error
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2) or not ids.size:
        raise ConfigError(
            f"{path}: {ids.shape} {ids.dtype}, not (tokens,) or (texts, tokens) integers"
        )
    if ids.max() >= vocabulary or ids.min() < 0:
        raise ConfigError(
            f"{path}: ids {ids.min()}..{ids.max()}, the model's are 0..{vocabulary - 1}"
        )
    return list(torch.from_numpy(np.atleast_2d(ids.astype(np.int64))))


def text_ids(loaded: Loaded, path: Path | None, tokens: int) -> torch.Tensor:
    """The first `tokens` ids of a file, or of Python's own documentation: (tokens,) int64."""
    text = prose(tokens) if path is None else read_texts([path])
    return need_tokens(loaded.encode(text), tokens, "the text")


def need_tokens(ids: torch.Tensor, tokens: int, what: str) -> torch.Tensor:
    """The first `tokens` of ids, (tokens,)."""
    if len(ids) < tokens:
        raise ConfigError(f"{what}: {len(ids)} tokens, {tokens} are needed; give a longer text")
    return ids[:tokens]


def sequences(
    ids: torch.Tensor | Sequence[torch.Tensor], context: int, max_tokens: int | None, seed: int
) -> torch.Tensor:
    """Distinct pieces of texts, (n, context) int64, drawn with `seed`: of all of them, not of their beginnings.

    ids: (tokens,) of a text, or of several; no piece holds tokens of two.
    max_tokens: n is the least that scores so many tokens (a piece of `context` scores context - 1), if there are.
    """
    texts = [ids] if isinstance(ids, torch.Tensor) else ids
    pieces = torch.cat([text[: len(text) // context * context].view(-1, context) for text in texts])
    if not len(pieces):
        raise ConfigError(
            f"the text has {max(map(len, texts))} tokens, fewer than one context of {context}"
        )
    wanted = len(pieces) if max_tokens is None else math.ceil(max_tokens / (context - 1))
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(seed))
    return pieces[order[: max(1, wanted)]]
