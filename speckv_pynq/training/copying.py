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
CELLS = spec.PREDICTOR_MATCH * spec.PREDICTOR_COUNT

I64 = npt.NDArray[np.int64]


def fit_bonus(
    network: TokenNetwork, tokens: npt.NDArray[np.int32], compute: str
) -> npt.NDArray[np.int16]:
    """(8, 4) int16 in 2**-10: logits added by length and number of matches, of most likelihood on (tokens,) text."""
    parts = [_evidence(network, piece, compute) for piece in _pieces(tokens)]
    share = torch.cat([p[0] for p in parts])  # (steps, cells) of the probability, before any bonus
    came = torch.cat([p[1] for p in parts]).mean(0)  # (cells,) how often what stood there came
    bonus = torch.zeros(CELLS, requires_grad=True)
    optimizer = torch.optim.Adam([bonus], lr=RATE)
    for _ in range(ROUNDS):
        optimizer.zero_grad()
        more = share @ torch.expm1(bonus)
        loss = torch.log1p(more.clamp(min=-0.999)).mean() - came @ bonus
        (loss + 1e-4 * bonus.square().mean()).backward()
        optimizer.step()
    found = (bonus.detach() / UNIT).round().clamp(-32768, 32767)
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
) -> tuple[torch.Tensor, torch.Tensor]:
    """(steps, cells) each: the probability of the followers in a cell; 1 where one of them came."""
    followers, cells = (torch.from_numpy(a) for a in _followers(tokens))
    ids = torch.from_numpy(tokens.astype(np.int64)).to(compute)
    rows = network.fixed_rows()
    encoded, _ = network.encode(rows, ids[None, :-1], None)
    log_shares = torch.log_softmax(network.logits(rows, encoded[0]).float(), 1)
    shares = log_shares.gather(1, followers.clamp(min=0).to(compute)).exp().cpu()
    there = (cells >= 0).float()
    into = cells.clamp(min=0)
    came = (followers == ids[1:, None].cpu()).float()
    nothing = torch.zeros(len(into), CELLS)
    return (
        nothing.scatter_add(1, into, shares * there),
        nothing.scatter_add(1, into, came * there),
    )
