"""Real computation between the layers of a step: matrices of a model's sizes, attention over fetched blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class ModelSize:
    """Of a decoder with grouped queries and a gated MLP; the defaults are Llama 3.2 1B's.

    alike: all layers have the same weights, to take less memory; larger than caches, they are read as slowly.
    """

    layers: int = 16
    hidden: int = 2048
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 64
    mlp: int = 8192
    vocabulary: int = 128256
    alike: bool = False

    @property
    def token_bytes(self) -> int:
        """Of a token's keys and values in all layers, FP16."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 2


LARGE = ModelSize(
    layers=16, hidden=8192, heads=64, kv_heads=8, head_dim=128, mlp=28672, alike=True
)  # Llama 3.1 70B's, a fifth of its layers


class Decoder:
    """One token of one sequence through all layers, at random weights. Keys stand rotated, RoPE is left out.

    On CUDA a layer is one launch of a graph: its time is the device's, as in serving, not that of calls of the host.
    """

    def __init__(
        self,
        size: ModelSize,
        tokens: int,
        device: torch.device,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        self.size, self.tokens, self.device, self.dtype = size, tokens, device, dtype
        self._make = torch.Generator(device=device).manual_seed(0)
        kv, all_heads = 2 * size.kv_heads * size.head_dim, size.heads * size.head_dim
        self._weights = [
            tuple(
                self._random(*shape)
                for shape in (
                    (all_heads + kv, size.hidden),
                    (size.hidden, all_heads),
                    (2 * size.mlp, size.hidden),
                    (size.hidden, size.mlp),
                )
            )
            for _ in range(1 if size.alike else size.layers)
        ]
        self._head = self._random(size.vocabulary, size.hidden)
        self.x = self._random(1, size.hidden)
        shape = (2, size.kv_heads, tokens + 1, size.head_dim)
        self.kv = torch.zeros(shape, dtype=dtype, device=device)
        self._graphs = [self._captured(i) for i in range(len(self._weights))] if self._cuda else []

    @property
    def _cuda(self) -> bool:
        return self.device.type == "cuda"

    def layer(self, index: int) -> None:
        """Takes self.x through a layer whose blocks are in self.kv; the token's own K and V go behind them."""
        at = index % len(self._weights)
        if self._graphs:
            self._graphs[at].replay()
        else:
            self._through(at)

    def _captured(self, index: int) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # what libraries set up at first use must not be captured
            for _ in range(3):
                self._through(index)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._through(index)
        return graph

    def _through(self, index: int) -> None:
        size, (qkv, out, up, down) = self.size, self._weights[index]
        found = functional.linear(_normed(self.x), qkv)
        kv_width = size.kv_heads * size.head_dim
        q, kv = found.split((size.heads * size.head_dim, 2 * kv_width), dim=1)
        self.kv[:, :, -1] = kv.view(2, size.kv_heads, size.head_dim)
        # The queries of a KV head stand as its rows: a step's only token sees all tokens, no mask.
        q = q.view(1, size.kv_heads, size.heads // size.kv_heads, size.head_dim)
        read = functional.scaled_dot_product_attention(q, self.kv[None, 0], self.kv[None, 1])
        x = self.x + functional.linear(read.reshape(1, -1), out)
        gate, value = functional.linear(_normed(x), up).chunk(2, dim=1)
        self.x.copy_(x + functional.linear(functional.silu(gate) * value, down))

    def finish(self) -> None:
        """The logits; the next step's input is made of them, so that no step can begin early."""
        logits = functional.linear(_normed(self.x), self._head)
        self.x.copy_(_normed(logits[:, : self.size.hidden]))

    def _random(self, *shape: int) -> torch.Tensor:
        scale = 1 / math.sqrt(shape[-1])
        made = torch.empty(shape, dtype=self.dtype, device=self.device)
        return made.normal_(0, scale, generator=self._make)


def _normed(x: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)
