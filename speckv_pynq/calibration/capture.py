"""Runs a model over text and gathers what a codebook is made of: moments, Fisher matrices, a sample of vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from speckv_pynq.calibration.settings import KINDS, Layout, Settings
from speckv_pynq.codebook import pair_elements
from speckv_pynq.integrations._forward import forward
from speckv_pynq.integrations._rope import Rope, undo

Progress = Callable[[int], None]  # takes tokens done since the last call


class _Tap(DynamicCache):
    """Hands K and V through and remembers them: an empty cache, as seen by the model."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def update(
        self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **named: Any
    ) -> Any:
        for tensor, kept in ((key_states, self.keys), (value_states, self.values)):
            if torch.is_grad_enabled() and not tensor.requires_grad:
                tensor.requires_grad_()
            kept.append(tensor)
        return key_states, value_states


@dataclass
class Statistics:
    """Of the vectors of a Layout, sinks left out; (parts, ...) with parts = units * transforms, float32.

    second: E[(x - mean)(x - mean)^T]; fisher: E[g g^T], nats: g is the gradient of the log-likelihood of sampled
    labels. peak: largest |x| of each channel, of a rotated pair its largest norm, so that it bounds rotated keys too.
    sample: (parts, blocks * block_tokens, each) float16, whole blocks.
    """

    layout: Layout
    tokens: int
    mean: torch.Tensor
    second: torch.Tensor
    fisher: torch.Tensor
    peak: torch.Tensor
    sample: torch.Tensor


class _Sums:
    """Running sums; moments are taken about the first batch's mean, which keeps float32 accurate."""

    def __init__(self, layout: Layout, device: Any) -> None:
        parts, each = layout.units * layout.transforms, layout.each
        self.layout, self.tokens, self.gradients = layout, 0, 0
        self.centre: torch.Tensor | None = None
        self.first = torch.zeros(parts, each, device=device)
        self.second = torch.zeros(parts, each, each, device=device)
        self.fisher = torch.zeros(parts, each, each, device=device)
        self.peak = torch.zeros(KINDS, layout.layers, layout.heads, layout.head_dim, device=device)
        self.sample: list[torch.Tensor] = []

    def add(self, vectors: torch.Tensor, gradients: torch.Tensor | None = None) -> None:
        if self.centre is None:
            self.centre = vectors.mean(1, keepdim=True)
        apart = vectors - self.centre
        self.tokens += vectors.shape[1]
        self.first += apart.sum(1)
        _add_squares(self.second, apart)
        if gradients is not None:
            self.gradients += gradients.shape[1]
            _add_squares(self.fisher, gradients)

    def statistics(self) -> Statistics:
        assert self.centre is not None
        shift = self.first / self.tokens
        second = self.second.div_(self.tokens)
        for i in range(len(second)):
            second[i].addr_(shift[i], shift[i], alpha=-1)
        return Statistics(
            layout=self.layout,
            tokens=self.tokens,
            mean=self.centre[:, 0] + shift,
            second=second,
            fisher=self.fisher.div_(max(1, self.gradients)),
            peak=self.layout.of_channels(self.peak),
            sample=torch.cat(self.sample, 1),
        )


def _add_squares(sums: torch.Tensor, x: torch.Tensor) -> None:
    for i in range(len(sums)):  # one by one: baddbmm would copy the whole of the sums
        sums[i].addmm_(x[i].T, x[i])


