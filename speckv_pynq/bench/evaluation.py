"""Quality and size of coded caches on text: the exact cache and each coded one go through it side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from speckv_pynq.bench.contenders import Contender, Cut, Sizes
from speckv_pynq.bench.ledger import Ledger
from speckv_pynq.bench.models import Loaded
from speckv_pynq.bench.quality import Floats, Quality, chunks, score
from speckv_pynq.errors import DependencyMissing
from speckv_pynq.integrations._forward import forward
from speckv_pynq.integrations.transformers import SpecKVCache

Progress = Callable[[int], None]  # takes tokens scored since the last call
PASS_TOKENS = 64  # of a prefill, that a cache with sparse attention learns from
PROBE_BLOCKS = 8  # what a foreign cache is tried on, in blocks: past its 128 exact tokens


@dataclass(frozen=True)
class Evaluation:
    """One contender's result. Ratios as in CacheStats, over the bytes of all batches at their ends.

    read_percent: of the coded blocks that dense attention would have read, those that sparse attention chose.
    """

    name: str
    scheme: str
    quality: Quality
    ratio_records: float
    ratio_held: float
    raw_fallbacks: int
    blocks: int
    read_percent: float

    @classmethod
    def of(cls, contender: Contender, sums: Sequence[Floats], size: Sizes, seed: int) -> Evaluation:
        """sums: (rows, SUMS) of each batch."""
        return cls(
            name=contender.name,
            scheme=contender.scheme,
            quality=Quality.of(np.concatenate(sums), seed),
            ratio_records=size.block_fp16 / max(1, size.records),
            ratio_held=size.fp16 / max(1, size.held),
            raw_fallbacks=size.raw_fallbacks,
            blocks=size.blocks,
            read_percent=100 * size.read / size.readable if size.readable else 100.0,
        )


@torch.inference_mode()
def evaluate(
    loaded: Loaded,
    sequences: torch.Tensor,
    contenders: Sequence[Contender],
    cut: Cut,
    *,
    batch: int,
    seed: int,
    ledger: Ledger,
    prefill: int = 0,
    progress: Progress = lambda tokens: None,
) -> list[Evaluation]:
    """Results in the order of `contenders`, whose blocks are as `cut` says. sequences: (n, context) int64.

    The first `prefill` tokens of a sequence are not scored: what one exact pass makes of them is given to all caches,
    and the last PASS_TOKENS of them each cache reads for itself. Of the others all caches take chunks of one block, so
    nothing but the coding differs between them and the exact one, which goes through each batch once; those with sparse
    attention, which is there for decoding, take one token at a time. What `ledger` holds already is not measured again;
    it is saved after each batch.
    """
    identities = [contender.identity() for contender in contenders]
    batches = sequences.tensor_split(-(-len(sequences) // batch))  # as equal as possible
    for i, rows in enumerate(batches):
        missing = ledger.missing(identities, i)
        if not missing:
            progress(len(rows) * (rows.shape[1] - prefill - 1))
            continue
        with ExitStack() as stack:
            caches = [stack.enter_context(contenders[j].open(loaded.model)) for j in missing]
            exact = DynamicCache(config=loaded.model.config)
            if prefill:
                _prefill(loaded.model, rows[:, :prefill].to(loaded.model.device), exact, caches)
            scored = score_text(loaded.model, rows[:, prefill:], exact, caches, cut, progress)
            for j, cache, sums in zip(missing, caches, scored, strict=True):
                ledger.add(identities[j], i, sums.sum(0), contenders[j].sizes(cache))
        ledger.save()
    results = []
    for contender, identity in zip(contenders, identities, strict=True):
        parts = [ledger.get(identity, i) for i in range(len(batches))]
        size = sum((sizes for _, sizes in parts), Sizes())
        results.append(Evaluation.of(contender, [sums for sums, _ in parts], size, seed))
    return results


@torch.inference_mode()
def usable(
    loaded: Loaded, rows: torch.Tensor, contenders: Sequence[Contender], cut: Cut
) -> tuple[list[Contender], dict[str, str]]:
    """Those that work here, and why the others do not: each foreign one reads the beginning of `rows`, (n, tokens)."""
    works: list[Contender] = []
    why: dict[str, str] = {}
    end = min(rows.shape[1], PROBE_BLOCKS * cut.block_tokens)
    bounds = list(chunks(0, end, cut.sinks + cut.recent, cut.block_tokens))
    for contender in contenders:
        try:
            if not contender.ours:
                with contender.open(loaded.model) as cache:
                    for (
                        low,
                        high,
                    ) in bounds:  # those of the run: hqq packs some numbers of tokens only
                        ids = rows[:1, low:high].to(loaded.model.device)
                        forward(loaded.model, ids, cache, last=1)
        except DependencyMissing as error:
            why[contender.name] = str(error)
        except Exception as error:  # whatever foreign code raises costs its own line, not the run
            why[contender.name] = f"failed: {error!r}"
        else:
            works.append(contender)
    return works, why


def _prefill(model: Any, ids: torch.Tensor, exact: DynamicCache, caches: Sequence[Any]) -> None:
    """ids: (rows, tokens), the first tokens of all caches, which are empty."""
    whole = max(0, ids.shape[1] - PASS_TOKENS)
    if whole:
        forward(model, ids[:, :whole], exact, last=1)
        for cache in caches:
            for i, layer in enumerate(exact.layers):
                cache.update(layer.keys, layer.values, i)
    for cache in (exact, *caches):
        forward(model, ids[:, whole:], cache, last=1)


def score_text(
    model: Any,
    rows: torch.Tensor,
    exact: Any,
    caches: Sequence[Any],
    cut: Cut,
    progress: Progress = lambda tokens: None,
) -> list[Floats]:
    """(chunks, rows, SUMS) of each cache against `exact`; all hold the same tokens already, or none.

    rows: (n, positions) int64, what follows those tokens. Every position but the last predicts the one after it.
    """
    sums: list[list[Floats]] = [[] for _ in caches]
    past, end = exact.get_seq_length(), rows.shape[1]
    uncoded = cut.sinks + cut.recent
    for low, high in chunks(past, past + end, uncoded, cut.block_tokens):
        ids = rows[:, low - past : high - past].to(model.device)
        targets = rows[:, low - past + 1 : high - past + 1].to(model.device)
        scored = targets.shape[1]
        want = _log_probabilities(model, ids, exact)[:, :scored]
        for cache, parts in zip(caches, sums, strict=True):
            got = _log_probabilities(model, ids, cache)[:, :scored]
            parts.append(score(want, got, targets))
        progress(len(rows) * scored)
    return [np.stack(parts) for parts in sums]


def _log_probabilities(model: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    one_by_one = isinstance(cache, SpecKVCache) and cache.sparse
    parts = ids.split(1, dim=1) if one_by_one else (ids,)
    logits = torch.cat([forward(model, part, cache) for part in parts], 1)
    return torch.log_softmax(logits.float(), dim=-1)
