"""Greedy decoding through several caches in turn, a token each, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from speckv_pynq.integrations._forward import forward


@dataclass
class Lane:
    """One cache on its way through a text: what it chose, and how long each step took."""

    name: str
    cache: Any
    prefill_s: float = 0.0
    next_token: int = 0
    tokens: list[int] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)

    @property
    def tokens_per_s(self) -> float:
        """By the median step."""
        return 1 / statistics.median(self.step_s)

    def prefill(self, model: Any, ids: torch.Tensor) -> None:
        """Takes the prompt, (tokens,) int64, in one forward pass."""
        started = _now(model)
        self.next_token = self._forward(model, ids[None].to(model.device))
        self.prefill_s = _now(model) - started

    def step(self, model: Any, token: int | None = None) -> None:
        """Feeds `token` (None: what the lane chose last) and chooses the next."""
        chosen = self.next_token if token is None else token
        self.tokens.append(chosen)
        ids = torch.tensor([[chosen]], device=model.device)
        started = _now(model)
        self.next_token = self._forward(model, ids)
        self.step_s.append(_now(model) - started)

    def _forward(self, model: Any, ids: torch.Tensor) -> int:
        return int(forward(model, ids, self.cache, last=1)[0, -1].argmax())


@torch.inference_mode()
def decode(
    model: Any,
    lanes: list[Lane],
    steps: int,
    *,
    forced: bool = False,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """`steps` tokens on each lane; the order turns by one each step. forced: all take what the first lane chose."""
    for i in range(steps):
        token = lanes[0].next_token if forced else None
        for lane in lanes[i % len(lanes) :] + lanes[: i % len(lanes)]:
            lane.step(model, token)
        after_step()


def same_prefix(a: list[int], b: list[int]) -> int:
    """How many first elements are equal."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _now(model: Any) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
