"""The rotation that scheme klt undoes is the one that models do: angles, layout, and which models have one at all."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from speckv_pynq.codebook import rotation_tables
from speckv_pynq.errors import ConfigError, UnsupportedLayer
from speckv_pynq.integrations._rope import Rope, check_rope, redo, undo
from tests.integrations import tiny

LONGEST = 4096
FLOAT32_ANGLE = (
    LONGEST / 2**24
)  # radians: how far models' float32 angles are off below LONGEST, at most
KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_theta": 10000.0},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 1024},
    "longrope": {
        "short_factor": [1.0 + i / 64 for i in range(32)],
        "long_factor": [2.0 + i / 16 for i in range(32)],
        "factor": 2.0,
        "original_max_position_embeddings": LONGEST,
    },
    "proportional": {"partial_rotary_factor": 0.5},
}
SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 97,
    "max_position_embeddings": LONGEST,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPTJ = {"n_embd": 128, "n_layer": 2, "n_head": 2, "n_inner": 64, "rotary_dim": 32}
QUARTER = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
HALF = QUARTER | {"partial_rotary_factor": 0.5}
# model type: settings, (pairs, interleaved)
FAMILIES: dict[str, tuple[dict[str, Any], tuple[int, bool]]] = {
    "qwen3": ({"head_dim": 64}, (32, False)),
    "phi": ({"rope_parameters": HALF}, (16, False)),
    "stablelm": ({"rope_parameters": QUARTER, "num_key_value_heads": 1}, (8, False)),
    "gpt_neox": ({"rope_parameters": QUARTER}, (8, False)),
    "nanochat": ({"head_dim": 64}, (32, False)),
    "cohere": ({}, (32, True)),
    "glm": ({"head_dim": 64, "rope_parameters": HALF, "num_key_value_heads": 1}, (16, True)),
    "helium": ({"head_dim": 64}, (32, True)),
    "ernie4_5": ({"head_dim": 64}, (32, True)),
    "gptj": (GPTJ | {"n_positions": LONGEST}, (16, True)),
}
NO_ROPE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": 64},
    "falcon": {"alibi": True},
    "granitemoehybrid": {"layer_types": ["attention"] * 2},
}


def llama_config(kind: str) -> Any:
    longest = 2 * LONGEST if kind in ("longrope", "llama3") else LONGEST
    parameters = {"rope_type": kind, "rope_theta": 10000.0} | KINDS[kind]
    return tiny.config(
        num_hidden_layers=2, max_position_embeddings=longest, rope_parameters=parameters
    )


def family_config(model_type: str) -> Any:
    settings = {"num_key_value_heads": 2} | FAMILIES[model_type][0]
    return AutoConfig.for_model(model_type, **(SMALL | settings))


def made(config: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, **settings).eval()


def run(model: Any, positions: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What k_proj gives and what the cache holds, (heads, tokens, head_dim) for each layer."""
    projected: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: projected.append(out[0]))
        for name, module in model.named_modules()
        if name.endswith("k_proj")
    ]
    cache = DynamicCache(config=model.config)
    ids = tiny.prompt(1, len(positions))
    tiny.logits(model, cache, ids, position_ids=positions[None])
    for hook in hooks:
        hook.remove()
    cached = [layer.keys[0] for layer in cache.layers]
    split = [p.unflatten(-1, (-1, cached[0].shape[-1])).transpose(0, 1) for p in projected]
    return split, cached


