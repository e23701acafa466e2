"""What a quantiser does to a model's predictions: text goes through a cache that holds decoded values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from speckv_pynq.calibration.capture import Progress
from speckv_pynq.calibration.settings import Layout, Settings
from speckv_pynq.calibration.transform import Quantiser
from speckv_pynq.integrations._forward import forward
from speckv_pynq.integrations._rope import Rope, redo, undo

BATCHES = 2  # of batch_tokens each go through a cache at once: no gradients are kept here
KEPT_BYTES = 4 << 30  # of exact predictions, from one judgement to the next


@dataclass(frozen=True)
class Judged:
    """dppl: rise of perplexity in percent, dppl_error: twice its standard error over sequences; kl: of predictions,
    nats; agree: share of equal greedy tokens; refused: share of blocks that the quantiser cannot code.

    coded: of each step of decoding q (parts, rows * block_tokens, rank) int16 and whether it fits (parts, rows).
    """

    dppl: float
    dppl_error: float
    kl: float
    agree: float
    refused: float
    tokens: int
    coded: list[tuple[torch.Tensor, torch.Tensor]] = field(repr=False)


class Judge:
    """Held-out sequences (n, context), and what a model with an exact cache says of them."""

    def __init__(
        self, model: Any, sequences: torch.Tensor, layout: Layout, rope: Rope, settings: Settings
    ) -> None:
        self.model, self.layout, self.rope, self.settings = model, layout, rope, settings
        rows = max(1, BATCHES * settings.batch_tokens // sequences.shape[1])
        self.batches = [ids.to(model.device) for ids in sequences.split(rows)]
        vocabulary = model.get_input_embeddings().weight.shape[0]
        self._keep = 4 * vocabulary * sequences.numel() <= KEPT_BYTES
        self._exact: dict[int, torch.Tensor] = {}

    @property
    def units(self) -> int:
        """Of progress: tokens scored."""
        return sum(ids.numel() - len(ids) for ids in self.batches)

    @torch.inference_mode()
    def __call__(self, quantiser: Quantiser, progress: Progress = lambda tokens: None) -> Judged:
        """Both caches see the same tokens. Written as in decoding: a block is coded once `sinks` and `recent` tokens
        besides it are exact.
        """
        sums, coded = [], []
        for i, ids in enumerate(self.batches):
            codec = _Coder(quantiser, self.layout, self.rope, self.settings)
            sums.append(self._compare(ids, self._exact_of(i), codec, progress))
            coded += codec.coded
        each = torch.cat(sums).double().cpu()  # extra nll, KL, agreements of each sequence
        extra, kl, agree = (each.sum(0) / self.units).tolist()
        spread = float(each[:, 0].std()) if len(each) > 1 else math.nan
        return Judged(
            dppl=100 * math.expm1(extra),
            dppl_error=200 * spread * math.sqrt(len(each)) / self.units,
            kl=kl,
            agree=agree,
            refused=1 - float(torch.cat([fits.flatten() for _, fits in coded]).float().mean()),
            tokens=self.units,
            coded=coded,
        )

    def _exact_of(self, i: int) -> torch.Tensor:
        """(rows, positions - 1, vocabulary) log-probabilities of a batch."""
        if i in self._exact:
            return self._exact[i]
        logits = self.model(input_ids=self.batches[i], use_cache=False).logits
        found = torch.log_softmax(logits[:, :-1].float(), -1)
        if self._keep:
            self._exact[i] = found
        return found

    def _compare(
        self, ids: torch.Tensor, exact: torch.Tensor, codec: _Coder, progress: Progress
    ) -> torch.Tensor:
        """(rows, 3): sums of extra nll, KL and agreement over the positions of each row."""
        cache = DynamicCache(config=self.model.config)
        sums = torch.zeros(len(ids), 3, device=ids.device)
        for low, high in _chunks(ids.shape[1], self.settings):
            codec.code_up_to(cache, low)
            logits = forward(self.model, ids[:, low:high], cache)
            targets = ids[:, low + 1 : high + 1]
            scored = targets.shape[1]
            got = torch.log_softmax(logits[:, :scored].float(), -1)
            want = exact[:, low : low + scored]
            sums[:, 0] += (want - got).gather(2, targets[..., None]).sum((1, 2))
            sums[:, 1] += (want.exp() * (want - got)).sum((1, 2))
            sums[:, 2] += (want.argmax(2) == got.argmax(2)).sum(1)
            progress(len(ids) * scored)
        return sums


def _chunks(end: int, settings: Settings) -> Iterator[tuple[int, int]]:
    first = settings.sinks + settings.recent + settings.block_tokens
    yield from itertools.pairwise([0, *range(first, end, settings.block_tokens), end])


class _Coder:
    """Puts decoded values in the place of a cache's whole blocks, oldest first."""

    def __init__(
        self,
        quantiser: Quantiser,
        layout: Layout,
        rope: Rope,
        settings: Settings,
    ) -> None:
        self.quantiser, self.layout, self.rope = quantiser, layout, rope
        self.settings, self.done = settings, settings.sinks
        self.coded: list[tuple[torch.Tensor, torch.Tensor]] = []

    def code_up_to(self, cache: Any, tokens: int) -> None:
        """Codes what is due when the cache holds so many tokens."""
        block = self.settings.block_tokens
        while self.done + block + self.settings.recent <= tokens:
            self._code(cache, self.done, self.done + block)
            self.done += block

    def _code(self, cache: Any, low: int, high: int) -> None:
        keys, values = (
            torch.stack([getattr(layer, name)[:, :, low:high] for layer in cache.layers])
            for name in ("keys", "values")
        )
        positions = torch.arange(low, high)
        rows, block = keys.shape[1], high - low
        both = (undo(keys, positions, self.rope), values)  # layers, rows, heads, tokens, head_dim
        vectors = self.layout.gather(*(x.float().transpose(2, 3).flatten(1, 2) for x in both))
        q, fits = self.quantiser.quantise(vectors)
        self.coded.append((q.to(torch.int16), fits.view(len(q), rows, block).all(2)))
        decoded = self.layout.scatter(self.quantiser.dequantise(q))
        keys, values = (x.unflatten(1, (rows, block)).transpose(2, 3) for x in decoded)
        keys = redo(keys, positions, self.rope)
        for layer, k, v in zip(cache.layers, keys, values, strict=True):
            layer.keys[:, :, low:high] = k.half().to(layer.keys.dtype)
            layer.values[:, :, low:high] = v.half().to(layer.values.dtype)
