"""What each ingredient of scheme klt gives: codebooks without one of them, judged on the same text.

A variant is judged by the calibration's own simulation, whose integers are those of the kernels, with the full
recipe's step and with the step at which it moves predictions as far as the full recipe does: the same KL divergence,
which is far less noisy than perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from speckv_pynq.calibration import Layout, Settings, build
from speckv_pynq.calibration.build import Maker
from speckv_pynq.calibration.capture import Statistics, capture
from speckv_pynq.calibration.simulate import Judge, Judged
from speckv_pynq.errors import ConfigError
from speckv_pynq.integrations._model import ModelShape
from speckv_pynq.integrations._rope import Rope, check_rope

FULL = "full recipe"
# Each without one ingredient: what differs from the settings asked for.
VARIANTS: dict[str, dict[str, Any]] = {
    "keys as RoPE leaves them": {"unrotate": False},
    "sinks coded": {"sinks": 0, "exclude_sinks": False},
    "no Fisher weighting": {"fisher": False},
    "K and V apart": {"apart": True},
    "no dead zone": {"dead_zone": 0.5},
    "one table set": {"table_sets": 1},
    "synthesis not fitted": {"fit_synthesis": False},
}
COLUMNS = (
    "",
    "same step: ratio",
    "perplexity",
    "KL, nats",
    "same KL: ratio",
    "perplexity",
    "KL, nats",
)
CAPTURED = ("unrotate", "sinks", "exclude_sinks", "apart")  # what statistics depend on
CLOSE = 0.04  # of the KL wanted, relative
TRIES = 6
LEAST_MOVE = 0.05  # of the logarithm of a step, to learn from
PLAIN_STEP = (
    0.3  # where a search begins that knows no Fisher metric: in standard deviations of a head
)
Stage = Callable[[str, float], Callable[[int], None]]


@dataclass(frozen=True)
class Reading:
    """One codebook on held-out text. dppl in percent, dppl_error: twice its standard error; agree: a share."""

    step: float
    ratio: float
    dppl: float
    dppl_error: float
    kl: float
    agree: float


@dataclass(frozen=True)
class Row:
    """A variant with the full recipe's step (None: its steps mean something else), and with one for the same KL."""

    name: str
    same_step: Reading | None
    same_kl: Reading


@dataclass
class Bench:
    """Model and texts; sequences and held_out: (n, context) int64."""

    model: Any
    sequences: torch.Tensor
    held_out: torch.Tensor
    stage: Stage

    def statistics(self, settings: Settings) -> Statistics:
        advance = self.stage("reading text", self.sequences.numel())
        layout, rope = self._layout(settings), self._rope(settings)
        return capture(self.model, self.sequences, layout, rope, settings, advance)

    def reader(self, name: str, settings: Settings, statistics: Statistics) -> _Reader:
        rope = self._rope(settings)
        maker = Maker(statistics, rope, settings)
        judge = Judge(self.model, self.held_out, self._layout(settings), rope, settings)
        return _Reader(name, maker, judge, self.stage)

    def _layout(self, settings: Settings) -> Layout:
        shape = ModelShape.of(self.model)
        return Layout.of(settings.scope, shape.layers, shape.heads, shape.head_dim, settings.apart)

    def _rope(self, settings: Settings) -> Rope:
        rope = Rope.of(self.model)
        check_rope(self.model, rope)
        return rope if settings.unrotate else Rope(rope.turns[:0], rope.interleaved)


@dataclass
class _Reader:
    """Readings of one variant at any step."""

    name: str
    maker: Maker
    judge: Judge
    stage: Stage
    _known: dict[float, Judged] = field(default_factory=dict)  # the last one

    def at(self, step: float) -> Reading:
        return self._reading(step, self._judged(step))

    def near(self, step: float, kl: float) -> Reading:
        """The reading whose KL is about `kl`, searched from `step` on; the nearest one when none is close."""
        seen: list[tuple[float, Judged]] = []
        power = 2.0  # KL grows about as step**power
        while len(seen) < TRIES:
            found = self._judged(step)
            seen.append((step, found))
            if abs(found.kl / kl - 1) < CLOSE:
                break
            if len(seen) > 1:
                (a, before), (b, after) = seen[-2:]
                if abs(math.log(b / a)) > LEAST_MOVE:  # else noise
                    power = math.log(_positive(after.kl) / _positive(before.kl)) / math.log(b / a)
                    power = min(4.0, max(0.5, power))
            step *= math.exp(max(-4, min(4, math.log(kl / _positive(found.kl)) / power)))
        return self._reading(*min(seen, key=lambda one: abs(math.log(_positive(one[1].kl) / kl))))

    def _judged(self, step: float) -> Judged:
        if step not in self._known:
            advance = self.stage(f"{self.name}, step {step:.4g}", self.judge.units)
            self._known = {step: self.judge(self.maker.quantiser(step), advance)}
        return self._known[step]

    def _reading(self, step: float, judged: Judged) -> Reading:
        ratio = build.ratio(self.maker, step, self.maker.fitted(step), judged)
        return Reading(step, ratio, judged.dppl, judged.dppl_error, judged.kl, judged.agree)


def measure(bench: Bench, settings: Settings, names: Sequence[str]) -> Iterator[Row]:
    """The full recipe, then each variant of `names`, those that share its statistics first.

    settings.step, or the step that target_dppl asks for on the held-out text, is the full recipe's.
    """
    whole = bench.statistics(settings)
    base = _full(bench.reader(FULL, settings, whole), settings)
    yield Row(FULL, base, base)
    variants = {name: replace(settings, **VARIANTS[name]) for name in names}
    statistics, captured = whole, _captured(settings)
    for name in sorted(names, key=lambda name: _captured(variants[name]) != _captured(settings)):
        changed = variants[name]
        if _captured(changed) != captured:
            statistics, captured = bench.statistics(changed), _captured(changed)
        reader = bench.reader(name, changed, statistics)
        comparable = changed.fisher == settings.fisher
        same_step = reader.at(base.step) if comparable else None
        yield Row(name, same_step, reader.near(base.step if comparable else PLAIN_STEP, base.kl))


def _full(reader: _Reader, settings: Settings) -> Reading:
    if settings.step is not None:
        return reader.at(settings.step)
    if settings.target_dppl is None:
        raise ConfigError("an ablation needs a step or a target_dppl")
    wanted = math.log1p(settings.target_dppl / 100)
    return reader.near(reader.maker.expected_step(wanted), wanted)


def cells(row: Row) -> tuple[str, ...]:
    """In the order of COLUMNS."""
    first, near = row.same_step, row.same_kl
    same = ("", "", "")
    if first is not None:
        same = (
            f"{first.ratio:.3f}",
            f"{first.dppl:+.3f} ± {first.dppl_error:.3f} %",
            f"{first.kl:.2e}",
        )
    return (
        *same,
        f"{near.ratio:.3f}",
        f"{near.dppl:+.3f} ± {near.dppl_error:.3f} %",
        f"{near.kl:.2e}",
    )


def markdown(rows: Sequence[Row], what: str) -> str:
    """The table, with `what` above it."""
    lines = [what, "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join((row.name, *cells(row)))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _positive(kl: float) -> float:
    return max(kl, 1e-12)


def _captured(settings: Settings) -> tuple[Any, ...]:
    return tuple(getattr(settings, name) for name in CAPTURED)
