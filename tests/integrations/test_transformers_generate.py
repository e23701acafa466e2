"""Generation with scheme raw gives what DynamicCache gives, whatever `generate` does to the cache."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import DynamicCache

from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from tests.integrations.tiny import generate, logits, model, padded, prompt, raw_cache

pytestmark = pytest.mark.requires("libspeckv")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def check(
    made: Any, inputs: Any, attention_mask: torch.Tensor | None = None, **settings: Any
) -> None:
    torch.manual_seed(1)
    want = generate(made, DynamicCache(config=made.config), inputs, **settings)
    torch.manual_seed(1)
    with raw_cache(made, attention_mask=attention_mask) as cache:
        got = generate(made, cache, inputs, **settings)
    assert got.tolist() == want.tolist()


@pytest.mark.parametrize(
    ("dtype", "attention"),
    [(torch.float32, "sdpa"), (torch.float16, "eager"), (torch.bfloat16, "sdpa")],
)
def test_greedy(dtype: torch.dtype, attention: str) -> None:
    check(model(dtype, attention), prompt(1, 75), max_new_tokens=70)


@pytest.mark.parametrize("tokens", [1, 4, 35, 36, 37])
def test_prompts_around_sinks_and_blocks(tokens: int) -> None:
    check(model(), prompt(1, tokens), max_new_tokens=36)


@pytest.mark.parametrize(
    ("told", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)]
)
def test_padded_batch(told: bool, dtype: torch.dtype) -> None:
    inputs = padded([100, 12, 67, 1])
    check(model(dtype), inputs, inputs["attention_mask"] if told else None, max_new_tokens=50)


def test_beam_search() -> None:
    check(model(), prompt(2, 60), num_beams=4, max_new_tokens=50)


def test_beam_search_with_padding() -> None:
    inputs = padded([60, 21])
    check(model(), inputs, inputs["attention_mask"], num_beams=3, max_new_tokens=50)


def test_sampling_of_several_sequences() -> None:
    inputs = padded([60, 21])
    mask = inputs["attention_mask"]
    check(model(), inputs, mask, do_sample=True, num_return_sequences=3, max_new_tokens=50)


def test_prompt_lookup() -> None:
    repeated = prompt(1, 30).repeat(1, 4)
    check(model(), repeated, prompt_lookup_num_tokens=10, max_new_tokens=80)


def test_assisted() -> None:
    check(model(), prompt(1, 60), assistant_model=model(seed=5), max_new_tokens=60)


def test_chunked_prefill() -> None:
    check(model(), prompt(1, 300), prefill_chunk_size=70, max_new_tokens=40)


def test_second_turn() -> None:
    made, first = model(), prompt(2, 50)
    turns = []
    for cache in (DynamicCache(config=made.config), raw_cache(made)):
        ids = generate(made, cache, first, max_new_tokens=40)
        ids = torch.cat([ids, prompt(2, 45, seed=7)], 1)
        turns.append(generate(made, cache, ids, max_new_tokens=40))
    assert turns[1].tolist() == turns[0].tolist()


def test_reset_between_prompts() -> None:
    made = model()
    with raw_cache(made) as cache:
        for seed, rows in ((1, 1), (2, 3)):
            ids = prompt(rows, 80, seed)
            want = generate(made, DynamicCache(config=made.config), ids, max_new_tokens=20)
            assert generate(made, cache, ids, max_new_tokens=20).tolist() == want.tolist()
            cache.reset()
            assert cache.stats().tiers.blocks == 0


def test_a_prompt_reused_by_deepcopy() -> None:
    made, shared = model(), prompt(1, 100)
    with raw_cache(made) as cache:
        logits(made, cache, shared)
        blocks = cache.stats().tiers.blocks
        for seed in range(3):
            ids = torch.cat([shared, prompt(1, 20, seed)], 1)
            want = generate(made, DynamicCache(config=made.config), ids, max_new_tokens=30)
            with copy.deepcopy(cache) as fork:
                assert fork.stats().tiers.blocks == blocks  # the prompt's records are shared
                assert generate(made, fork, ids, max_new_tokens=30).tolist() == want.tolist()
            assert cache.stats().tiers.blocks == blocks
        assert cache.get_seq_length() == 100


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_equal_bit_for_bit(dtype: torch.dtype, attention: str) -> None:
    made, ids = model(dtype, attention), prompt(2, 140)
    with raw_cache(made) as cache:
        plain = DynamicCache(config=made.config)
        at = 0
        for tokens in (70, 1, 1, 33, 1, 30, 4):
            part = ids[:, at : at + tokens]
            got, want = logits(made, cache, part), logits(made, plain, part)
            assert torch.equal(got, want), f"tokens {at}..{at + tokens - 1}"
            at += tokens


@pytest.mark.parametrize("scheme", ["int4", "int8_delta_rle"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lossy_schemes_stay_near(scheme: str, dtype: torch.dtype) -> None:
    made, ids = model(dtype, spread=0.05), prompt(1, 200)
    plain = DynamicCache(config=made.config)
    with SpecKVCache.for_model(made, CacheConfig(scheme=scheme)) as cache:
        for part in (ids[:, :190], ids[:, 190:]):
            got, want = logits(made, cache, part), logits(made, plain, part)
        stats = cache.stats()
    error = (got - want).float().norm() / want.float().norm()
    assert error < 0.05
    assert stats.tiers.blocks == 3 * 5
    if scheme == "int4":
        assert stats.ratio_records > 3


def test_inference_mode_then_no_grad() -> None:
    made, ids = model(), prompt(1, 100)
    with raw_cache(made) as cache:
        with torch.inference_mode():
            logits(made, cache, ids[:, :60])
            logits(made, cache, ids[:, 60:61])
        got = logits(made, cache, ids[:, 61:])
    plain = DynamicCache(config=made.config)
    logits(made, plain, ids[:, :61])
    assert torch.equal(got.argmax(-1), logits(made, plain, ids[:, 61:]).argmax(-1))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda(dtype: torch.dtype) -> None:
    made = copy.deepcopy(model(dtype)).cuda()
    inputs = {name: t.cuda() for name, t in padded([100, 12, 67]).items()}
    check(made, inputs, inputs["attention_mask"], max_new_tokens=70)
    check(made, prompt(2, 60).cuda(), num_beams=3, max_new_tokens=50)
    check(made, prompt(1, 30).repeat(1, 4).cuda(), prompt_lookup_num_tokens=10, max_new_tokens=60)
