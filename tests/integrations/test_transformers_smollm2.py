"""The real model: raw is DynamicCache token for token, int4 stays close at a third of the bytes."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import DynamicCache

from speckv_pynq.integrations._codebook import shipped_for
from speckv_pynq.integrations.smollm2 import python_prose
from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from tests.integrations.tiny import generate, logits

pytestmark = pytest.mark.requires("libspeckv")
TOKENS = 600


@pytest.fixture(scope="module")
def text(smollm2: tuple[Any, Any]) -> torch.Tensor:
    """(1, TOKENS) token ids of English prose."""
    tokenizer = smollm2[1]
    ids: torch.Tensor = tokenizer(python_prose(8 * TOKENS), return_tensors="pt").input_ids
    return ids[:, :TOKENS]


def test_raw_is_dynamic_cache(smollm2: tuple[Any, Any], text: torch.Tensor) -> None:
    made = smollm2[0]
    want = generate(made, DynamicCache(config=made.config), text, max_new_tokens=20)
    block_bytes = 2 * 32 * 3 * 64 * 4
    # A quarter of the blocks stay decoded, the others are fetched at each step.
    quarter = CacheConfig("raw", l1_bytes=30 * (TOKENS // 32) * block_bytes // 4)
    with SpecKVCache.for_model(made, quarter) as cache:
        got = generate(made, cache, text, max_new_tokens=20)
        stats = cache.stats()
    assert got.tolist() == want.tolist()
    assert stats.tiers.hits_l1 > 0
    assert stats.tiers.misses > stats.tiers.hits_l1


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "ratio"), [("int4", 3), ("klt", 5)])
def test_lossy_schemes_stay_close(
    smollm2: tuple[Any, Any], text: torch.Tensor, scheme: str, ratio: float
) -> None:
    """Mean log-probability of the text's last 50 tokens, read from coded blocks; klt with the shipped codebook."""
    made, losses = smollm2[0], []
    if scheme == "klt" and shipped_for(made) is None:
        pytest.skip("no codebook is shipped for SmolLM2")
    coded = SpecKVCache.for_model(made, CacheConfig(scheme))
    for cache in (DynamicCache(config=made.config), coded):
        logits(made, cache, text[:, : TOKENS - 50], logits_to_keep=1)
        scores = logits(made, cache, text[:, TOKENS - 50 :])
        losses.append(torch.nn.functional.cross_entropy(scores[0, :-1], text[0, 1 - 50 :]).item())
    with coded:
        stats = coded.stats()
    assert losses[1] < losses[0] + 0.05
    assert stats.ratio_records > ratio
    assert stats.ratio_held > 2.5
    assert stats.tiers.raw_fallbacks == stats.tiers.int4_fallbacks == 0
