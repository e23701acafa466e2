"""Statistics and a step into a codebook: quantiser, tables, and the arrays that codebook.Unit states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from speckv_pynq import spec
from speckv_pynq.calibration import tables, transform
from speckv_pynq.calibration.capture import Statistics
from speckv_pynq.calibration.settings import Layout, Settings
from speckv_pynq.calibration.simulate import Judged
from speckv_pynq.calibration.transform import FixedPoint, Quantiser
from speckv_pynq.codebook import Codebook, Unit, padded, pair_elements
from speckv_pynq.integrations._rope import Rope

# Bytes of a component besides its rows of analysis and synthesis: rounding, shift, limit, classes.
COMPONENT_BYTES = 4 + 1 + 2 + spec.KLT_TABLE_SETS
CHANNEL_BYTES = 4 + 1 + 1 + 1  # mean, exponent and shifts
OTHER_BYTES, UNIT_BYTES = 32_000, 4_000  # tables, metadata, names of arrays
INT4_RATIO = 3.2  # of a record that falls back


@dataclass
class Maker:
    """Makes quantisers and codebooks of one model's statistics, for any step, in seconds."""

    statistics: Statistics
    rope: Rope
    settings: Settings
    _made: dict[float, Quantiser] = field(default_factory=dict)

    @cached_property
    def basis(self) -> list[transform.Basis]:
        return transform.bases(self.statistics, self.settings)

    @cached_property
    def fixed(self) -> FixedPoint:
        rotated = None
        if self.rope.pairs:
            a, b = pair_elements(self.rope.pairs, self.rope.interleaved)
            rotated = torch.from_numpy(a), torch.from_numpy(b)
        return FixedPoint.of(self.statistics, rotated)

    def file_bytes(self, ranks: list[int]) -> int:
        """Of a codebook with these ranks of its parts: about 30 KB of tables and metadata besides the arrays."""
        layout = self.statistics.layout
        wide = [min(rank, transform.WIDE) for rank in ranks]
        rows = (sum(ranks) + sum(wide)) * padded(layout.each) + sum(ranks) * COMPONENT_BYTES
        units = [ranks[i : i + layout.transforms] for i in range(0, len(ranks), layout.transforms)]
        columns = sum(padded(max(unit)) + transform.WIDE for unit in units)
        channels = CHANNEL_BYTES * self.statistics.mean.numel()
        return rows + layout.inputs * columns + channels + OTHER_BYTES + UNIT_BYTES * len(units)

    def fits(self, ranks: list[int]) -> bool:
        return self.file_bytes(ranks) <= self.settings.byte_limit

    def quantiser(self, step: float) -> Quantiser:
        if step not in self._made:
            self._made = {
                step: transform.quantiser(
                    self.statistics, self.basis, self.fixed, step, self.fits, self.settings
                )
            }
        return self._made[step]

    def expected_kl(self, step: float) -> float:
        """Nats a token, to second order: half the Fisher-weighted error of a uniform quantiser."""
        variance = torch.cat([b.variance for b in self.basis])
        return 0.5 * float(variance.clamp_max(step * step * 0.11).sum())

    def expected_step(self, kl: float) -> float:
        """The step of which expected_kl says so many nats."""
        low, high = 1e-6, 1e3
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.expected_kl(middle) < kl else (low, middle)
        return low

    def fitted(self, step: float) -> tables.Fitted:
        s = self.settings
        symbols = split_units(self.sample_q(step), self.statistics.layout)
        return tables.fit(symbols, s.block_tokens, s.table_sets, s.classes)

    def sample_q(self, step: float) -> list[torch.Tensor]:
        """(tokens, rank) int16 of each part's sample."""
        made = self.quantiser(step)
        found = []
        for i, rank in enumerate(made.ranks):
            q, _ = made.part(i).quantise(self.statistics.sample[i : i + 1].float())
            found.append(q[0, :, :rank].to(torch.int16))
        return found

    def codebook(self, step: float, fitted: tables.Fitted, metadata: Mapping[str, str]) -> Codebook:
        made = self.quantiser(step)
        units = tuple(
            self._unit(made, u, fitted.classes[u]) for u in range(self.statistics.layout.units)
        )
        return Codebook(units, fitted.tables, dict(metadata))

    def _unit(self, made: Quantiser, u: int, classes: torch.Tensor) -> Unit:
        layout = self.statistics.layout
        parts = range(u * layout.transforms, (u + 1) * layout.transforms)
        ranks = [made.ranks[i] for i in parts]
        sets = classes.expand(spec.KLT_TABLE_SETS, -1) if len(classes) == 1 else classes
        if len(sets) < spec.KLT_TABLE_SETS:
            sets = torch.cat([sets, sets[:1].expand(spec.KLT_TABLE_SETS - len(sets), -1)])
        mean = made.fixed.mean[list(parts)].clamp(-spec.KLT_FIXED_MAX, spec.KLT_FIXED_MAX)
        return Unit(
            first_layer=u * layout.group,
            layer_count=layout.group,
            heads=layout.unit_heads,
            head_dim=layout.head_dim,
            kinds=spec.Kind.BOTH,
            transforms=layout.transforms,
            apart=layout.apart,
            interleaved=self.rope.interleaved,
            turns=self.rope.turns,
            exponent=_array(made.fixed.exponent[list(parts)].flatten(), np.int8),
            mean=_array(mean.flatten(), np.int32),
            in_shift=_array(made.fixed.in_shift[list(parts)].flatten(), np.uint8),
            out_shift=_array(made.out_shift[list(parts)].flatten(), np.uint8),
            ranks=np.array(ranks, np.uint16),
            analysis=_columns(
                torch.cat([made.analysis[i, : made.ranks[i]] for i in parts]), layout.each
            ),
            rounding=_array(_of_components(made.rounding, made, parts), np.int32),
            shift=_array(_of_components(made.shift, made, parts), np.uint8),
            limit=_array(_of_components(made.limit, made, parts), np.int16),
            classes=_array(sets, np.uint8),
            synthesis=_columns(torch.cat([made.synthesis[i] for i in parts]), max(ranks)),
        )


