"""Texts and files of token ids as sequences of one length, kinds mixed, the last of each held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from speckv_pynq.errors import ConfigError

Encode = Callable[[str], torch.Tensor]  # a text -> (tokens,) int64


def sequences(paths: Sequence[Path], encode: Encode, context: int) -> torch.Tensor:
    """(n, context) int64: the files cut up, each on its own, and mixed so that any run has its share of each."""
    pieces: list[tuple[float, int, torch.Tensor]] = []
    for i, path in enumerate(paths):
        rows = _rows(path, encode, context)
        pieces += [((j + 0.5) / len(rows), i, row) for j, row in enumerate(rows)]
    if not pieces:
        raise ConfigError(f"no text of {len(paths)} files has {context} tokens, one context")
    pieces.sort(key=lambda piece: piece[:2])
    return torch.stack([row for _, _, row in pieces])


def split(
    rows: torch.Tensor, tokens: int | None, held_out_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(calibration, held out) of mixed sequences. Held out: the last ones, at most a fifth; tokens: of the others."""
    context = rows.shape[1]
    count = min(max(1, -(-held_out_tokens // context)), len(rows) // 5)
    if not count:
        raise ConfigError(
            f"{rows.numel()} tokens of text; {5 * context} are needed: a fifth is held out"
        )
    used = rows[:-count]
    if tokens is not None:
        if used.numel() < tokens:
            raise ConfigError(
                f"{tokens} tokens asked for, {used.numel()} there besides the held-out ones"
            )
        wanted = -(-tokens // context)
        # spread over all of it, so that files are read to their ends
        used = used[torch.linspace(0, len(used) - 1, wanted).round().long()]
    return used, rows[-count:]


def digest(*rows: torch.Tensor) -> str:
    """16 hexadecimal digits of the token ids."""
    found = hashlib.sha256()
    for part in rows:
        found.update(f"{tuple(part.shape)}".encode())
        found.update(part.cpu().numpy().astype("<i8").tobytes())
    return found.hexdigest()[:16]


def _rows(path: Path, encode: Encode, context: int) -> torch.Tensor:
    """(n, context) int64 of one file."""
    if path.suffix == ".npy":
        ids = _token_ids(path)
    else:
        try:
            ids = encode(path.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise ConfigError(f"text {str(path)!r}: {error.strerror}") from error
    if ids.ndim == 2:
        count = ids.shape[1] // context
        return ids[:, : count * context].reshape(-1, context)
    count = len(ids) // context
    return ids[: count * context].view(count, context)


def _token_ids(path: Path) -> torch.Tensor:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"text {str(path)!r}: not a NumPy file: {error}") from error
    if found.ndim not in (1, 2) or not np.issubdtype(found.dtype, np.integer):
        raise ConfigError(
            f"text {str(path)!r}: {found.dtype} {found.shape}; token ids are integers, (tokens,) or (n, tokens)"
        )
    return torch.from_numpy(found.astype(np.int64))
