"""The parameters of the token predictor, in the fixed point of its kernel, and their file.

A two-layer LSTM reads one token a step. What a layer gives on, to itself and upwards, is projected to `RANK` numbers;
a token's logit is the product of the last ones with the token's row, the same row that the LSTM reads. Frequent
tokens are always scored. The others stand in classes, and only those in the classes with the best class scores are
scored: what a step costs is bounded, whatever the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec, tensor_file
from speckv_pynq.errors import PredictorError

FILE_FORMAT: Final = "speckv-predictor-2"
GATES: Final = 4  # input, forget, cell, output, in this order
HIDDEN, RANK = spec.PREDICTOR_HIDDEN, spec.PREDICTOR_RANK
LSTM_MULTIPLY_ADDS: Final = 2 * (GATES * HIDDEN * 2 * RANK + RANK * HIDDEN)  # of a step
ROW_LIMIT: Final = 127  # of every int8 parameter and activation

I8 = npt.NDArray[np.int8]
U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Predictor:
    """All parameters. V: tokens of the vocabulary, C: classes.

    input, recurrent: (2, 4 * 128, 64) int8, weights in 2**-6; rows are gates in the order input, forget, cell, output.
    bias: (2, 4 * 128) int32 in 2**-13. projection: (2, 64, 128) int8 in 2**-6.
    codes: (V, 64) int8 of -7..7; scales: (V,) uint8 of 1..18. Their product is the token's row, in 2**-5.
    token_bias: (V,) int8 in 2**-3, added to the logit.
    class_rows: (C, 64) int8 in 2**-5; class_bias: (C,) int8 in 2**-3.
    classes: (V,) uint16: the class of each token; C: it is always scored.
    opened: how many classes are scored in a step.
    sigmoid: (2048,) int16: 2**15 / (1 + exp(-x)) at x = -8, -8 + 1 / 128, ...
    bonus: (8, 4) int16 in 2**-10, added to the logit of a token that followed, earlier in the sequence, the same 1 to 8
    (or more) last tokens, 1 to 4 (or more) times.
    metadata: strings: what it was trained on and how.
    """

    input: I8
    recurrent: I8
    bias: npt.NDArray[np.int32]
    projection: I8
    codes: I8
    scales: U8
    token_bias: I8
    class_rows: I8
    class_bias: I8
    classes: npt.NDArray[np.uint16]
    opened: int
    sigmoid: npt.NDArray[np.int16]
    bonus: npt.NDArray[np.int16]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def vocabulary(self) -> int:
        """Tokens that it knows: 0 to vocabulary - 1."""
        return len(self.codes)

    @cached_property
    def rows(self) -> I8:
        """(V, 64) int8, the tokens' rows in 2**-5."""
        return (self.codes * self.scales[:, None].astype(np.int8)).astype(np.int8)

    @cached_property
    def class_sizes(self) -> npt.NDArray[np.int64]:
        """(C + 1,): tokens of each class, then those that are always scored."""
        return np.bincount(self.classes, minlength=len(self.class_rows) + 1)

    @property
    def multiply_adds(self) -> int:
        """The most multiply-accumulates of a step."""
        sizes = self.class_sizes
        scored = int(sizes[-1] + np.sort(sizes[:-1])[::-1][: self.opened].sum())
        return LSTM_MULTIPLY_ADDS + RANK * (scored + len(self.class_rows) + spec.PREDICTOR_WALK)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits of SHA-256 over everything but the metadata; never 0."""
        return tensor_file.fingerprint(FILE_FORMAT, self._arrays(), str(self.opened))

    def save(self, path: Path | str) -> None:
        """Writes a safetensors file; two codes stand in a byte, the even column in its low half."""
        arrays = self._arrays()
        codes = (arrays.pop("codes") & 15).astype(np.uint8)
        if len(self.class_rows) < 256:
            arrays["classes"] = self.classes.astype(np.uint8)
        arrays["packed_codes"] = codes[:, 0::2] | codes[:, 1::2] << 4
        metadata = {
            **self.metadata,
            "format": FILE_FORMAT,
            "fingerprint": f"{self.fingerprint:016x}",
            "opened": json.dumps(self.opened),
        }
        tensor_file.save(path, arrays, metadata)

    @staticmethod
    def load(path: Path | str) -> Predictor:
        """Reads and checks a file that `save` wrote; PredictorError names what is wrong with it."""
        try:
            metadata, arrays = tensor_file.read(path, PredictorError)
            if metadata.get("format") != FILE_FORMAT:
                raise PredictorError(f"format {metadata.get('format')!r}, not {FILE_FORMAT!r}")
            found = _of_file(metadata, arrays)
            if f"{found.fingerprint:016x}" != metadata.get("fingerprint"):
                raise PredictorError(
                    f"fingerprint {metadata.get('fingerprint')} stated, {found.fingerprint:016x} found"
                )
        except PredictorError as error:
            raise PredictorError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise PredictorError(f"{path}: damaged: {error!r}") from error
        return found

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {n: getattr(self, n) for n in _NAMES}


_NAMES: Final = tuple(f.name for f in fields(Predictor) if f.name not in ("opened", "metadata"))


def _of_file(metadata: Mapping[str, str], arrays: dict[str, npt.NDArray[Any]]) -> Predictor:
    packed = arrays.pop("packed_codes")
    if packed.dtype != np.uint8 or packed.ndim != 2:
        raise PredictorError(f"packed_codes is {packed.dtype} {packed.shape}, not uint8 (V, 32)")
    halves = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    arrays["codes"] = ((halves ^ 8).astype(np.int8) - 8).astype(np.int8)
    if arrays["classes"].dtype == np.uint8:
        arrays["classes"] = arrays["classes"].astype(np.uint16)
    return Predictor(
        **{name: arrays[name] for name in _NAMES},
        opened=json.loads(metadata["opened"]),
        metadata=metadata,
    )


def _check(p: Predictor) -> None:
    """Shapes, dtypes and ranges; PredictorError."""
    tokens, classes = len(p.codes), len(p.class_rows)
    rows = GATES * HIDDEN
    lengths = spec.PREDICTOR_MATCH, spec.PREDICTOR_COUNT
    wanted: dict[str, tuple[type, tuple[int, ...], int, int]] = {
        "input": (np.int8, (2, rows, RANK), -ROW_LIMIT, ROW_LIMIT),
        "recurrent": (np.int8, (2, rows, RANK), -ROW_LIMIT, ROW_LIMIT),
        "bias": (np.int32, (2, rows), -(1 << 20), 1 << 20),
        "projection": (np.int8, (2, RANK, HIDDEN), -ROW_LIMIT, ROW_LIMIT),
        "codes": (np.int8, (tokens, RANK), -7, 7),
        "scales": (np.uint8, (tokens,), 1, 18),
        "token_bias": (np.int8, (tokens,), -128, 127),
        "class_rows": (np.int8, (classes, RANK), -ROW_LIMIT, ROW_LIMIT),
        "class_bias": (np.int8, (classes,), -128, 127),
        "classes": (np.uint16, (tokens,), 0, classes),
        "sigmoid": (np.int16, (spec.PREDICTOR_SIGMOID,), 0, 32767),
        "bonus": (np.int16, lengths, -32768, 32767),
    }
    for name, (dtype, shape, low, high) in wanted.items():
        array = getattr(p, name)
        if array.dtype != dtype or array.shape != shape:
            raise PredictorError(
                f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}"
            )
        if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
            raise PredictorError(f"{name} holds {array.min()}..{array.max()}, beyond {low}..{high}")
    if not spec.PREDICTOR_TOP <= tokens <= spec.PREDICTOR_MAX_VOCABULARY:
        raise PredictorError(
            f"vocabulary {tokens} is not within {spec.PREDICTOR_TOP}..{spec.PREDICTOR_MAX_VOCABULARY}"
        )
    if not 1 <= classes <= spec.PREDICTOR_MAX_CLASSES:
        raise PredictorError(f"{classes} classes, not 1..{spec.PREDICTOR_MAX_CLASSES}")
    if not isinstance(p.opened, int) or not 1 <= p.opened <= min(
        classes, spec.PREDICTOR_MAX_OPENED
    ):
        raise PredictorError(f"opened {p.opened!r} is not within 1..{spec.PREDICTOR_MAX_OPENED}")
    if p.class_sizes[-1] < spec.PREDICTOR_TOP:
        raise PredictorError(
            f"{p.class_sizes[-1]} tokens are always scored, fewer than {spec.PREDICTOR_TOP}"
        )
