"""The ranker's weights, fitted on traces: coordinate search on the attention that its choice holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from speckv_pynq.bench.sparse_replay import Scene, replay
from speckv_pynq.prefetch.bounds import Floats
from speckv_pynq.prefetch.ranking import DEFAULT, Weights

# What a point under the oracle costs, by budget: what is lost at half of the blocks is lost for good.
COSTS = {1 / 8: 1 / 1.5, 1 / 4: 1.0, 1 / 2: 1 / 0.4}
STEPS = (0.3, 0.15)
TRIES = 2 * len(STEPS) * len(fields(Weights))
LEAST_GAIN = 0.004  # weights that gain less stay simple
Trace = tuple[Scene, list[Floats]]  # and what its tokens point to


def fit(
    traces: Sequence[Trace], start: Weights = DEFAULT, visit: Callable[[], None] = lambda: None
) -> Weights:
    """The weights near `start` of the least loss, summed over traces, which may be of several models.

    visit: called TRIES times.
    """
    oracles = [[replay(scene, share, None).mean for share in COSTS] for scene, _ in traces]

    def loss(weights: Weights) -> float:
        total = 0.0
        for (scene, pointing), held in zip(traces, oracles, strict=True):
            for oracle, (share, cost) in zip(held, COSTS.items(), strict=True):
                total += 100 * cost * (oracle - replay(scene, share, weights, pointing).mean)
        return total

    found, least = start, loss(start)
    for step in STEPS:
        for name in (field.name for field in fields(Weights)):
            for move in (step, -step):
                found, least = _along(loss, found, least, name, move)
                visit()
    return found


def _along(
    loss: Callable[[Weights], float], found: Weights, least: float, name: str, move: float
) -> tuple[Weights, float]:
    """As far as it pays in one direction."""
    while True:
        tried = replace(found, **{name: round(getattr(found, name) + move, 3)})
        now = loss(tried)
        if now > least - LEAST_GAIN:
            return found, least
        found, least = tried, now
