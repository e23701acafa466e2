"""A model's rotary position embedding as scheme `klt` undoes it: integer turns, and which elements turn together."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from speckv_pynq.codebook import pair_elements
from speckv_pynq.errors import ConfigError, UnsupportedLayer

CIRCLE: Final = 1 << 64
MISMATCH_LIMIT: Final = 0.05
CHECKED_POSITIONS: Final = 32768  # a float32 angle is within 0.002 of a radian below it
CHECKED_TOKENS: Final = 4

# Everything else turns elements (i, i + pairs), as Llama does.
INTERLEAVED: Final[Mapping[str, str]] = {
    "codegen": "rotate_every_two",
    "cohere": "rotate_half takes [..., ::2] and [..., 1::2]",
    "ernie4_5": "angles are repeated in place",
    "ernie4_5_moe": "angles are repeated in place",
    "glm": "angles are repeated in place",
    "glm4": "angles are repeated in place",
    "glm4v_text": "rotate_half_llm takes [..., ::2] and [..., 1::2]",
    "glm_ocr_text": "rotate_half_llm takes [..., ::2] and [..., 1::2]",
    "gptj": "rotate_every_two",
    "helium": "angles are repeated in place",
}
BACKWARD: Final[Mapping[str, str]] = {"nanochat": "rotate_half has its signs flipped"}
REFUSED: Final[Mapping[str, str]] = {
    "ernie4_5_vl_moe_text": "its pairs are in an order of their own",
    "hunyuan_v1_dense": "keys are normalised behind it, with a weight an element",
    "hunyuan_v1_moe": "keys are normalised behind it, with a weight an element",
    "hunyuan_vl_text": "keys are normalised behind it, with a weight an element",
    "roformer": "its config has no parameters of it",
}


@dataclass(frozen=True, eq=False)
class Rope:
    """What must be known to undo the rotation of a model's keys, the same in all layers.

    turns: (pairs,) uint64: turn of pair i from one position to the next, in 2**-64 of a circle; no pairs: no RoPE.
    interleaved: pair i is elements (2i, 2i+1) of a head, else (i, i + pairs); elements beyond 2 * pairs do not turn.
    note: where the model's own angles may differ from these; "" where they never do. Rotation by other angles is
    inverted just as exactly, so a difference costs compression, not correctness.
    """

    turns: npt.NDArray[np.uint64]
    interleaved: bool
    note: str = ""

    @property
    def pairs(self) -> int:
        return len(self.turns)

    @staticmethod
    def of(model_or_config: Any) -> Rope:
        """From a transformers model or config; UnsupportedLayer where one rotation does not describe all layers."""
        config = getattr(model_or_config, "config", model_or_config)
        text = copy.deepcopy(config.get_text_config(decoder=True))  # reading may rewrite it
        _check_same_everywhere(text)
        if _without_rope(text):
            return Rope(np.zeros(0, np.uint64), False)
        if getattr(text, "rope_parameters", None) or getattr(text, "rope_theta", None):
            text.standardize_rope_params()
        inverse, note = _inverse_frequencies(text)
        if 2 * len(inverse) > _head_dim(text):
            raise UnsupportedLayer(
                f"scheme klt: RoPE of {text.model_type} turns {2 * len(inverse)} elements of heads of {_head_dim(text)}"
            )
        turns = _turns(-inverse if text.model_type in BACKWARD else inverse)
        return Rope(turns, text.model_type in INTERLEAVED, note)


def undo(keys: torch.Tensor, positions: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Keys as they were before rotation.

    keys: (..., tokens, head_dim) of any float dtype; positions: integers that broadcast against keys.shape[:-1], so
    (tokens,) or, say, (rows, 1, tokens). Returns keys' shape and dtype; computes in float32 at least, from angles
    exact to 2**-52 of a circle.
    """
    return _rotated(keys, positions, rope, -1)


