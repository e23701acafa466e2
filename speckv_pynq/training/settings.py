"""How a predictor is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError
from speckv_pynq.predictor.model import LSTM_MULTIPLY_ADDS, RANK

MULTIPLY_ADDS = 400_000  # the most of a step
MOST_OPENED = (
    2  # classes; five instead gave 0.15 points of top-4 on held-out text, for 41,000 more of them
)


@dataclass(frozen=True)
class Settings:
    """epochs: passes over the tokens, at most; training ends after two that did not help, or after minutes.

    rows x steps tokens are read at once: `rows` streams, `steps` tokens of each. always: tokens that are always scored.
    fake: the share of epochs, at the end, that train with the weights as the kernel will hold them.
    """

    epochs: int = 12
    minutes: float = math.inf
    rows: int = 256
    steps: int = 96
    learning_rate: float = 4e-3
    always: int = 1024
    fake: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "rows", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} < 1")
        if self.always < spec.PREDICTOR_TOP:
            raise ConfigError(
                f"always {self.always} < {spec.PREDICTOR_TOP}, the candidates of a step"
            )
        for name in ("minutes", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)} is not positive")
        if not 0 <= self.fake <= 1:
            raise ConfigError(f"fake {self.fake} is not within 0..1")


@dataclass(frozen=True)
class Plan:
    """How a vocabulary is divided. opened: classes scored in a step; size: the most tokens of a class."""

    always: int
    classes: int
    size: int
    opened: int


def plan(vocabulary: int, always: int) -> Plan:
    """About as many classes as tokens in one; MOST_OPENED of them, or as many as the limit allows."""
    if not spec.PREDICTOR_TOP <= vocabulary <= spec.PREDICTOR_MAX_VOCABULARY:
        raise ConfigError(
            f"vocabulary {vocabulary} is not within {spec.PREDICTOR_TOP}..{spec.PREDICTOR_MAX_VOCABULARY}"
        )
    always = min(always, max(spec.PREDICTOR_TOP, vocabulary // 4))
    others = vocabulary - always
    classes = min(
        max(1, -(-math.isqrt(others) // 16) * 16), spec.PREDICTOR_MAX_CLASSES, max(1, others)
    )
    size = max(1, -(-others // classes))
    fixed = LSTM_MULTIPLY_ADDS + RANK * (always + classes + spec.PREDICTOR_WALK)
    opened = (MULTIPLY_ADDS - fixed) // (RANK * size)
    if opened < 1:
        raise ConfigError(
            f"{always} tokens always scored and {classes} classes of {size} take more than {MULTIPLY_ADDS} "
            "multiply-accumulates: have fewer tokens always scored"
        )
    return Plan(always, classes, size, min(opened, classes, MOST_OPENED))