def capture(
    model: Any,
    sequences: torch.Tensor,
    layout: Layout,
    rope: Rope,
    settings: Settings,
    progress: Progress = lambda tokens: None,
) -> Statistics:
    """Statistics of the model's cache over sequences (n, context) int64."""
    context = sequences.shape[1]
    sums = _Sums(layout, model.device)
    generator = torch.Generator(model.device).manual_seed(settings.seed)
    skipped = settings.sinks if settings.exclude_sinks else 0
    blocks = (context - skipped) // settings.block_tokens
    keep_every = max(1, len(sequences) * blocks * settings.block_tokens // settings.sample_tokens)
    seen = 0
    wanted_share = 1 - settings.fisher_share  # so that the first rows go backward too
    for rows in sequences.split(max(1, settings.batch_tokens // context)):
        wanted_share += settings.fisher_share
        with_fisher = wanted_share >= 1 - 1e-9
        wanted_share -= with_fisher
        found = _run(model, rows.to(model.device), rope, generator if with_fisher else None)
        found = tuple(x[:, :, :, skipped:] for x in found)
        _peaks(sums.peak, rope, *found[:2])
        vectors, *pulls = (
            layout.gather(_by_token(k), _by_token(v))
            for k, v in zip(found[::2], found[1::2], strict=True)
        )
        sums.add(vectors, *pulls)
        kept = _blocks(vectors, len(rows), blocks, settings.block_tokens)
        wanted = [i for i in range(kept.shape[1]) if (seen + i) % keep_every == 0]
        seen += kept.shape[1]
        sums.sample.append(kept[:, wanted].flatten(1, 2).half())
        progress(rows.numel())
    return sums.statistics()


def _run(
    model: Any, ids: torch.Tensor, rope: Rope, generator: torch.Generator | None
) -> tuple[torch.Tensor, ...]:
    """Keys and values, (layers, rows, heads, tokens, head_dim), keys not rotated; with a generator the gradients of
    both too.
    """
    tap = _Tap(model.config)
    with torch.set_grad_enabled(generator is not None):
        logits = forward(model, ids, tap)
        stored = tap.keys + tap.values
        pulls = [] if generator is None else _gradients(logits, stored, generator)
    keys, values = _apart(stored, rope)
    return (keys, values, *_apart(pulls, rope)) if pulls else (keys, values)


def _gradients(
    logits: torch.Tensor, stored: list[torch.Tensor], generator: torch.Generator
) -> list[torch.Tensor]:
    """Of the negative log-likelihood of labels that the model itself gives, summed over positions."""
    with torch.no_grad():
        slope = logits.detach().float().softmax(-1).flatten(0, 1)
        labels = torch.multinomial(slope, 1, generator=generator)
        slope.scatter_add_(1, labels, slope.new_full(labels.shape, -1.0))
        slope = slope.view_as(logits).to(logits.dtype)
    return list(torch.autograd.grad(logits, stored, slope))


def _apart(both: list[torch.Tensor], rope: Rope) -> tuple[torch.Tensor, torch.Tensor]:
    """Of layers' keys, then values (or their gradients): each in one tensor, rotation undone.

    Rotation is orthogonal, so undoing it carries gradients back as well.
    """
    layers = len(both) // 2
    keys, values = (
        torch.stack([x.detach().float() for x in p]) for p in (both[:layers], both[layers:])
    )
    return undo(keys, torch.arange(keys.shape[3]), rope), values


def _peaks(peak: torch.Tensor, rope: Rope, keys: torch.Tensor, values: torch.Tensor) -> None:
    for found, x in zip(peak, (_norms(keys, rope), values.abs()), strict=True):
        torch.maximum(found, x.amax((1, 3)), out=found)


def _norms(keys: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Of each element's rotated pair, which no rotation changes; |keys| of elements that do not turn."""
    out = keys.abs()
    a, b = (torch.from_numpy(i) for i in pair_elements(rope.pairs, rope.interleaved))
    out[..., a] = out[..., b] = torch.hypot(keys[..., a], keys[..., b])
    return out


def _by_token(x: torch.Tensor) -> torch.Tensor:
    """(layers, rows * tokens, heads, head_dim) of (layers, rows, heads, tokens, head_dim)."""
    return x.transpose(2, 3).flatten(1, 2)


def _blocks(vectors: torch.Tensor, rows: int, blocks: int, block_tokens: int) -> torch.Tensor:
    """(parts, rows * blocks, block_tokens, each): the whole blocks of each row."""
    parts, _, each = vectors.shape
    whole = vectors.reshape(parts, rows, -1, each)[:, :, : blocks * block_tokens]
    return whole.reshape(parts, rows * blocks, block_tokens, each)
