"""Which tokens stand in a class together: those with rows alike, no class larger than the others by more than one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speckv_pynq.training.settings import Plan

ROUNDS = 5
NEAREST = 12  # classes of a token that are looked at first


def classes_of(
    rows: npt.NDArray[np.float32], counts: npt.NDArray[np.int64], plan: Plan, seed: int
) -> npt.NDArray[np.uint16]:
    """(V,) class of each token; plan.classes for the most frequent ones, which are always scored.

    rows: (V, 64); counts: (V,) how often a token stands in the text. k-means with full classes closed: the tokens to
    which a class matters most choose first.
    """
    order = np.argsort(-counts, kind="stable")
    out = np.full(len(rows), plan.classes, np.uint16)
    others = np.sort(order[plan.always :])
    if not len(others):
        return out
    points = rows[others] / np.maximum(np.linalg.norm(rows[others], axis=1, keepdims=True), 1e-6)
    rng = np.random.default_rng(seed)
    centres = points[rng.permutation(len(points))[: plan.classes]]
    for _ in range(ROUNDS):
        found = _assigned(points @ centres.T, plan.size)
        for c in range(len(centres)):
            members = points[found == c]
            if len(members):
                mean = members.mean(axis=0)
                centres[c] = mean / max(float(np.linalg.norm(mean)), 1e-6)
    out[others] = found
    return out


def _assigned(nearness: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.int64]:
    """(points,) the nearest class with room."""
    few = min(NEAREST, nearness.shape[1])
    nearest = np.argpartition(-nearness, few - 1, axis=1)[:, :few]
    values = np.take_along_axis(nearness, nearest, axis=1)
    inside = np.argsort(-values, axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, inside, axis=1)
    values = np.take_along_axis(values, inside, axis=1)
    margin = values[:, 0] - values[:, min(1, few - 1)]
    room = np.full(nearness.shape[1], size)
    found = np.empty(len(nearness), np.int64)
    for i in np.argsort(-margin, kind="stable").tolist():
        choices = nearest[i][room[nearest[i]] > 0]
        c = choices[0] if len(choices) else np.where(room > 0, nearness[i], -np.inf).argmax()
        room[c] -= 1
        found[i] = c
    return found
