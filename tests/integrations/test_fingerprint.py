"""A model's fingerprint: of its weights, not of how they were rounded."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from speckv_pynq.integrations._fingerprint import model_fingerprint  # noqa: E402
from tests.integrations import tiny  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_changes_nothing(dtype):
    made = copy.deepcopy(tiny.model())
    made.model.layers[0].self_attn.k_proj.weight.data[0, :2] = torch.tensor([1e-12, -1e-12])
    found = model_fingerprint(made)
    assert model_fingerprint(made.to(dtype)) == found
    assert model_fingerprint(made.to(torch.float32)) == found


def test_other_weights_and_another_rope_are_another_model():
    found = model_fingerprint(tiny.model())
    assert model_fingerprint(tiny.model(seed=1)) != found
    from transformers import LlamaForCausalLM

    settings = tiny.config(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    other = LlamaForCausalLM(settings)
    other.load_state_dict(tiny.model().state_dict())
    assert model_fingerprint(other) != found
