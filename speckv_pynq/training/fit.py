"""The training itself: cross-entropy over the whole vocabulary, then with fixed-point weights."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from speckv_pynq.predictor import Predictor
from speckv_pynq.training import copying, export
from speckv_pynq.training.classes import classes_of
from speckv_pynq.training.network import TokenNetwork
from speckv_pynq.training.settings import Plan, Settings, plan
from speckv_pynq.training.text import Text, split, steps, streams

Report = Callable[[str, float], None]  # a line about what was reached, share of the way

CLASSES_AT = 0.3  # share of the way at which tokens are put into classes
CLASS_WEIGHT = 0.3  # of the class scores' cross-entropy
WARM_UP, LAST_RATE = 0.02, 0.02  # share of the way; share of the learning rate at its end
PATIENCE = 2  # epochs that may pass without help


@dataclass(frozen=True)
class Epoch:
    """loss, held_out: nats a token; top1, top4: shares of held-out tokens, over the whole vocabulary."""

    number: int
    loss: float
    held_out: float
    top1: float
    top4: float
    fake: bool


@dataclass(frozen=True)
class Trained:
    """class_hit: share of held-out tokens that are always scored, or whose class is opened."""

    predictor: Predictor
    epochs: tuple[Epoch, ...]
    tokens: int
    digest: str
    class_hit: float


def train(
    tokens: npt.NDArray[np.integer],
    vocabulary: int,
    settings: Settings,
    report: Report,
    compute: str = "cpu",
    metadata: Mapping[str, str] | None = None,
) -> Trained:
    """A predictor of the next token, from (tokens,) ids. The last ones are held out to judge it and fit its bonus."""
    torch.manual_seed(settings.seed)
    text, parts = split(tokens, vocabulary), plan(vocabulary, settings.always)
    run = _Run(text, vocabulary, parts, settings, report, compute)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "LSTM with projections")  # torch: slower on a CPU
        run.train()
        bonus = copying.fit_bonus(run.network, text.held_out, compute)
    predictor = export.predictor_of(run.network, run.classes, parts.opened, bonus)
    stated = {
        **(metadata or {}),
        "trained_tokens": str(len(text.used)),
        "text_hash": text.digest,
        "held_out_nats": f"{run.epochs[-1].held_out:.4f}",
    }
    predictor = replace(predictor, metadata=stated)
    return Trained(predictor, tuple(run.epochs), len(text.used), text.digest, run.class_hit())


class _Run:
    """A network on its way."""

    def __init__(
        self,
        text: Text,
        vocabulary: int,
        parts: Plan,
        settings: Settings,
        report: Report,
        compute: str,
    ) -> None:
        self.settings, self.parts, self.report, self.compute = settings, parts, report, compute
        self.network = TokenNetwork(vocabulary, parts.classes).to(compute)
        self.streams = streams(text.used, settings.rows, compute)
        self.held_out = streams(text.held_out, 32, compute)
        counts = np.bincount(text.used, minlength=vocabulary)
        self.counts = counts
        with torch.no_grad():
            frequency = torch.from_numpy(np.log((counts + 0.1) / counts.sum())).float()
            self.network.token_bias.copy_(frequency - frequency.mean())
        self.classes = np.zeros(vocabulary, np.uint16)
        self._of: torch.Tensor | None = None  # classes on the device, once there are any
        self.epochs: list[Epoch] = []
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=0.01,
            betas=(0.9, 0.99),
        )
        self._start = time.monotonic()
        self._done, self._all = 0, settings.epochs * len(list(steps(self.streams, settings.steps)))
        self._skipped = 0.0

    def train(self) -> None:
        """Until the end of the way; the best epoch with fixed-point weights stays."""
        best, kept, waited = math.inf, copy.deepcopy(self.network.state_dict()), 0
        while self.share() < 1:
            self._switch()
            loss = self._epoch()
            judged = self._judged(loss)
            self.epochs.append(judged)
            self.report(
                f"epoch {judged.number}: {judged.loss:.3f} nats; held out {judged.held_out:.3f}, "
                f"top-1 {100 * judged.top1:.1f} %, top-4 {100 * judged.top4:.1f} %",
                self.share(),
            )
            if len(self.epochs) > 1 and judged.fake != self.epochs[-2].fake:
                best, waited = math.inf, 0
            if judged.held_out < best:
                best, kept, waited = judged.held_out, copy.deepcopy(self.network.state_dict()), 0
                continue
            waited += 1
            if waited == PATIENCE:
                if judged.fake:
                    break
                self._skipped = max(self._skipped, 1 - self.settings.fake - self._share())
        if not self.network.fake:
            self._switch(last=True)
        self.network.load_state_dict(kept)

    def share(self) -> float:
        """Of the way, 0..1."""
        return min(1.0, self._share() + self._skipped)

    def _share(self) -> float:
        minutes = (time.monotonic() - self._start) / 60
        return max(self._done / self._all, minutes / self.settings.minutes)

    def _switch(self, last: bool = False) -> None:
        share = 1.0 if last else self.share()
        if share >= min(CLASSES_AT, 1 - self.settings.fake) and self._of is None:
            self._make_classes()
        if share >= 1 - self.settings.fake - 1e-9:
            self.network.fake = True

    def _make_classes(self) -> None:
        rows = self.network.rows.detach().float().cpu().numpy()
        self.classes = classes_of(rows, self.counts, self.parts, self.settings.seed)
        self._of = torch.from_numpy(self.classes.astype(np.int64)).to(self.compute)
        sums = torch.zeros(self.parts.classes + 1, rows.shape[1], device=self.compute)
        sums.index_add_(0, self._of, self.network.rows.detach())
        sizes = torch.bincount(self._of, minlength=len(sums)).clamp(min=1)
        with torch.no_grad():
            self.network.class_rows.copy_((sums / sizes[:, None])[:-1])

    def _epoch(self) -> float:
        """One pass over the text; its loss, nats a token."""
        state, total, count = None, torch.zeros((), device=self.compute), 0
        for tokens, following in steps(self.streams, self.settings.steps):
            self._set_rate()
            self._optimizer.zero_grad(set_to_none=True)
            rows = self.network.fixed_rows()
            encoded, state = self.network.encode(rows, tokens, state)
            state = tuple((given.detach(), cells.detach()) for given, cells in state)
            loss, nats = self._loss(rows, encoded, following)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self._optimizer.step()
            self.network.clip()
            total += nats.detach() * following.numel()
            count += following.numel()
            self._done += 1
            if self._share() >= 1:
                break
        return float(total) / count

    def _loss(
        self, rows: torch.Tensor, encoded: torch.Tensor, following: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is made small, and the cross-entropy in it."""
        flat, wanted = encoded.reshape(-1, encoded.shape[-1]), following.reshape(-1)
        if flat.is_cuda:
            flat = flat.bfloat16()
        nats = nn.functional.cross_entropy(self.network.logits(rows, flat), wanted)
        if self._of is None:
            return nats, nats
        of_class = self._of[wanted]
        of_class = torch.where(of_class == self.parts.classes, -1, of_class)
        scores = self.network.class_scores(flat).float()
        missed = nn.functional.cross_entropy(scores, of_class, ignore_index=-1, reduction="sum")
        return nats + CLASS_WEIGHT * missed / len(wanted), nats

    def _set_rate(self) -> None:
        share = self.share()
        rate = min(1.0, share / WARM_UP + 0.01) * (
            LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate * self.settings.learning_rate

    @torch.no_grad()
    def _judged(self, loss: float) -> Epoch:
        state, nats, top1, top4, count = None, 0.0, 0, 0, 0
        rows = self.network.fixed_rows()
        for tokens, following in steps(self.held_out, 64):
            encoded, state = self.network.encode(rows, tokens, state)
            logits = self.network.logits(rows, encoded).flatten(0, 1)
            wanted = following.reshape(-1)
            nats += float(nn.functional.cross_entropy(logits, wanted, reduction="sum"))
            best = logits.topk(min(4, logits.shape[1])).indices == wanted[:, None]
            top1, top4 = top1 + int(best[:, 0].sum()), top4 + int(best.any(1).sum())
            count += len(wanted)
        return Epoch(
            len(self.epochs) + 1, loss, nats / count, top1 / count, top4 / count, self.network.fake
        )

    @torch.no_grad()
    def class_hit(self) -> float:
        """Share of held-out tokens that are always scored, or whose class is among the opened."""
        state, hits, count = None, 0, 0
        assert self._of is not None
        rows = self.network.fixed_rows()
        for tokens, following in steps(self.held_out, 64):
            encoded, state = self.network.encode(rows, tokens, state)
            opened = self.network.class_scores(encoded).topk(self.parts.opened).indices
            wanted = self._of[following]
            found = (opened == wanted[..., None]).any(-1) | (wanted == self.parts.classes)
            hits, count = hits + int(found.sum()), count + wanted.numel()
        return hits / count
