"""Training of the token predictor: torch floats in, the fixed point of its kernel out."""

from speckv_pynq.training.fit import Trained, train
from speckv_pynq.training.settings import Settings

__all__ = ["Settings", "Trained", "train"]
