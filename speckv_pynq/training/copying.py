"""What a token gets for having followed the same tokens earlier in the sequence, fitted on held-out text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from speckv_pynq import spec
from speckv_pynq.reference.predictor import History
from speckv_pynq.training.network import TokenNetwork

CONTEXT = 2048
MOST_TOKENS = 100_000
ROUNDS, RATE = 300, 0.1
UNIT = 2.0**-10

I64 = npt.NDArray[np.int64]


def fit_bonus(
    network: TokenNetwork, tokens: npt.NDArray[np.int32], compute: str
) -> npt.NDArray[np.int16]:
    """(8, 4) int16 in 2**-10: logits added by length and number of matches, of most likelihood on (tokens,) text."""
    cells = spec.PREDICTOR_MATCH * spec.PREDICTOR_COUNT
    parts = [_evidence(network, piece, compute) for piece in _pieces(tokens)]
    # (steps, walk): cell of each follower, `cells` where there is none; its logit; whether it is what came
    cell, logit, came = (torch.cat([p[i] for p in parts]) for i in range(3))
    total = torch.cat([p[3] for p in parts])  # log of the sum over the vocabulary
    bonus = torch.zeros(cells + 1, requires_grad=True)
    optimizer = torch.optim.Adam([bonus], lr=RATE)
    there = cell < cells
    share = torch.where(there, (logit - total[:, None]).exp(), torch.zeros(()))
    for _ in range(ROUNDS):
        optimizer.zero_grad()
        added = bonus[cell]
        more = (share * (added.exp() - 1)).sum(1)
        loss = torch.log1p(more.clamp(min=-0.999)).mean() - (added * came).sum(1).mean()
        (loss + 1e-4 * bonus[:cells].square().mean()).backward()
        optimizer.step()
    found = (bonus.detach()[:cells] / UNIT).round().clamp(-32768, 32767)
    return found.view(spec.PREDICTOR_MATCH, spec.PREDICTOR_COUNT).to(torch.int16).numpy()


def _pieces(tokens: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
    used = tokens[:MOST_TOKENS]
    return [used[i : i + CONTEXT] for i in range(0, max(1, len(used) - CONTEXT // 2), CONTEXT)]


def _followers(tokens: npt.NDArray[np.int32]) -> tuple[I64, I64]:
    """(steps, walk) each: tokens that followed, and their cells; -1 where there is none."""
    steps, walk = len(tokens) - 1, spec.PREDICTOR_WALK
    found, cells = np.full((steps, walk), -1), np.full((steps, walk), -1)
    history = History(len(tokens))
    for at, token in enumerate(tokens[:-1].tolist()):
        history.push(token)
        for j, (follower, (match, count, _)) in enumerate(history.followers().items()):
            found[at, j] = follower
            cells[at, j] = (match - 1) * spec.PREDICTOR_COUNT + count - 1
    return found, cells


@torch.no_grad()
def _evidence(
    network: TokenNetwork, tokens: npt.NDArray[np.int32], compute: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    followers, cells = _followers(tokens)
    none = spec.PREDICTOR_MATCH * spec.PREDICTOR_COUNT
    cell = torch.from_numpy(np.where(cells < 0, none, cells))
    ids = torch.from_numpy(tokens.astype(np.int64)).to(compute)
    rows = network.fixed_rows()
    encoded, _ = network.encode(rows, ids[None, :-1], None)
    logits = network.logits(rows, encoded[0]).float()
    wanted = torch.from_numpy(np.maximum(followers, 0)).to(compute)
    came = torch.from_numpy(followers == tokens[1:, None].astype(np.int64)).float()
    return cell, logits.gather(1, wanted).cpu(), came, torch.logsumexp(logits, 1).cpu()
