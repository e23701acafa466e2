"""The token predictors that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from speckv_pynq.errors import PredictorError
from speckv_pynq.predictor import Predictor

_FOLDER: Final = Path(__file__).parents[1] / "predictors"


def shipped(name: str) -> Predictor:
    """The predictor of a tokenizer, "smollm2"; PredictorError names those that there are."""
    path = _FOLDER / f"{name}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in _FOLDER.glob("*.safetensors")))
        raise PredictorError(f"no predictor {name!r} in the package; there are: {there}")
    return Predictor.load(path)
