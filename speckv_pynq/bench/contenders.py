"""Caches that are measured beside the exact one: what opens them, and what they count as their size."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from speckv_pynq.codebook import Codebook
from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache


class Cut(Protocol):
    """Which tokens a cache keeps exact, and how many a block has; a CacheConfig is one."""

    @property
    def sinks(self) -> int: ...
    @property
    def recent(self) -> int: ...
    @property
    def block_tokens(self) -> int: ...


@dataclass(frozen=True)
class Sizes:
    """Bytes of a cache, all layers: fp16 and block_fp16 are what its tokens and its coded tokens take in FP16.

    readable, read: blocks that sparse attention had to choose from, and chose; see SparseStats.
    """

    fp16: int = 0
    held: int = 0
    block_fp16: int = 0
    records: int = 0
    raw_fallbacks: int = 0
    blocks: int = 0
    readable: int = 0
    read: int = 0

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Contender(Protocol):
    """A cache to measure. name: unique in a run. ours: whether it is a scheme of this package."""

    @property
    def name(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def ours(self) -> bool: ...

    def identity(self) -> str:
        """What its figures depend on besides model, text and cut; names them in a file of partial results."""

    def open(self, model: Any) -> AbstractContextManager[Any]:
        """An empty transformers cache; DependencyMissing when something is not installed."""

    def sizes(self, cache: Any) -> Sizes:
        """Of a cache that `open` gave, as it is now."""


@dataclass(frozen=True)
class Scheme:
    """A SpecKVCache. codebook_scope, codebook_step, codebook_texts (file names): from its metadata."""

    name: str
    config: CacheConfig
    codebook_scope: str = ""
    codebook_step: str = ""
    codebook_bytes: int = 0
    codebook_id: str = ""
    codebook_texts: str = ""
    ours: bool = True

    @property
    def scheme(self) -> str:
        return self.config.scheme

    def identity(self) -> str:
        config = self.config
        how = f" sparse {config.budget} {config.least_blocks}" if config.sparse else ""
        return f"{self.scheme} {self.codebook_id} {config.block_dtype}{how}"

    def open(self, model: Any) -> AbstractContextManager[Any]:
        return SpecKVCache.for_model(model, self.config)

    def sizes(self, cache: Any) -> Sizes:
        stats = cache.stats()
        tiers = stats.tiers
        return Sizes(
            fp16=stats.fp16_bytes,
            held=stats.held_bytes,
            block_fp16=tiers.block_fp16_bytes,
            records=tiers.record_bytes,
            raw_fallbacks=tiers.raw_fallbacks,
            blocks=tiers.blocks,
            readable=stats.sparse.held if stats.sparse else 0,
            read=stats.sparse.read if stats.sparse else 0,
        )

    def sparse(self, budget: float) -> Scheme:
        """The same with sparse attention."""
        config = replace(self.config, attention="sparse", budget=budget, policy="heat")
        return replace(self, name=f"{self.name} sparse {budget:g}", config=config)


def schemes(
    plain: Sequence[CacheConfig], calibrated: Sequence[tuple[CacheConfig, Path]]
) -> list[Scheme]:
    """Contenders of configs that need no codebook, then of configs with the file of theirs, named by scope and step."""
    made = [Scheme(config.scheme, config) for config in plain]
    made += [_calibrated(config, path) for config, path in calibrated]
    names = [scheme.name for scheme in made]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two caches would be called {name!r}: give each scheme and codebook once"
            )
    return made


def _calibrated(config: CacheConfig, path: Path) -> Scheme:
    codebook = Codebook.load(path)
    scope = codebook.metadata.get("scope", path.stem)
    step = codebook.metadata.get("step", "")
    label = f"{float(step):.3g}" if step else ""
    return Scheme(
        name=" ".join(part for part in (config.scheme, scope, label) if part),
        config=replace(config, codebook=codebook),
        codebook_scope=scope,
        codebook_step=step,
        codebook_bytes=path.stat().st_size,
        codebook_id=f"{codebook.fingerprint:016x}",
        codebook_texts=codebook.metadata.get("texts", ""),
    )
