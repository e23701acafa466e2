"""Partial results of an evaluation in a file, so that a run that was cut off goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speckv_pynq.bench.contenders import Sizes
from speckv_pynq.bench.quality import Floats
from speckv_pynq.errors import ConfigError

FORMAT = 1


def key(sequences: torch.Tensor, *settings: Any) -> str:
    """What partial results must agree on to be of the same run: the text, and how it was cut and read."""
    digest = hashlib.sha256(sequences.numpy().tobytes())
    digest.update(repr((FORMAT, sequences.shape, settings)).encode())
    return digest.hexdigest()[:16]


class Ledger:
    """Sums and sizes by contender and batch. path None: in memory only."""

    def __init__(self, path: Path | None, run: str) -> None:
        self._path, self._run = path, run
        self._entries: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._read(path)

    def missing(self, identities: Sequence[str], batch: int) -> list[int]:
        """Indices of those without an entry for this batch."""
        return [
            i for i, who in enumerate(identities) if str(batch) not in self._entries.get(who, {})
        ]

    def get(self, identity: str, batch: int) -> tuple[Floats, Sizes]:
        """Sums (rows, SUMS) of `quality.score` and sizes at the end of that batch."""
        entry = self._entries[identity][str(batch)]
        return np.array(entry["sums"]), Sizes(*entry["sizes"])

    def add(self, identity: str, batch: int, sums: Floats, sizes: Sizes) -> None:
        entry = {"sums": sums.tolist(), "sizes": astuple(sizes)}
        self._entries.setdefault(identity, {})[str(batch)] = entry

    def save(self) -> None:
        """All or nothing: a run that is stopped meanwhile leaves the earlier file."""
        if self._path is None:
            return
        scratch = self._path.with_name(self._path.name + ".part")
        scratch.write_text(json.dumps({"run": self._run, "entries": self._entries}))
        scratch.replace(self._path)

    def _read(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text())
            run, self._entries = found["run"], found["entries"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: not a file of partial results: {error!r}") from error
        if run != self._run:
            raise ConfigError(
                f"{path}: run {run}, this one is {self._run}: it differs in model, text, context, batch, seed or "
                "cache options; name another file"
            )
