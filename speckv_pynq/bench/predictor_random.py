"""Token predictors with random parameters: as fast as trained ones, and as good as none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speckv_pynq.predictor import Predictor
from speckv_pynq.predictor.model import GATES, HIDDEN, RANK
from speckv_pynq.spec import PREDICTOR_SIGMOID
from speckv_pynq.training.settings import Settings, plan


def random_predictor(
    vocabulary: int = 300,
    classes: int = 6,
    opened: int = 2,
    seed: int = 0,
    spread: float = 20,
    always: int | None = None,
) -> Predictor:
    """`always` tokens (None: a third) are always scored; weights of standard deviation `spread`."""
    rng = np.random.default_rng(seed)

    def rows(*shape: int) -> npt.NDArray[np.int8]:
        return np.clip(np.rint(rng.normal(0, spread, shape)), -127, 127).astype(np.int8)

    of_class = np.full(vocabulary, classes)
    others = rng.permutation(vocabulary)[always or max(8, vocabulary // 3) :]
    of_class[others] = np.arange(len(others)) % classes
    x = (np.arange(PREDICTOR_SIGMOID) - PREDICTOR_SIGMOID // 2) / 128
    return Predictor(
        input=rows(2, GATES * HIDDEN, RANK),
        recurrent=rows(2, GATES * HIDDEN, RANK),
        bias=rng.integers(-8192, 8193, (2, GATES * HIDDEN)).astype(np.int32),
        projection=rows(2, RANK, HIDDEN),
        codes=rng.integers(-7, 8, (vocabulary, RANK)).astype(np.int8),
        scales=rng.integers(1, 19, vocabulary).astype(np.uint8),
        token_bias=rows(vocabulary),
        class_rows=rows(classes, RANK),
        class_bias=rows(classes),
        classes=of_class.astype(np.uint16),
        opened=opened,
        sigmoid=np.minimum(np.rint(32768 / (1 + np.exp(-x))), 32767).astype(np.int16),
        bonus=rng.integers(-2048, 8192, (8, 4)).astype(np.int16),
    )


def random_of(vocabulary: int) -> Predictor:
    """Divided as training divides a vocabulary of this size."""
    parts = plan(vocabulary, Settings().always)
    return random_predictor(vocabulary, parts.classes, parts.opened, always=parts.always)
