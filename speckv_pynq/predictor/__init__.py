"""The token predictor's parameters: what they are, their file, and the image that kernels read."""

from speckv_pynq.predictor.model import Predictor

__all__ = ["Predictor"]