def split_units(parts: list[torch.Tensor], layout: Layout) -> list[torch.Tensor]:
    """One (tokens, components) a unit: the parts (tokens, rank) of its transforms side by side."""
    each = layout.transforms
    return [torch.cat(parts[i : i + each], 1) for i in range(0, len(parts), each)]


def ratio(maker: Maker, step: float, fitted: tables.Fitted, judged: Judged) -> float:
    """FP16 bytes over bytes of the records of what was judged; a record that cannot be coded counts as int4's."""
    made, layout = maker.quantiser(step), maker.statistics.layout
    block = maker.settings.block_tokens
    raw = block * layout.token_bytes // layout.units
    records, total = 0, 0
    for q, fits in judged.coded:
        whole = fits.view(layout.units, layout.transforms, -1).all(1)
        parts = [q[i, :, :rank] for i, rank in enumerate(made.ranks)]
        for u, symbols in enumerate(split_units(parts, layout)):
            sizes = tables.record_bytes(symbols, fitted.classes[u], fitted.tables, block)
            total += int(torch.where(whole[u], sizes, int(raw / INT4_RATIO)).sum())
        records += whole.numel()
    return records * raw / max(1, total)


def _of_components(x: torch.Tensor, made: Quantiser, parts: range) -> torch.Tensor:
    return torch.cat([x[i, : made.ranks[i]] for i in parts])


def _array(x: torch.Tensor, dtype: type) -> np.ndarray:
    return x.cpu().numpy().astype(dtype)


def _columns(x: torch.Tensor, columns: int) -> np.ndarray:
    """(rows, padded(columns)) int16."""
    found = np.zeros((len(x), padded(columns)), np.int16)
    found[:, :columns] = x[:, :columns].cpu().numpy()
    return found
