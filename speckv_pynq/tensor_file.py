"""Named arrays with metadata in a safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq.errors import DependencyMissing, SpeckvError

Arrays = dict[str, npt.NDArray[Any]]


def save(
    path: Path | str, arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str]
) -> None:
    """Writes the file, arrays in C order."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _safetensors().save_file(whole, str(path), metadata=metadata)


def read(path: Path | str, error: type[SpeckvError]) -> tuple[dict[str, str], Arrays]:
    """Metadata and arrays; `error` where the file cannot be read."""
    _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "numpy") as file:
            names = list(file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as cause:
        raise error(f"not a readable safetensors file: {cause}") from cause


def fingerprint(file_format: str, arrays: Mapping[str, npt.NDArray[Any]], more: str) -> int:
    """64 bits of SHA-256 over the format, names, types and bytes of the arrays, and a text; never 0."""
    digest = hashlib.sha256(file_format.encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(more.encode())
    return int.from_bytes(digest.digest()[:8], "little") or 1


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise DependencyMissing(
            "codebooks and predictors need safetensors: pip install safetensors"
        ) from error
    return safetensors.numpy
