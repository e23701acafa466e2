"""Codebooks made of a tiny model: repeatable, valid, near their targets, and what the oracle makes of them."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("safetensors")

from speckv_pynq import spec  # noqa: E402
from speckv_pynq.calibration import Layout, Settings, calibrate  # noqa: E402
from speckv_pynq.calibration.search import likely_dppl  # noqa: E402
from speckv_pynq.codebook import Codebook  # noqa: E402
from speckv_pynq.errors import ConfigError  # noqa: E402
from speckv_pynq.reference import klt  # noqa: E402
from speckv_pynq.reference.floats import FORMATS  # noqa: E402
from tests.integrations import tiny  # noqa: E402

STEP = Settings(step=0.02, sample_tokens=2048, batch_tokens=1024, classes=12)
CONTEXT = 256


def text(tokens: int = 3072, seed: int = 0):
    return tiny.prompt(tokens // CONTEXT, CONTEXT, seed)


@functools.cache
def made(settings: Settings = STEP):
    return calibrate(tiny.model(), text(), text(1024, seed=1), settings)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("scope", "units", "transforms"), [("layer", 3, 1), ("head", 3, 2), ("all", 1, 1)]
)
def test_layout_of_scopes(scope, units, transforms, apart):
    layout = Layout.of(scope, 3, 2, 64, apart)
    assert (layout.units, layout.transforms) == (units, transforms * (1 + apart))
    keys, values = torch.randn(2, 3, 5, 2, 64)
    vectors = layout.gather(keys, values)
    assert vectors.shape == (units * layout.transforms, 5, layout.each)
    assert all(
        torch.equal(a, b) for a, b in zip(layout.scatter(vectors), (keys, values), strict=True)
    )


@pytest.mark.parametrize("scope", ["layer", "head", "group:3"])
def test_a_codebook_is_valid_and_round_trips_through_its_file(scope, tmp_path):
    found = made(replace(STEP, scope=scope)).codebook  # Codebook checks itself
    found.save(tmp_path / "c.safetensors")
    again = Codebook.load(tmp_path / "c.safetensors")
    assert again.fingerprint == found.fingerprint
    assert again.metadata["scope"] == scope


def test_the_same_seed_gives_the_same_codebook():
    again = calibrate(tiny.model(), text(), text(1024, seed=1), STEP)
    assert again.codebook.fingerprint == made().codebook.fingerprint
    other = calibrate(tiny.model(), text(), text(1024, seed=1), replace(STEP, seed=1))
    assert other.codebook.fingerprint != made().codebook.fingerprint


def test_a_smaller_step_is_closer_and_larger():
    coarse, fine = made(), made(replace(STEP, step=0.01))
    assert fine.judged.kl < coarse.judged.kl
    assert fine.ratio < coarse.ratio


def test_targets_are_met():
    ratio = made(replace(STEP, step=None, target_ratio=4.0))
    assert ratio.ratio == pytest.approx(4.0, rel=0.1)
    dppl = made(replace(STEP, step=None, target_dppl=2.0))
    assert likely_dppl(dppl.judged) == pytest.approx(2.0, rel=0.25)


def test_the_oracle_codes_new_text_as_the_simulation_says():
    """The rate of the real records is the expected one, and values come back as near as the step allows."""
    found = made()
    keys, values = cache_of(text(CONTEXT, seed=2))
    coded = raw = 0
    for unit in found.codebook.units:
        for first in range(4, CONTEXT - 32, 32):
            book = klt.Book(unit, found.codebook.tables, first)
            arrays = {
                kind: x[unit.first_layer][first : first + 32].view(np.uint16)
                for kind, x in ((spec.Kind.KEY, keys), (spec.Kind.VALUE, values))
            }
            payload, params = klt.encode(arrays, FORMATS[spec.DType.FP16], book)
            back = klt.decode(payload, params, 32, FORMATS[spec.DType.FP16], book)
            for kind, bits in arrays.items():
                want, got = (x.view(np.float16).astype(np.float32) for x in (bits, back[kind]))
                assert np.square(got - want).mean() < 0.3 * want.var()
            coded += -(-(64 + len(payload)) // 64) * 64
            raw += sum(x.nbytes for x in arrays.values())
    assert raw / coded == pytest.approx(found.ratio, rel=0.05)


def cache_of(ids):
    """(layers, tokens, heads, head_dim) float16 keys and values of one row."""
    from transformers import DynamicCache

    cache = DynamicCache(config=tiny.model().config)
    tiny.logits(tiny.model(), cache, ids)
    return (
        np.stack([getattr(x, name)[0].transpose(0, 1).half().numpy() for x in cache.layers])
        for name in ("keys", "values")
    )


def test_ranks_are_cut_to_fit_a_file(tmp_path):
    found = made(replace(STEP, max_bytes=200_000))
    path = tmp_path / "c.safetensors"
    found.codebook.save(path)
    assert path.stat().st_size <= 200_000
    assert any("components that pay are left out" in note for note in found.notes)


@pytest.mark.parametrize(
    "settings",
    [
        replace(STEP, apart=True),
        replace(STEP, fisher=False, step=0.5),
        replace(STEP, unrotate=False),
        replace(STEP, exclude_sinks=False),
        replace(STEP, table_sets=1),
        replace(STEP, dead_zone=0.5),
    ],
    ids=["apart", "fisher", "rotated", "sinks", "one table set", "plain rounding"],
)
def test_each_ingredient_can_be_left_out(settings):
    found = made(settings)
    assert found.codebook.fingerprint != made().codebook.fingerprint
    assert found.ratio > 1
    assert bool(found.codebook.units[0].pairs) == settings.unrotate


@pytest.mark.parametrize(
    ("tokens", "settings", "words"),
    [
        (512, STEP, "512 tokens of calibration text; scope layer needs 1024"),
        (3072, replace(STEP, scope="group:2"), "3 layers are no multiple of 2"),
        (3072, replace(STEP, scope="rows"), "scope 'rows'"),
    ],
)
def test_what_cannot_be_done_is_refused(tokens, settings, words):
    with pytest.raises(ConfigError, match=words):
        calibrate(tiny.model(), text(tokens), text(1024, seed=1), settings)


@pytest.mark.parametrize(
    "changes",
    [{"step": None}, {"target_ratio": 3.0}, {"step": -1.0}, {"dead_zone": 0.3}, {"table_sets": 5}],
)
def test_settings_are_checked(changes):
    with pytest.raises(ConfigError):
        replace(STEP, **changes)
