"""Which blocks are read together, call after call: of a model's own attention, and made up ones."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq.integrations._forward import cache_argument

Blocks = npt.NDArray[np.int64]
PREFILL_TOKENS = 256  # in one forward pass
DECODE_TOKENS = 32


@dataclass(frozen=True)
class Trace:
    """calls: the distinct blocks, 0..blocks - 1, that each get reads. synthetic: drawn, not recorded."""

    name: str
    synthetic: bool
    blocks: int
    calls: list[Blocks]

    @property
    def uses(self) -> int:
        return sum(map(len, self.calls))


def attention(
    model: Any,
    ids: torch.Tensor,
    steps: int,
    block_tokens: int,
    budget: float,
    advance: Callable[[float], None] = lambda tokens: None,
) -> Trace:
    """Sparse attention: of each layer, at each of the last `steps` tokens, the blocks with the most attention.

    ids: (tokens,) of a text, which stands for what the model would write. budget: share of the complete blocks before
    a token that it reads; attention is summed over heads. A get a layer a step. advance: told of tokens done.
    """
    tops: list[list[Blocks]] = []  # of each step, each layer
    for weights in _attention_weights(model, ids, steps, advance):
        tops += _top_blocks(weights, len(tops) + len(ids) - steps, block_tokens, budget)
    blocks = len(ids) // block_tokens
    calls = [layer * blocks + top for step in tops for layer, top in enumerate(step)]
    calls = [call for call in calls if len(call)]
    numbers = np.unique(np.concatenate(calls), return_inverse=True)[1]
    ends = np.cumsum([len(call) for call in calls])[:-1]
    return Trace("attention", False, int(numbers.max()) + 1, np.split(numbers, ends))


def _attention_weights(
    model: Any, ids: torch.Tensor, steps: int, advance: Callable[[float], None]
) -> Iterator[list[torch.Tensor]]:
    """For the last `steps` tokens, some at a time: of each layer (tokens, keys), summed over heads."""
    from transformers import DynamicCache

    implementation = model.config._attn_implementation
    prompt = len(ids) - steps
    starts = [*range(0, prompt, PREFILL_TOKENS), *range(prompt, len(ids), DECODE_TOKENS)]
    cache = DynamicCache()
    try:
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            wanted = start >= prompt
            if wanted:
                model.set_attn_implementation("eager")  # the only one that gives weights
            with torch.no_grad():
                out = model.base_model(
                    ids[None, start:end].to(model.device),
                    **{cache_argument(model.base_model.__class__): cache},
                    use_cache=True,
                    output_attentions=wanted,
                )
            advance(end - start)
            if wanted:
                yield [layer[0].sum(0).float().cpu() for layer in out.attentions]
    finally:
        model.set_attn_implementation(implementation)


def _top_blocks(
    weights: list[torch.Tensor], first: int, block_tokens: int, budget: float
) -> Iterator[list[Blocks]]:
    """For each token from position `first` on, of each layer: its blocks, by place."""
    sums = []
    for layer in weights:
        whole = layer.shape[1] // block_tokens
        sums.append(layer[:, : whole * block_tokens].unflatten(1, (whole, block_tokens)).sum(2))
    for i in range(len(weights[0])):
        complete = (first + i) // block_tokens
        count = int(np.ceil(budget * complete))
        yield [np.sort(layer[i, :complete].topk(count).indices.numpy()) for layer in sums]


def conversations(turns: int, sessions: int, seed: int = 0) -> Trace:
    """Synthetic: sessions that come back, every turn reading all of its session's blocks and adding some.

    Popularity by Zipf's law (exponent 1), think times log-normal around what that gives, eight turns on average until
    a new session takes the place; all begin with the same 16 blocks.
    """
    rng = np.random.default_rng(seed)
    common = list(range(16))
    blocks = len(common)
    held = [list(common) for _ in range(sessions)]
    pause = np.arange(1, sessions + 1) / sessions
    due = [(rng.exponential(pause[i]), i) for i in range(sessions)]
    heapq.heapify(due)
    calls = []
    for _ in range(turns):
        when, i = heapq.heappop(due)
        added = int(rng.geometric(1 / 4))
        held[i] += range(blocks, blocks + added)
        blocks += added
        calls.append(np.array(held[i]))
        if rng.random() < 1 / 8:
            held[i] = list(common)
        heapq.heappush(due, (when + pause[i] * rng.lognormal(-0.5, 1.0), i))
    return Trace("conversations", True, blocks, calls)


def scans(gets: int, seed: int = 0) -> Trace:
    """Synthetic: 64 prefixes of 32 blocks, popular by Zipf's law, and between them whole documents of 256 blocks.

    One get in five reads a document, one of 32, each as likely.
    """
    rng = np.random.default_rng(seed)
    prefixes = np.arange(64 * 32).reshape(64, 32)
    documents = prefixes.size + np.arange(32 * 256).reshape(32, 256)
    weights = 1 / np.arange(1, 65)
    calls = []
    for _ in range(gets):
        if rng.random() < 0.2:
            calls.append(documents[rng.integers(32)])
        else:
            calls.append(prefixes[rng.choice(64, p=weights / weights.sum())])
    return Trace("scans", True, prefixes.size + documents.size, calls)
