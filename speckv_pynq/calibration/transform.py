"""The transform of each part: a Fisher-weighted KLT, and its integers for a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from speckv_pynq import spec
from speckv_pynq.calibration.capture import Statistics
from speckv_pynq.calibration.settings import Layout, Settings
from speckv_pynq.codebook import EXPONENT_RANGE, NARROW_MAX, SHIFT_MAX, narrow_shift

FULL = 1 << 31
INT16 = 32767
# Range of inputs in standard deviations: as a codebook's `in_shift` and `exponent` see to it.
SIGMA_LOW, SIGMA_HIGH = 32.0, 160.0
PEAK_ROOM = 4.0  # of the range over the largest value seen, where SIGMA_HIGH allows it
PEAK_LEAST = 1.5  # and at least
LIMIT_ROOM, LIMIT_LEAST = 8, 127  # of |q| over the largest seen
CUT = 0.2  # components of a smaller standard deviation, in steps, are not looked at
# What a bit is worth at the working point of a uniform quantiser, in squared steps: 2 ln 2 / 12.
BIT_WORTH = 0.1155
ANALYSIS_SUM = (FULL - 1) // (
    spec.KLT_INPUT_MAX + 1
) - 2048  # and `rounding` at most half of 2**ROW_SHIFT_MAX
ROW_SHIFT_MAX = 24
WIDE = 32  # components of a transform whose coefficients keep 16 bits


Fits = Callable[[list[int]], bool]  # of the ranks of all parts: whether the file is small enough


def narrowed(rows: torch.Tensor) -> torch.Tensor:
    """Integer rows (components, n) of which all but the first WIDE keep 8 bits, so that a file can hold them in bytes.

    What that adds to the error of a component is noise in all directions, not along the largest components.
    """
    largest = rows.abs().amax(1, keepdim=True)
    shift = torch.from_numpy(narrow_shift(largest.cpu().numpy())).to(rows)
    shift[:WIDE] = 0
    scale = torch.exp2(shift)
    kept = torch.floor(rows / scale + 0.5)
    kept[WIDE:] = kept[WIDE:].clamp(-NARROW_MAX, NARROW_MAX)
    return kept * scale


@dataclass
class Basis:
    """Of one part, for any step. analysis (each, each): component k of x is analysis[k] @ x, in square roots of nats;
    synthesis (each, each): columns; variance (each,) of components, falling.
    """

    analysis: torch.Tensor
    synthesis: torch.Tensor
    variance: torch.Tensor


def bases(statistics: Statistics, settings: Settings) -> list[Basis]:
    """One a part. With L L^T the damped Fisher matrix: the KLT of L^T x (any such L gives the same components)."""
    return [
        _basis(second, _metric(fisher, second, statistics.layout, settings))
        for second, fisher in zip(statistics.second, statistics.fisher, strict=True)
    ]


def _metric(
    fisher: torch.Tensor, second: torch.Tensor, layout: Layout, settings: Settings
) -> torch.Tensor:
    if settings.fisher:
        damped = fisher.clone()
        damped.diagonal().add_(settings.damping * fisher.diagonal().mean() + 1e-20)
        return damped
    # every head of a kind counts alike
    variance = second.diagonal().view(-1, layout.head_dim).mean(1).clamp_min(1e-12)
    return torch.diag((1 / variance).repeat_interleave(layout.head_dim))


def _basis(second: torch.Tensor, metric: torch.Tensor) -> Basis:
    lower = torch.linalg.cholesky(metric)
    covariance = lower.T @ second @ lower
    variance, axes = torch.linalg.eigh((covariance + covariance.T) / 2)
    axes = axes.flip(1)
    synthesis = torch.linalg.solve_triangular(lower.T, axes, upper=True)
    return Basis((lower @ axes).T.contiguous(), synthesis, variance.flip(0).clamp_min(0))


@dataclass
class FixedPoint:
    """(parts, each) each, float32 holding integers: exponent, mean and in_shift of codebook.Unit."""

    exponent: torch.Tensor
    mean: torch.Tensor
    in_shift: torch.Tensor

    @staticmethod
    def of(statistics: Statistics, rotated: tuple[torch.Tensor, torch.Tensor] | None) -> FixedPoint:
        """rotated: the two elements of each rotated pair, of a head; None: no RoPE is undone."""
        sigma = torch.stack([s.diagonal() for s in statistics.second]).clamp_min(0).sqrt()
        apart = statistics.peak + statistics.mean.abs()
        room = torch.minimum(
            torch.maximum(PEAK_ROOM * apart, SIGMA_LOW * sigma), SIGMA_HIGH * sigma
        )
        room = torch.maximum(room, PEAK_LEAST * apart).clamp_min(1e-9)
        whole = torch.maximum(room, statistics.mean.abs() + room)
        exponent = torch.floor(torch.log2(spec.KLT_FIXED_MAX / whole))
        exponent = exponent.clamp(*EXPONENT_RANGE)
        if rotated is not None:
            exponent = _paired(exponent, statistics.layout, rotated)
        in_shift = torch.ceil(torch.log2(room * torch.exp2(exponent) / spec.KLT_INPUT_MAX))
        return FixedPoint(
            exponent,
            torch.round(statistics.mean * torch.exp2(exponent)),
            in_shift.clamp(0, SHIFT_MAX),
        )

    def inputs(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs of the analysis for vectors (parts, tokens, each), and (parts, tokens): whether they fit."""
        fixed = torch.round(vectors * torch.exp2(self.exponent)[:, None])
        scale = torch.exp2(self.in_shift)[:, None]
        inputs = torch.floor((fixed - self.mean[:, None]) / scale + 0.5)
        fits = (inputs.abs() <= spec.KLT_INPUT_MAX) & (fixed.abs() <= spec.KLT_FIXED_MAX)
        return inputs.clamp_(-spec.KLT_INPUT_MAX, spec.KLT_INPUT_MAX), fits.all(-1)


