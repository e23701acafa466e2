"""Which codebook a model's cache uses, and whether it was made for that model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

import speckv_pynq
from speckv_pynq import spec
from speckv_pynq.codebook import Codebook, Unit
from speckv_pynq.errors import CodebookError, ConfigError
from speckv_pynq.integrations._fingerprint import model_fingerprint
from speckv_pynq.integrations._model import ModelShape
from speckv_pynq.integrations._rope import Rope

Given = str | Path | Codebook | None
MODEL = "model_fingerprint"  # in the metadata of a codebook
SHIPPED = Path(speckv_pynq.__file__).parent / "codebooks"


def codebook_for(
    model_or_config: Any, shape: ModelShape, block_dtype: spec.DType, given: Given
) -> Codebook:
    """The codebook given, or else the one shipped for this model; checked against it.

    CodebookError when it was made for another model, dtype or RoPE; ConfigError when there is none.
    """
    made_for = _fingerprint(model_or_config)
    if given is None:
        given = _shipped(made_for, model_or_config)
    codebook = given if isinstance(given, Codebook) else Codebook.load(given)
    try:
        _check_model(codebook, made_for)
        _check_shape(codebook, shape)
        _check_dtype(codebook, block_dtype)
        _check_rope(codebook, Rope.of(model_or_config), made_for)
    except CodebookError as error:
        name = f"{given}" if not isinstance(given, Codebook) else "the codebook"
        raise CodebookError(f"{name}: {error}") from None
    return codebook


def shipped(made_for: str) -> Path | None:
    """The package's codebook for a model of this fingerprint."""
    for path in sorted(SHIPPED.glob("*.safetensors")):
        if _metadata(path).get(MODEL) == made_for:
            return path
    return None


def shipped_for(model: Any) -> Path | None:
    """The package's codebook for this model."""
    return shipped(model_fingerprint(model))


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(str(path), "numpy") as file:
        return file.metadata() or {}


def _fingerprint(model_or_config: Any) -> str | None:
    """Of a model; None of a config alone, which says nothing of weights."""
    return model_fingerprint(model_or_config) if hasattr(model_or_config, "config") else None


def _shipped(made_for: str | None, model_or_config: Any) -> Path:
    found = None if made_for is None else shipped(made_for)
    if found is not None:
        return found
    config = getattr(model_or_config, "config", model_or_config)
    name = getattr(config, "name_or_path", "") or "MODEL"
    who = "a config alone" if made_for is None else f"this model (fingerprint {made_for})"
    raise ConfigError(
        f"scheme klt needs a codebook, and none is shipped for {who}: make one with `speckv calibrate --model {name} "
        "--text FILE -o CODEBOOK` and give it as codebook=, or use int4, which needs none"
    )


def _check_model(codebook: Codebook, made_for: str | None) -> None:
    stated = codebook.metadata.get(MODEL)
    if None not in (stated, made_for) and stated != made_for:
        raise CodebookError(f"made for a model of fingerprint {stated}, this one has {made_for}")


def _check_shape(codebook: Codebook, shape: ModelShape) -> None:
    each = codebook.layer_count
    if shape.layers % each:
        raise CodebookError(
            f"it joins {each} layers in a record, which does not divide the model's {shape.layers} layers"
        )
    firsts = list(range(0, shape.layers, each))
    if sorted(codebook.slots) != firsts:
        raise CodebookError(
            f"its records begin with layers {sorted(codebook.slots)}, those of a model of {shape.layers} layers with "
            f"{firsts}"
        )
    wanted = {"heads": each * shape.heads, "head_dim": shape.head_dim, "kinds": spec.Kind.BOTH}
    for unit in codebook.units:
        for name, value in wanted.items():
            made = getattr(unit, name)
            if made != value:
                raise CodebookError(
                    f"made for {name} {int(made)} in layers {unit.first_layer}.."
                    f"{unit.first_layer + each - 1}, this model has {int(value)}"
                )


def _check_dtype(codebook: Codebook, block_dtype: spec.DType) -> None:
    stated = re.findall(r"\w+", codebook.metadata.get("dtypes", ""))
    name = block_dtype.name.lower()
    if stated and name not in stated:
        raise CodebookError(f"made for {', '.join(stated)} blocks, not {name}; state block_dtype")


def _check_rope(codebook: Codebook, rope: Rope, made_for: str | None) -> None:
    known = made_for is not None and codebook.metadata.get(MODEL) == made_for
    for unit in codebook.units:
        if known and not unit.pairs:
            continue  # made for this very model, with rotated keys: works, and compresses less
        if not _same_rope(unit, rope):
            raise CodebookError(
                f"made for RoPE of {_rope_name(unit.turns, unit.interleaved)}, this model's is "
                f"{_rope_name(rope.turns, rope.interleaved)}"
            )


def _same_rope(unit: Unit, rope: Rope) -> bool:
    if not np.array_equal(unit.turns, rope.turns):
        return False
    return not rope.pairs or unit.interleaved == rope.interleaved


def _rope_name(turns: Any, interleaved: bool) -> str:
    if not len(turns):
        return "no pairs"
    kind = "interleaved" if interleaved else "half-split"
    slowest = float(turns[-1]) / 2**64
    return f"{len(turns)} {kind} pairs down to {slowest:.3g} turns a token"