def some_positions(last: int = LONGEST - 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    between = torch.randperm(last, generator=generator)[:40].sort().values
    return torch.cat([between, torch.tensor([last])])


def assert_undone(model: Any, rope: Rope, scale: float = 1.0) -> None:
    """With rotation undone, cached keys are what k_proj gave, to what float32 angles allow."""
    positions = some_positions()
    projected, cached = run(model, positions)
    assert len(projected) == len(cached) == 2
    for want, keys in zip(projected, cached, strict=True):
        got = undo(keys, positions, rope)
        if scale != 1.0:  # it multiplies what turns, which is everything here
            want = want * scale
        error = (got - want).abs().amax()
        assert error < 2 * FLOAT32_ANGLE * want.abs().amax()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rope(kind: str) -> None:
    model = made(llama_config(kind))
    rope = Rope.of(model)
    assert (rope.pairs, rope.interleaved) == (32, False)
    assert_undone(model, rope, model.model.rotary_emb.attention_scaling)
    assert check_rope(model, rope) < 4 * FLOAT32_ANGLE


@pytest.mark.parametrize("model_type", FAMILIES)
def test_families_turn_the_elements_that_the_table_says(model_type: str) -> None:
    model = made(family_config(model_type))
    rope = Rope.of(model)
    assert (rope.pairs, rope.interleaved) == FAMILIES[model_type][1]
    assert check_rope(model, rope) < 4 * FLOAT32_ANGLE


@pytest.mark.parametrize("model_type", ["phi", "stablelm", "cohere", "glm", "helium", "gptj"])
def test_families_give_back_what_was_projected(model_type: str) -> None:
    model = made(family_config(model_type))
    assert_undone(model, Rope.of(model))


@pytest.mark.parametrize("model_type", NO_ROPE)
def test_a_model_without_rope_has_no_pairs(model_type: str) -> None:
    model = made(AutoConfig.for_model(model_type, **(SMALL | NO_ROPE[model_type])))
    rope = Rope.of(model)
    assert rope.pairs == 0
    assert check_rope(model, rope) == 0
    keys = torch.randn(3, 5, 64)
    assert torch.equal(undo(keys, torch.arange(5), rope), keys)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_angles_that_depend_on_the_length_are_noted_and_still_invertible(kind: str) -> None:
    model = made(llama_config(kind))
    rope = Rope.of(model)
    assert rope.note.startswith(f"{kind}: ")
    assert str(LONGEST) in rope.note
    positions = some_positions(2 * LONGEST - 1)
    for keys in run(model, positions)[1]:
        undone = undo(keys, positions, rope)
        assert (redo(undone, positions, rope) - keys).abs().amax() < 4e-7 * keys.abs().amax()


def test_a_config_is_enough_and_stays_as_it_is() -> None:
    config = llama_config("yarn")
    before = copy.deepcopy(config.to_dict())
    assert Rope.of(config).turns.tolist() == Rope.of(made(config)).turns.tolist()
    assert config.to_dict() == before


def test_old_spelling_of_the_parameters() -> None:
    old = tiny.config(rope_theta=5000.0, rope_scaling={"type": "linear", "factor": 2.0})
    new = tiny.config(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0})
    assert Rope.of(old).turns.tolist() == Rope.of(new).turns.tolist()


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("smollm3", {"no_rope_layers": [1, 0]}, "not all layers"),
        ("gemma3_text", {}, "differs among layers"),
        ("hunyuan_v1_dense", {}, "normalised"),
        ("llama", {"rope_parameters": {"rope_type": "spiral"}}, "spiral"),
        (
            "qwen2",
            {"rope_parameters": HALF | {"partial_rotary_factor": 2.0}},
            "128 elements of heads of 64",
        ),
    ],
)
def test_what_one_rotation_does_not_describe_is_refused(
    model_type: str, settings: dict[str, Any], message: str
) -> None:
    config = AutoConfig.for_model(model_type, **(SMALL | settings))
    with pytest.raises(UnsupportedLayer, match=message):
        Rope.of(config)


def test_check_catches_a_wrong_theta() -> None:
    parameters = {"rope_type": "default", "rope_theta": 12000.0}
    wrong = Rope.of(tiny.config(rope_parameters=parameters))
    with pytest.raises(ConfigError, match=r"differ by .* > 0.05"):
        check_rope(tiny.model(), wrong)


def test_check_catches_a_wrong_layout_and_names_the_right_one() -> None:
    right = Rope.of(tiny.model())
    with pytest.raises(ConfigError, match="fits with interleaved=False"):
        check_rope(tiny.model(), Rope(right.turns, True))


