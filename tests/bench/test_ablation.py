"""The ablation changes one thing at a time and compares at the same distance from the exact model."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from speckv_pynq.bench import ablation  # noqa: E402
from speckv_pynq.bench.ablation import VARIANTS, Bench, markdown, measure  # noqa: E402
from speckv_pynq.calibration import Settings  # noqa: E402


def test_variants_are_settings_that_differ_from_the_recipe():
    recipe = Settings(step=1.0)
    known = {field.name for field in fields(Settings)}
    for changed in VARIANTS.values():
        assert set(changed) <= known
        assert replace(recipe, **changed) != recipe
    assert len({repr(changed) for changed in VARIANTS.values()}) == len(VARIANTS)


@dataclass
class Judged:
    kl: float
    dppl: float = 0.0
    dppl_error: float = 0.0
    agree: float = 1.0


class Maker:
    def quantiser(self, step):
        return step


@pytest.mark.parametrize("power", [1.2, 2.0, 3.1])
@pytest.mark.parametrize("first", [1e-4, 0.03, 2.0])
def test_a_search_finds_the_step_of_a_kl(power, first, monkeypatch):
    class Judge:
        units = 1

        def __call__(self, step, progress):
            return Judged(0.7 * step**power)

    monkeypatch.setattr(ablation._Reader, "_reading", lambda self, step, judged: (step, judged.kl))
    reader = ablation._Reader("v", Maker(), Judge(), lambda name, units: lambda done: None)
    step, kl = reader.near(first, 5e-3)
    assert kl == pytest.approx(5e-3, rel=ablation.CLOSE)
    assert step == pytest.approx((5e-3 / 0.7) ** (1 / power), rel=ablation.CLOSE)


def test_rows_of_a_tiny_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # models this small lose by threads
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=64,
        num_hidden_layers=2,
        intermediate_size=64,
        vocab_size=64,
        initializer_range=0.2,
    )
    ids = torch.randint(0, 64, (10, 160))
    stages = []

    def stage(name, units):
        stages.append(name)
        return lambda done: None

    bench = Bench(LlamaForCausalLM(config).eval(), ids[:8], ids[8:], stage)
    names = ["K and V apart", "no dead zone", "no Fisher weighting"]
    rows = list(measure(bench, Settings(target_dppl=1.0, classes=4), names))
    assert rows[0].name == ablation.FULL
    assert {row.name for row in rows[1:]} == set(names)
    assert rows[-1].name == "K and V apart"  # what needs statistics of its own comes last
    assert stages.count("reading text") == 2
    by_name = {row.name: row for row in rows}
    assert by_name["no Fisher weighting"].same_step is None
    assert by_name["no dead zone"].same_step.step == rows[0].same_step.step
    for row in rows:
        assert row.same_kl.ratio > 1
        assert math.isfinite(row.same_kl.dppl)
    text = markdown(rows, "what it is")
    assert all(f"| {row.name} | " in text for row in rows)
