"""The predictor in floats, its weights as the kernel will hold them when asked."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

from speckv_pynq.predictor.model import HIDDEN, RANK

WEIGHT_UNIT, ROW_UNIT, BIAS_UNIT = 2.0**-6, 2.0**-5, 2.0**-3
WEIGHT_LIMIT, ROW_LIMIT = 127 * WEIGHT_UNIT, 126 * ROW_UNIT
CODE_LIMIT, MOST_SCALE = 7, 18

State = tuple[tuple[torch.Tensor, torch.Tensor], ...]  # of each layer: what it gives on, its cells


def row_scales(rows: torch.Tensor) -> torch.Tensor:
    """(V, 1) whole numbers 1..18: the scale of each row whose codes of -7..7 reach its largest number."""
    largest = rows.detach().abs().amax(dim=1, keepdim=True) / ROW_UNIT
    return (largest / CODE_LIMIT).round().clamp(1, MOST_SCALE)


def rounded(x: torch.Tensor, unit: float | torch.Tensor, limit: int) -> torch.Tensor:
    """Whole multiples of unit, at most `limit` of them; gradients pass as if nothing had happened."""
    fixed = (x.detach() / unit).round().clamp(-limit, limit) * unit
    return x + (fixed - x.detach())


class TokenNetwork(nn.Module):
    """Rows, LSTM layers with projections, biases and class rows; fake: compute with fixed-point weights."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(vocabulary, RANK) * 0.5)
        self.token_bias = nn.Parameter(torch.zeros(vocabulary))
        self.layers = nn.ModuleList(
            nn.LSTM(RANK, HIDDEN, proj_size=RANK, batch_first=True) for _ in range(2)
        )
        self.class_rows = nn.Parameter(torch.randn(classes, RANK) * 0.5)
        self.class_bias = nn.Parameter(torch.zeros(classes))
        self.fake = False

    def fixed_rows(self) -> torch.Tensor:
        """(V, 64)"""
        if not self.fake:
            return self.rows
        return rounded(self.rows, row_scales(self.rows) * ROW_UNIT, CODE_LIMIT)

    def encode(
        self,
        rows: torch.Tensor,
        tokens: torch.Tensor,
        state: State | None,
    ) -> tuple[torch.Tensor, State]:
        """(n, steps, 64) what rows are multiplied with after each token, and the state behind the last one."""
        below, after = nn.functional.embedding(tokens, rows), []
        for i, layer in enumerate(self.layers):
            weights = {
                name: rounded(w, WEIGHT_UNIT, 127) if self.fake and "weight" in name else w
                for name, w in layer.named_parameters()
            }
            given, memory = functional_call(layer, weights, (below, state and state[i]))
            below = given.clamp(-127 * ROW_UNIT, 127 * ROW_UNIT)
            after.append(memory)
        return below, tuple(after)

    def logits(self, rows: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """(..., V)"""
        bias = rounded(self.token_bias, BIAS_UNIT, 127) if self.fake else self.token_bias
        return encoded @ rows.T.to(encoded.dtype) + bias.to(encoded.dtype)

    def class_scores(self, encoded: torch.Tensor) -> torch.Tensor:
        """(..., C)"""
        rows, bias = self.class_rows, self.class_bias
        if self.fake:
            rows, bias = rounded(rows, ROW_UNIT, 127), rounded(bias, BIAS_UNIT, 127)
        return encoded @ rows.T.to(encoded.dtype) + bias.to(encoded.dtype)

    @torch.no_grad()
    def clip(self) -> None:
        """Keeps parameters where fixed point can hold them."""
        for parameter, limit in (
            (self.rows, ROW_LIMIT),
            (self.class_rows, 127 * ROW_UNIT),
            (self.token_bias, 127 * BIAS_UNIT),
            (self.class_bias, 127 * BIAS_UNIT),
            *((w, WEIGHT_LIMIT) for n, w in self.layers.named_parameters() if "weight" in n),
        ):
            parameter.clamp_(-limit, limit)
