"""The token predictor, integer only: the oracle of kernel kv_prefetch.

An LSTM with forget gates (Hochreiter and Schmidhuber 1997; Gers et al. 2000), its output projected to fewer numbers
(LSTMP, Sak et al. 2014, arXiv 1402.1128), that predicts tokens as the seed's Algorithm 1 asks. Numbers are fixed
point, "in 2**-n" states the weight of a unit. round(x, n) is (x + 2**(n - 1)) >> n, an arithmetic shift: halves go
up.

A step, with the row x (int8, 2**-5) of the token:
    gates of layer l, 2**-13: (input[l] @ below + recurrent[l] @ p[l] << 2) + bias[l]; below is x, then p[0]
    i, f, o = sigmoid(gate), g = tanh(gate), 2**-15
    c = sat16(round(f * c + (i * g >> 3), 15)), 2**-12
    h = sat8(round(o * tanh(c), 23)), 2**-7
    p[l] = sat8(round(projection[l] @ h, 8)), 2**-5
    logit = rows @ p[1] + (token_bias << 7), 2**-10; class score likewise.
sigmoid(x) is the table at round(x to 2**-7), clamped to the table; tanh(x) = 2 sigmoid(2x) - 2**15, with 2x rounded
once. sat8 clamps to -127..127, sat16 to -32767..32767.

Scored are: the tokens that are always scored, those of the `opened` classes with the best class scores (equal ones:
the lower class), and those that followed the newest token earlier in the sequence (history.followers), whose logits
get a bonus. The best are the predictions; of equal scores the lower token is better."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.predictor.model import HIDDEN, RANK, Predictor

I64 = npt.NDArray[np.int64]
NOWHERE = 0xFFFFFFFF  # the position of a token that does not stand in the sequence


@dataclass(frozen=True)
class Candidate:
    """A predicted token. score: in 2**-10. position: where it stood, after the longest match if any; else NOWHERE.

    match: how many of the last tokens stood before it there (at most 8), 0: it did not follow the newest token before.
    """

    token: int
    score: int
    position: int
    match: int
    count: int


@dataclass
class History:
    """The tokens of a sequence, of which the newest `capacity` are looked at, and where each one stands."""

    capacity: int
    tokens: list[int] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)

    def push(self, token: int) -> None:
        self.places.setdefault(token, []).append(len(self.tokens))
        self.tokens.append(token)

    @property
    def oldest(self) -> int:
        """The first position that is still known."""
        return max(0, len(self.tokens) - self.capacity)

    def followers(self) -> dict[int, tuple[int, int, int]]:
        """Token -> (match, count, position) of those that followed the newest token's last 16 earlier occurrences.

        match: tokens before it that equal the sequence's last ones, 8 at most; the longest of its occurrences.
        count: how many occurrences have that match, 4 at most. position: of the newest of them.
        """
        found: dict[int, tuple[int, int, int]] = {}
        newest = len(self.tokens) - 1
        for at in self.places[self.tokens[newest]][-2 : -spec.PREDICTOR_WALK - 2 : -1]:
            if at < self.oldest:
                break
            match, token = self._match(at, newest), self.tokens[at + 1]
            best, count, position = found.get(token, (0, 0, 0))
            if match > best:
                found[token] = match, 1, at + 1
            elif match == best:
                found[token] = match, min(count + 1, spec.PREDICTOR_COUNT), position
        return found

    def last(self, token: int) -> int:
        """The newest position of a token, or NOWHERE."""
        at = self.places.get(token, [-1])[-1]
        return at if at >= self.oldest else NOWHERE

    def _match(self, at: int, newest: int) -> int:
        length = 1
        while (
            length < spec.PREDICTOR_MATCH
            and at - length >= self.oldest
            and self.tokens[at - length] == self.tokens[newest - length]
        ):
            length += 1
        return length


@dataclass
class State:
    """Of one sequence: c, (2, 128) int64 in 2**-12; p, (2, 64) int64 in 2**-5; its history."""

    history: History
    c: I64 = field(default_factory=lambda: np.zeros((2, HIDDEN), np.int64))
    p: I64 = field(default_factory=lambda: np.zeros((2, RANK), np.int64))


def step(
    model: Predictor, state: State, token: int, top: int = spec.PREDICTOR_TOP
) -> list[Candidate]:
    """Reads a token and predicts the next one: the best `top` candidates, best first."""
    if not 0 <= token < model.vocabulary:
        raise ValueError(f"token {token} is not within 0..{model.vocabulary - 1}")
    _advance(model, state, token)
    state.history.push(token)
    followers = state.history.followers()
    scores = _scores(model, state.p[1], followers)
    best = sorted(scores, key=lambda token: (-scores[token], token))[:top]
    nothing = 0, 0, NOWHERE
    out = []
    for token in best:
        match, count, position = followers.get(token, nothing)
        at = position if match else state.history.last(token)
        out.append(Candidate(token, scores[token], at, match, count))
    return out


def _rounded(x: I64, bits: int) -> I64:
    return (x + (1 << (bits - 1))) >> bits


def _sigmoid(model: Predictor, x: I64, bits: int) -> I64:
    """2**-15; x in 2**-(7 + bits)."""
    half = spec.PREDICTOR_SIGMOID // 2
    return model.sigmoid[np.clip(_rounded(x, bits), -half, half - 1) + half].astype(np.int64)


def _tanh(model: Predictor, x: I64, bits: int) -> I64:
    """2**-15; x in 2**-(7 + bits)."""
    return 2 * _sigmoid(model, x, bits - 1) - (1 << 15)


def _advance(model: Predictor, state: State, token: int) -> None:
    """One step of both layers."""
    below = model.rows[token].astype(np.int64)
    for layer in (0, 1):
        sums = model.input[layer].astype(np.int64) @ below
        sums += model.recurrent[layer].astype(np.int64) @ state.p[layer]
        i, f, g, o = ((sums << 2) + model.bias[layer]).reshape(4, HIDDEN)
        kept = _sigmoid(model, f, 6) * state.c[layer]
        new = _sigmoid(model, i, 6) * _tanh(model, g, 6) >> 3
        c = np.clip(_rounded(kept + new, 15), -32767, 32767)
        h = np.clip(_rounded(_sigmoid(model, o, 6) * _tanh(model, c, 5), 23), -127, 127)
        below = np.clip(_rounded(model.projection[layer].astype(np.int64) @ h, 8), -127, 127)
        state.c[layer], state.p[layer] = c, below


def _scores(model: Predictor, u: I64, followers: dict[int, tuple[int, int, int]]) -> dict[int, int]:
    """Token -> score, of all that are scored."""
    classes = len(model.class_rows)
    of_class = model.class_rows.astype(np.int64) @ u + (model.class_bias.astype(np.int64) << 7)
    opened = np.argsort(-of_class, kind="stable")[: model.opened]
    among = np.isin(model.classes, np.append(opened, classes))
    among[list(followers)] = True
    tokens = np.flatnonzero(among)
    logits = model.rows[tokens].astype(np.int64) @ u
    logits += model.token_bias[tokens].astype(np.int64) << 7
    scores = dict(zip(tokens.tolist(), logits.tolist(), strict=True))
    for token, (match, count, _) in followers.items():
        scores[token] += int(model.bonus[match - 1, count - 1])
    return scores