def test_check_catches_pairs_that_do_not_turn() -> None:
    right = Rope.of(tiny.model())
    with pytest.raises(ConfigError):
        check_rope(tiny.model(), Rope(right.turns[:16], False))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_check_tells_a_model_of_low_precision_from_one_cast_to_it(dtype: torch.dtype) -> None:
    config = tiny.config()
    rope = Rope.of(config)
    assert check_rope(made(config, dtype=dtype), rope) < 0.02
    with pytest.raises(ConfigError, match=r"rotary_emb.*was cast to"):
        check_rope(made(config).to(dtype), rope)


# ---- undo and redo


@given(
    turn=st.integers(0, 2**64 - 1), position=st.integers(0, 2**32 - 1), interleaved=st.booleans()
)
def test_angles_are_exact_at_any_position(turn: int, position: int, interleaved: bool) -> None:
    rope = Rope(np.array([turn], np.uint64), interleaved)
    keys = torch.tensor([[1.0, 0.0, 7.0]], dtype=torch.float64)
    angle = 2 * math.pi * (turn * position % 2**64) / 2**64
    got = redo(keys, torch.tensor([position]), rope)[0].tolist()
    assert got == pytest.approx([math.cos(angle), math.sin(angle), 7.0], abs=1e-15)


@given(seed=st.integers(0, 2**32 - 1), interleaved=st.booleans(), pairs=st.integers(0, 16))
def test_redo_inverts_undo(seed: int, interleaved: bool, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    rope = Rope(rng.integers(0, 2**64, pairs, np.uint64), interleaved)
    keys = torch.from_numpy(rng.standard_normal((2, 3, 5, 32)))
    positions = torch.from_numpy(rng.integers(0, 1 << 20, (2, 1, 5)))
    there = undo(keys, positions, rope)
    torch.testing.assert_close(redo(there, positions, rope), keys, rtol=0, atol=1e-14)
    assert torch.equal(there[..., 2 * pairs :], keys[..., 2 * pairs :])
    for row in range(2):  # each row by its own positions
        assert torch.equal(undo(keys[row], positions[row, 0], rope), there[row])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_rounded_once(dtype: torch.dtype) -> None:
    rope = Rope.of(tiny.config())
    keys = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    want = undo(keys.float(), torch.arange(9), rope).to(dtype)
    assert torch.equal(undo(keys, torch.arange(9), rope), want)


# ---- in integers, as kernels do it


def cosine_and_sine(phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) 16-bit phases -> (n,) cosine and sine in 2**-14."""
    table = rotation_tables().astype(np.int64)
    (ch, sh), (cl, sl) = table[0][phase >> 8].T, table[1][phase & 255].T
    return (ch * cl - sh * sl + 2**13) >> 14, (sh * cl + ch * sl + 2**13) >> 14


def rotated(x: np.ndarray, y: np.ndarray, c: np.ndarray, s: np.ndarray) -> Any:
    return (x * c - y * s + 2**13) >> 14, (x * s + y * c + 2**13) >> 14


def test_integer_rotation_undone_and_redone_moves_little() -> None:
    """By at most 2.0e-4 of the pair's norm and 1.21: c^2 + s^2 is within 1.97e-4 of 1 at all 65536 phases, and the
    rounding of the first rotation, turned by the second, is at most sqrt(1/2) before the second rounds by 1/2.
    An angle is within 2.0e-4 radian of the phase's: 9.6e-5 because 16 bits of it are used, 1.03e-4 by the table.
    """
    phase = np.arange(1 << 16)
    c, s = cosine_and_sine(phase)
    assert np.abs((c * c + s * s) / 2**28 - 1).max() < 1.97e-4
    exact = np.exp(2j * np.pi * phase / 2**16)
    assert np.abs(np.angle((c + 1j * s) / exact)).max() < 1.03e-4
    rng = np.random.default_rng(0)
    for largest in (3, 500, 65535):
        x, y = rng.integers(-largest, largest + 1, (2, 16, 1 << 16))
        undone = rotated(x, y, c, -s)
        back = rotated(undone[0], undone[1], c, s)
        moved = np.maximum(np.abs(back[0] - x), np.abs(back[1] - y))
        assert (moved <= 1.97e-4 * np.hypot(x, y) + 1.21).all()
