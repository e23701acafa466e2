"""Finds the step that meets a target, and states what its codebook is expected to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from speckv_pynq.calibration import build
from speckv_pynq.calibration.build import Maker
from speckv_pynq.calibration.capture import Progress, capture
from speckv_pynq.calibration.settings import Layout, Settings
from speckv_pynq.calibration.simulate import Judge, Judged
from speckv_pynq.codebook import Codebook
from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations._model import ModelShape
from speckv_pynq.integrations._rope import Rope, check_rope

LEAST_TOKENS_A_CHANNEL = 4  # of calibration text, for each channel of a transform
TRIES = 4
CLOSE = 0.04  # of the target, relative
DPPL_SPREAD = 0.3
Stage = Callable[[str, float], Progress]  # a name and its units -> what takes units done


@dataclass(frozen=True)
class Calibration:
    """A codebook, what held-out text says of it, and figures for people."""

    codebook: Codebook
    judged: Judged
    ratio: float
    step: float
    tokens: int
    notes: tuple[str, ...]


def calibrate(
    model: Any,
    sequences: torch.Tensor,
    held_out: torch.Tensor,
    settings: Settings,
    stage: Stage = lambda name, units: lambda done: None,
    metadata: Mapping[str, str] | None = None,
) -> Calibration:
    """From sequences (n, context) and held-out ones, int64 token ids, by which the step is judged."""
    shape = ModelShape.of(model)
    layout = Layout.of(settings.scope, shape.layers, shape.heads, shape.head_dim, settings.apart)
    _check_text(sequences, held_out, layout, settings)
    rope = Rope.of(model)
    check_rope(model, rope)
    if not settings.unrotate:
        rope = Rope(rope.turns[:0], rope.interleaved)
    advance = stage("reading text", sequences.numel())
    statistics = capture(model, sequences, layout, rope, settings, advance)
    maker = Maker(statistics, rope, settings)
    search = _Search(Judge(model, held_out, layout, rope, settings), maker, stage)
    step = settings.step or search.step()
    judged, fitted = search.judged(step), maker.fitted(step)
    ratio = build.ratio(maker, step, fitted, judged)
    notes = _notes(maker, step, judged)
    facts = {
        **(metadata or {}),
        **_facts(maker, step, judged, ratio),
        "notes": "; ".join(notes),
    }
    codebook = maker.codebook(step, fitted, facts)
    return Calibration(codebook, judged, ratio, step, statistics.tokens, notes)


def _check_text(
    sequences: torch.Tensor, held_out: torch.Tensor, layout: Layout, settings: Settings
) -> None:
    context = sequences.shape[1]
    least = settings.sinks + settings.recent + 2 * settings.block_tokens
    if context < least:
        raise ConfigError(f"sequences of {context} tokens, {least} are needed")
    needed = LEAST_TOKENS_A_CHANNEL * layout.each
    if sequences.numel() < needed:
        raise ConfigError(
            f"{sequences.numel()} tokens of calibration text; scope {settings.scope} needs {needed}"
        )
    if not len(held_out):
        raise ConfigError("no held-out text to judge a step by; give a longer text")


class _Search:
    def __init__(self, judge: Judge, maker: Maker, stage: Stage) -> None:
        self.judge, self.maker, self.stage = judge, maker, stage
        self._judged: dict[float, Judged] = {}

    def step(self) -> float:
        settings = self.maker.settings
        if settings.target_dppl is not None:
            return self._secant(self._dppl, settings.target_dppl, 2.0)
        assert settings.target_ratio is not None
        return self._secant(self._ratio, settings.target_ratio, 0.5)

    def _secant(self, figure: Callable[[float], float], target: float, power: float) -> float:
        """The step whose figure is the target's; figures grow about as step**power."""
        # By theory, for the target or for half a percent.
        step = self.maker.expected_step(math.log1p((self.maker.settings.target_dppl or 0.5) / 100))
        seen: list[tuple[float, float]] = []
        for _ in range(TRIES):
            found = max(figure(step), 1e-9)
            seen.append((math.log(step), math.log(found / target)))
            if abs(found / target - 1) < CLOSE:
                break
            if len(seen) > 1:
                (x0, y0), (x1, y1) = seen[-2:]
                if abs(x1 - x0) > 1e-6:
                    power = min(4.0, max(0.2, (y1 - y0) / (x1 - x0)))
            step = math.exp(seen[-1][0] - max(-1.5, min(1.5, seen[-1][1] / power)))
        best, _ = min(seen, key=lambda pair: abs(pair[1]))
        return math.exp(best)

    def _dppl(self, step: float) -> float:
        return likely_dppl(self.judged(step))

    def _ratio(self, step: float) -> float:
        return build.ratio(self.maker, step, self.maker.fitted(step), self.judged(step))

    def judged(self, step: float) -> Judged:
        if step not in self._judged:
            advance = self.stage(f"judging step {step:.4g}", self.judge.units)
            self._judged = {step: self.judge(self.maker.quantiser(step), advance)}
        return self._judged[step]


def likely_dppl(judged: Judged) -> float:
    """Percent: the measured rise, where held-out text is short drawn towards what the predictions' divergence tells.

    For a model that knows its text the rise is the KL divergence (in expectation, to second order), which a
    hundredth of the tokens measures; how far the two lie apart on real text is taken as DPPL_SPREAD of the KL.
    """
    by_kl = 100 * math.expm1(judged.kl)
    error = judged.dppl_error / 2
    if math.isnan(error):
        return by_kl
    trust = (DPPL_SPREAD * by_kl) ** 2 / ((DPPL_SPREAD * by_kl) ** 2 + error**2)
    return trust * judged.dppl + (1 - trust) * by_kl


def _notes(maker: Maker, step: float, judged: Judged) -> tuple[str, ...]:
    made, notes = maker.quantiser(step), []
    if made.cut:
        notes.append(
            f"{made.cut} of {made.cut + sum(made.ranks)} components that pay are left out to stay within "
            f"{maker.settings.byte_limit} bytes"
        )
    if judged.refused:
        notes.append(f"{100 * judged.refused:.2g} % of held-out records fall back to int4")
    if maker.rope.note:
        notes.append(maker.rope.note)
    return tuple(notes)


def _facts(maker: Maker, step: float, judged: Judged, ratio: float) -> dict[str, str]:
    s, layout = maker.settings, maker.statistics.layout
    rank = sum(maker.quantiser(step).ranks)
    return {
        "scope": s.scope,
        "step": repr(step),
        "tokens": str(maker.statistics.tokens),
        "damping": repr(s.damping),
        "dead_zone": repr(s.dead_zone),
        "sinks": str(s.sinks),
        "recent": str(s.recent),
        "block_tokens": str(s.block_tokens),
        "seed": str(s.seed),
        "apart": str(int(s.apart)),
        "fisher": str(int(s.fisher)),
        "unrotated": str(int(s.unrotate)),
        "table_sets": str(s.table_sets),
        "rank_share": f"{rank / (layout.units * layout.inputs):.4f}",
        "expected_ratio": f"{ratio:.4f}",
        "expected_dppl_percent": f"{judged.dppl:.4f}",
        "expected_dppl_error": f"{judged.dppl_error:.4f}",
        "expected_kl_nats": f"{judged.kl:.3e}",
        "expected_agree": f"{judged.agree:.4f}",
        "expected_tokens": str(judged.tokens),
    }