def _paired(
    exponent: torch.Tensor, layout: Layout, rotated: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """With the lower exponent of each rotated pair of keys in both."""
    keys, values = layout.scatter(exponent[:, None])
    a, b = rotated
    keys[..., a] = keys[..., b] = torch.minimum(keys[..., a], keys[..., b])
    return layout.gather(keys, values)[:, 0]


@dataclass
class Quantiser:
    """The integers of all parts for one step, as float32, padded with zero components to the largest rank.

    ranks: one a part; cut: components left out for want of room. analysis (parts, rank, each); shift, rounding,
    limit (parts, rank); synthesis (parts, each, rank); out_shift (parts, each). As in codebook.Unit.
    """

    step: float
    fixed: FixedPoint
    ranks: list[int]
    cut: int
    analysis: torch.Tensor
    shift: torch.Tensor
    rounding: torch.Tensor
    limit: torch.Tensor
    synthesis: torch.Tensor
    out_shift: torch.Tensor

    def part(self, i: int) -> Quantiser:
        """One part alone."""
        one = slice(i, i + 1)
        fixed = FixedPoint(
            *(x[one] for x in (self.fixed.exponent, self.fixed.mean, self.fixed.in_shift))
        )
        arrays = (
            self.analysis,
            self.shift,
            self.rounding,
            self.limit,
            self.synthesis,
            self.out_shift,
        )
        return Quantiser(self.step, fixed, self.ranks[one], 0, *(x[one] for x in arrays))

    def quantise(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """q (parts, tokens, rank) of vectors (parts, tokens, each), and (parts, tokens): whether they can be coded."""
        inputs, fits = self.fixed.inputs(vectors)
        sums = inputs @ self.analysis.transpose(1, 2)
        q = (sums.abs() + self.rounding[:, None]) * torch.exp2(-self.shift)[:, None]
        q = torch.floor(q)
        fits &= (q <= self.limit[:, None]).all(-1)
        return torch.copysign(torch.minimum(q, self.limit[:, None]), sums), fits

    def dequantise(self, q: torch.Tensor) -> torch.Tensor:
        """Vectors (parts, tokens, each) of q."""
        fixed = torch.floor(
            q @ self.synthesis.transpose(1, 2) * torch.exp2(-self.out_shift)[:, None] + 0.5
        )
        fixed = (fixed + self.fixed.mean[:, None]).clamp_(-spec.KLT_FIXED_MAX, spec.KLT_FIXED_MAX)
        return fixed * torch.exp2(-self.fixed.exponent)[:, None]


def quantiser(
    statistics: Statistics,
    basis: list[Basis],
    fixed: FixedPoint,
    step: float,
    fits: Fits,
    settings: Settings,
) -> Quantiser:
    """The integers for a step, of ranks that fit."""
    chosen, cut = _choose(statistics, basis, step, fits, settings)
    rank = max(len(c) for c in chosen)
    parts, each = statistics.mean.shape
    device = statistics.mean.device
    made = Quantiser(
        step,
        fixed,
        [len(c) for c in chosen],
        cut,
        analysis=torch.zeros(parts, rank, each, device=device),
        shift=torch.zeros(parts, rank, device=device),
        rounding=torch.zeros(parts, rank, device=device),
        limit=torch.zeros(parts, rank, device=device),
        synthesis=torch.zeros(parts, each, rank, device=device),
        out_shift=torch.zeros(parts, each, device=device),
    )
    for i, keep in enumerate(chosen):
        _analysis(made, i, basis[i].analysis[keep] / step, settings.dead_zone)
    for i, keep in enumerate(chosen):
        rows, inverse = basis[i].analysis[keep] / step, basis[i].synthesis[:, keep] * step
        sample = statistics.sample[i].float() - statistics.mean[i]
        _synthesis(made, i, rows, inverse, sample, settings.fit_synthesis)
    return made


def _choose(
    statistics: Statistics, basis: list[Basis], step: float, fits: Fits, settings: Settings
) -> tuple[list[torch.Tensor], int]:
    """The components of each part that are worth their bits, of those the best ones that fit; and how many do not."""
    gains, candidates = [], []
    for i, b in enumerate(basis):
        count = max(1, int((b.variance > (CUT * step) ** 2).sum()))
        y = _components(statistics, i, b.analysis[:count] / step)
        gains.append(_gain(y, settings.dead_zone))
        candidates.append(count)
    every = torch.cat(gains)
    worth = every[every > 0].sort(descending=True).values
    count = len(worth)
    while True:
        floor = float(worth[count]) if count < len(worth) else 0.0
        chosen = [_above(gain, floor) for gain in gains]
        if count <= len(gains) or fits([len(c) for c in chosen]):
            return chosen, len(worth) - count
        count = int(count * 0.995)


def _above(gain: torch.Tensor, floor: float) -> torch.Tensor:
    """The components of a larger gain; the first where there is none, since a part has at least one."""
    keep = torch.nonzero(gain > floor)[:, 0]
    return keep if len(keep) else torch.zeros(1, dtype=torch.int64, device=gain.device)


def _components(statistics: Statistics, part: int, analysis: torch.Tensor) -> torch.Tensor:
    """(tokens, components) of a part of the sample, in steps."""
    thin = statistics.sample[part][:: max(1, statistics.sample.shape[1] // 8192)].float()
    return (thin - statistics.mean[part]) @ analysis.T


def _gain(y: torch.Tensor, dead_zone: float) -> torch.Tensor:
    """What coding each component brings, less what its bits are worth, in squared steps a token."""
    q = torch.sign(y) * torch.floor(y.abs() + (1 - dead_zone))
    power = q.square().mean(0).clamp_min(1e-9)
    gain = (y * q).mean(0).square() / power  # what the best multiple of q takes off the error
    return gain - BIT_WORTH * _entropy(q)


def _entropy(q: torch.Tensor, half: int = 64) -> torch.Tensor:
    """Bits a value of each column, order 0."""
    clipped = (q.clamp(-half, half) + half).long()
    counts = torch.zeros(2 * half + 1, q.shape[1], device=q.device)
    counts.scatter_add_(0, clipped, torch.ones_like(q))
    p = counts / len(q)
    return -(p * p.clamp_min(1e-12).log2()).sum(0)


def _analysis(made: Quantiser, part: int, rows: torch.Tensor, dead_zone: float) -> None:
    """rows: (rank, each): components in steps of x; each row gets the largest shift that keeps its sums in 32 bits."""
    scale = torch.exp2(made.fixed.in_shift[part] - made.fixed.exponent[part])
    rows = rows.double() * scale
    sums = ANALYSIS_SUM - rows.shape[1] / 2  # less what rounding of coefficients may add
    most = torch.minimum(sums / rows.abs().sum(1), INT16 / rows.abs().amax(1))
    shift = torch.floor(torch.log2(most)).clamp(0, ROW_SHIFT_MAX)
    rank = len(rows)
    whole = narrowed(torch.round(rows * torch.exp2(shift)[:, None]))
    while bool(
        (over := whole.abs().sum(1) > ANALYSIS_SUM).any()
    ):  # rounded up, they may sum to more
        shift[over] -= 1
        whole = narrowed(torch.round(rows * torch.exp2(shift)[:, None]))
    made.analysis[part, :rank] = whole.float()
    made.shift[part, :rank] = shift.float()
    made.rounding[part, :rank] = torch.round((1 - dead_zone) * torch.exp2(shift)).float()
    made.limit[part, :rank] = INT16


def _synthesis(
    made: Quantiser,
    part: int,
    rows: torch.Tensor,
    inverse: torch.Tensor,
    x: torch.Tensor,
    fit: bool,
) -> None:
    """Least squares from what is really decoded, kept near `inverse` (each, rank) where there is little to go by;
    without `fit`, `inverse` itself.

    rows: (rank, each): components in steps of x; x: (tokens, each), the sample less its mean.
    """
    rank = inverse.shape[1]
    mean = made.fixed.mean[part] * torch.exp2(-made.fixed.exponent[part])
    q = made.part(part).quantise((x + mean)[None])[0][0, :, :rank]
    most = q.abs().amax(0)
    limit = torch.clamp(LIMIT_ROOM * most, LIMIT_LEAST, INT16)
    scale = torch.exp2(made.fixed.exponent[part])
    fitted = (_fit(q, x, rows, inverse) if fit else inverse) * scale[:, None]
    while True:
        sums = (fitted.abs() @ limit).clamp_min(1e-9)
        room = (FULL - (1 << SHIFT_MAX - 1)) * 0.98 - 0.5 * float(limit.sum())
        shift = torch.minimum(room / sums, INT16 / fitted.abs().amax(1).clamp_min(1e-9))
        shift = torch.floor(torch.log2(shift)).clamp_max(SHIFT_MAX)
        if float(shift.min()) >= 0 or float((limit - most).max()) <= 0:
            break
        limit = torch.maximum(most, torch.floor(limit / 2))
    shift = shift.clamp_min(0)
    made.limit[part, :rank] = limit
    most_sum = FULL - (1 << SHIFT_MAX - 1) - 1
    whole = narrowed(torch.round(fitted * torch.exp2(shift)[:, None]).T).T
    while bool((over := (whole.abs().double() @ limit.double() > most_sum) & (shift > 0)).any()):
        shift[over] -= 1  # rounded up, they may sum to more
        whole = narrowed(torch.round(fitted * torch.exp2(shift)[:, None]).T).T
    made.synthesis[part, :, :rank] = whole
    made.out_shift[part] = shift


def _fit(
    q: torch.Tensor, x: torch.Tensor, rows: torch.Tensor, inverse: torch.Tensor
) -> torch.Tensor:
    """(each, rank) so that x is near fit @ q: the best multiples of `inverse`, and a ridge of what they leave."""
    power = q.square().mean(0).clamp_min(1e-6)
    inverse = inverse * ((x @ rows.T).mul_(q).mean(0) / power)
    rest = x - q @ inverse.T
    cross = rest.T @ q / len(q)
    moments = q.T @ q / len(q)
    ridge = 4 * len(power) / len(q)
    moments.diagonal().add_(ridge * power + 1e-6)
    return inverse + torch.linalg.solve(moments, cross.T).T
