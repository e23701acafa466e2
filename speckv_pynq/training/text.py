"""Tokens as streams that are read side by side, the last ones held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq.errors import ConfigError

HELD_OUT_SHARE, HELD_OUT_TOKENS = 0.02, 200_000  # the lesser of the two

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Text:
    """used, held_out: (tokens,) int32."""

    used: I32
    held_out: I32

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all tokens."""
        return hashlib.sha256(self.used.tobytes() + self.held_out.tobytes()).hexdigest()[:16]


def split(tokens: npt.NDArray[np.integer], vocabulary: int) -> Text:
    """Checks token ids, (tokens,), and holds the last ones out; ConfigError."""
    if tokens.ndim != 1 or len(tokens) < 1000:
        raise ConfigError(f"tokens {tokens.shape}: at least 1000 in one row are needed")
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise ConfigError(
            f"tokens {tokens.min()}..{tokens.max()}, the model's are 0..{vocabulary - 1}"
        )
    count = max(2, min(HELD_OUT_TOKENS, int(len(tokens) * HELD_OUT_SHARE)))
    ids = tokens.astype(np.int32)
    return Text(ids[:-count], ids[-count:])


def streams(tokens: I32, rows: int, device: str) -> torch.Tensor:
    """(rows, n) int64, the text cut into streams of one length; fewer rows where there is little text."""
    rows = min(rows, max(1, len(tokens) // 200))
    length = len(tokens) // rows
    return torch.from_numpy(tokens[: rows * length].astype(np.int64)).view(rows, length).to(device)


def steps(found: torch.Tensor, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(rows, count) tokens and those that follow each, one piece after the other; the last one may be shorter."""
    for first in range(0, found.shape[1] - 1, count):
        end = min(first + count, found.shape[1] - 1)
        yield found[:, first:end], found[:, first + 1 : end + 1]