def redo(keys: torch.Tensor, positions: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Keys rotated as the model does (but for its attention factor); arguments and result as those of `undo`."""
    return _rotated(keys, positions, rope, 1)


@torch.no_grad()
def check_rope(model: Any, rope: Rope) -> float:
    """Measures whether `rope` undoes this model's rotation; ConfigError where not.

    Layer 0 sees nothing but the token, so its keys of one token must be equal at all positions once rotation is
    undone. Returns the largest difference from those of position 0, relative to the norm of the pair over all heads
    (of all elements, for those that do not turn). 0 without RoPE: positions may be added to the embedding then.
    """
    if not rope.pairs:
        return 0.0
    positions = _checked_positions(model)
    keys = _first_keys(model, positions)
    mismatch, position = _mismatch(keys, positions, rope)
    if mismatch <= MISMATCH_LIMIT:
        return mismatch
    raise ConfigError(
        f"RoPE of {model.config.model_type} (pairs={rope.pairs}, interleaved={rope.interleaved}) is not what the "
        f"model does: keys of layer 0 differ by {mismatch:.3g} > {MISMATCH_LIMIT} at position {position}; "
        f"{_hint(model, keys, positions, rope)}"
    )


# ---- from a config


def _head_dim(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _without_rope(text: Any) -> bool:
    if getattr(text, "alibi", False):
        return True
    if getattr(text, "position_embedding_type", "rope") not in ("rope", "rotary"):
        return True
    names = ("rope_parameters", "rope_scaling", "rope_theta", "rotary_dim")
    return not any(getattr(text, name, None) for name in names)


def _check_same_everywhere(text: Any) -> None:
    where = f"scheme klt: RoPE of {text.model_type}"
    if text.model_type in REFUSED:
        raise UnsupportedLayer(f"{where}: {REFUSED[text.model_type]}")
    layers = getattr(text, "no_rope_layers", None) or ()  # 0 where a layer has none
    if not all(layers):
        raise UnsupportedLayer(f"{where}: not all layers have it (no_rope_layers={list(layers)})")
    parameters = getattr(text, "rope_parameters", None) or {}
    nested = [name for name, value in parameters.items() if isinstance(value, Mapping)]
    if nested:
        raise UnsupportedLayer(f"{where}: it differs among layers ({nested})")


def _inverse_frequencies(text: Any) -> tuple[torch.Tensor, str]:
    """(pairs,) float32, rounded as transformers rounds them, radians a position; and a note."""
    parameters = getattr(text, "rope_parameters", None) or {}
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        return _default(text, parameters), _note(text, parameters)
    if kind not in ROPE_INIT_FUNCTIONS:
        raise UnsupportedLayer(
            f"scheme klt: RoPE of kind {kind!r}; known: {['default', *sorted(ROPE_INIT_FUNCTIONS)]}"
        )
    inverse, _ = ROPE_INIT_FUNCTIONS[kind](text, torch.device("cpu"))
    return inverse, _note(text, parameters)


def _default(text: Any, parameters: Mapping[str, Any]) -> torch.Tensor:
    """RoFormer, arXiv 2104.09864, eq. 15; GPT-J and CodeGen have nothing but a rotary_dim."""
    share = parameters.get("partial_rotary_factor")
    dim = int(_head_dim(text) * (1.0 if share is None else share))
    if not parameters:
        dim = getattr(text, "rotary_dim", None) or dim
    base = parameters.get("rope_theta") or 10000.0
    return 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))


def _note(text: Any, parameters: Mapping[str, Any]) -> str:
    kind = parameters.get("rope_type", "default")
    if kind == "dynamic":
        return f"dynamic: angles of sequences up to {text.max_position_embeddings} positions"
    if kind == "longrope":
        original = parameters["original_max_position_embeddings"]
        return f"longrope: short factors, of sequences up to {original} positions"
    if parameters.get("mrope_section"):
        return "mrope: angles of text; positions of images have more than one axis"
    return ""


def _turns(inverse: torch.Tensor) -> npt.NDArray[np.uint64]:
    circles = [float(f) / (2 * math.pi) for f in inverse]
    return np.array([round(c * CIRCLE) % CIRCLE for c in circles], np.uint64)


# ---- rotation


def _angles(positions: torch.Tensor, turns: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """(*positions.shape, pairs) radians, of the phase turns * p mod 2**64."""
    p = positions.detach().cpu().numpy().astype(np.uint64)
    phases: npt.NDArray[np.uint64] = p[..., None] * turns
    return phases.astype(np.float64) * (2 * math.pi / CIRCLE)


def _rotated(keys: torch.Tensor, positions: torch.Tensor, rope: Rope, sign: int) -> torch.Tensor:
    dtype = torch.promote_types(keys.dtype, torch.float32)
    angles = torch.from_numpy(sign * _angles(positions, rope.turns))
    cos, sin = (f(angles).to(keys.device, dtype) for f in (torch.cos, torch.sin))
    a, b = (
        torch.from_numpy(i).to(keys.device) for i in pair_elements(rope.pairs, rope.interleaved)
    )
    result = keys.to(dtype, copy=True)
    x, y = result[..., a], result[..., b]
    result[..., a] = x * cos - y * sin
    result[..., b] = x * sin + y * cos
    return result.to(keys.dtype)


# ---- against a real model


def _checked_positions(model: Any) -> torch.Tensor:
    """0, 1, 2, 4, ... and the last one at which the model's angles must be these."""
    text = model.config.get_text_config(decoder=True)
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return torch.arange(64)
    parameters = getattr(text, "rope_parameters", None) or {}
    longest = getattr(text, "max_position_embeddings", None) or 2048
    if parameters.get("rope_type") == "longrope":
        longest = parameters.get("original_max_position_embeddings", longest)
    last = min(longest, CHECKED_POSITIONS) - 1
    powers = [1 << i for i in range(last.bit_length())]
    return torch.tensor(sorted({0, *powers, last}))


def _first_keys(model: Any, positions: torch.Tensor) -> torch.Tensor:
    """(CHECKED_TOKENS, heads, positions, head_dim) float32: keys of layer 0, one token a row."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    tokens = torch.arange(1, CHECKED_TOKENS + 1) * vocabulary // (CHECKED_TOKENS + 1)
    ids = tokens[:, None].expand(-1, len(positions)).contiguous().to(model.device)
    arguments: dict[str, Any] = {"attention_mask": torch.ones_like(ids)}
    if "position_ids" in inspect.signature(model.forward).parameters:
        arguments["position_ids"] = positions.to(model.device).expand_as(ids).contiguous()
    cache = DynamicCache(config=model.config)
    was_training = model.training
    model.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer releases prefer `cache` to `past_key_values`
            model(ids, past_key_values=cache, use_cache=True, **arguments)
    finally:
        model.train(was_training)
    return cache.layers[0].keys.float()


def _hint(model: Any, keys: torch.Tensor, positions: torch.Tensor, rope: Rope) -> str:
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq") and buffer.dtype != torch.float32:
            return f"{name} was cast to {buffer.dtype}: load the model with dtype= instead of casting it"
    other = Rope(rope.turns, not rope.interleaved)
    if _mismatch(keys, positions, other)[0] <= MISMATCH_LIMIT:
        return f"it fits with interleaved={other.interleaved}"
    return "its angles, its pairs or what is done to keys besides are others"


def _mismatch(keys: torch.Tensor, positions: torch.Tensor, rope: Rope) -> tuple[float, int]:
    """The largest relative difference from the first position, and the position where it is."""
    same = undo(keys, positions, rope)
    parts = [same[..., i] for i in pair_elements(rope.pairs, rope.interleaved)]
    groups = [torch.stack(parts, -1)]  # (tokens, heads, positions, pairs, 2)
    if 2 * rope.pairs < keys.shape[-1]:
        groups.append(same[..., None, 2 * rope.pairs :])
    worst = []
    for group in groups:
        change = (group - group[:, :, :1]).square().sum((1, -1)).sqrt()
        norm = group.square().sum((1, -1)).sqrt().clamp_min(1e-6)
        worst.append((change / norm).amax((0, 2)))
    by_position = torch.stack(worst).amax(0)
    return float(by_position.max()), int(positions[by_position.argmax()])
