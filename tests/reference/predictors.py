"""Token predictors with random parameters."""

from speckv_pynq.bench.predictor_random import random_predictor

__all__ = ["random_predictor"]
