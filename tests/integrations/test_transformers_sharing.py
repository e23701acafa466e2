"""Conversations with a common prompt: its blocks are coded and held once, and every one reads what it wrote."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from transformers import DynamicCache

from speckv_pynq.errors import ConfigError, UnsupportedLayer
from speckv_pynq.integrations._forward import forward
from speckv_pynq.integrations.transformers import SpecKVCache
from tests.integrations.tiny import HEAD_DIM, LAYERS, RAW, config, logits, model, padded, prompt

pytestmark = pytest.mark.requires("libspeckv")
BLOCK = 16
CONFIG = replace(RAW, block_tokens=BLOCK, recent=0, sinks=4)
COMMON = 4 + 10 * BLOCK


def conversations(count: int, own: int) -> list[torch.Tensor]:
    first = prompt(1, COMMON)
    return [torch.cat([first, prompt(1, own, seed=9 + i)], 1) for i in range(count)]


def run(cache: SpecKVCache | DynamicCache, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return forward(model(), ids, cache)


def blocks(cache: SpecKVCache) -> int:
    return cache.system.stats().tiers.blocks


@pytest.mark.parametrize("l1_bytes", [None, 0], ids=["all in L1", "streamed"])
def test_a_common_prompt_is_held_once(l1_bytes: int | None) -> None:
    with SpecKVCache.for_model(model(), replace(CONFIG, l1_bytes=l1_bytes)) as first:
        caches = [first, *(first.sibling() for _ in range(7))]
        for cache, ids in zip(caches, conversations(8, own=2 * BLOCK), strict=True):
            exact = DynamicCache()
            cache.tell_tokens(ids)
            for part in ids.split(COMMON, 1):
                assert torch.equal(run(cache, part), run(exact, part))
            more = prompt(1, 3, seed=99)
            assert torch.equal(run(cache, more), run(exact, more))
        assert blocks(first) == LAYERS * (10 + 8 * 2)
        assert first.system.stats().tiers.shared_blocks == 7 * LAYERS * 10
        for cache in caches[1:]:
            cache.close()
        assert blocks(first) == LAYERS * 12


def test_rows_of_a_batch_share_too_and_padding_does_not_matter() -> None:
    made = padded([COMMON, COMMON - 5])
    ids, mask = made["input_ids"], made["attention_mask"]
    ids[1, 5:] = ids[0, : COMMON - 5]
    with SpecKVCache.for_model(model(), CONFIG, attention_mask=mask) as cache:
        cache.tell_tokens(ids)
        logits(model(), cache, ids, attention_mask=mask)
        assert blocks(cache) == LAYERS * 10
        assert cache.system.stats().tiers.references == LAYERS * 19


def test_tokens_that_differ_early_share_nothing() -> None:
    one, two = prompt(1, COMMON, seed=1), prompt(1, COMMON, seed=1)
    two[0, 0] += 1
    with SpecKVCache.for_model(model(), CONFIG) as cache, cache.sibling() as other:
        for each, ids in ((cache, one), (other, two)):
            each.tell_tokens(ids)
            run(each, ids)
        assert cache.system.stats().tiers.shared_blocks == 0


def test_what_follows_a_crop_is_not_taken_for_what_was_told() -> None:
    ids = prompt(1, COMMON)
    with SpecKVCache.for_model(model(), CONFIG) as cache, cache.sibling() as other:
        for each in (cache, other):
            each.tell_tokens(ids)
        run(cache, ids)
        run(other, ids[:, : COMMON // 2])
        other.crop(40)
        exact, rest = DynamicCache(), prompt(1, 60, seed=5)
        run(exact, ids[:, :40])
        assert torch.equal(run(other, rest), run(exact, rest))
        more = prompt(1, 2, seed=6)
        assert torch.equal(run(other, more), run(exact, more))


@pytest.mark.parametrize("change", ["reorder", "repeat", "select", "fork"])
def test_told_tokens_follow_their_rows(change: str) -> None:
    ids = torch.cat([prompt(1, COMMON, seed=1), prompt(1, COMMON, seed=2)])
    half = 4 + 5 * BLOCK
    with SpecKVCache.for_model(model(), CONFIG) as cache, cache.sibling() as other:
        other.tell_tokens(ids[1:])
        run(other, ids[1:])
        cache.tell_tokens(ids)
        run(cache, ids[:, :half])
        rows, reader = [1], cache
        if change == "reorder":
            rows = [1, 0]
            cache.reorder_cache(torch.tensor(rows))
        elif change == "repeat":
            rows = [0, 0, 1, 1]
            cache.batch_repeat_interleave(2)
        elif change == "select":
            cache.batch_select_indices(torch.tensor(rows))
        else:
            rows, reader = [0, 1], cache.fork()
        before = cache.system.stats().tiers.shared_blocks
        exact = DynamicCache()
        run(exact, ids[rows, :half])
        got, want = run(reader, ids[rows, half:]), run(exact, ids[rows, half:])
        assert torch.allclose(got, want, atol=1e-3)  # sums depend on the rows beside them
        shared = cache.system.stats().tiers.shared_blocks - before
        assert shared == LAYERS * 5 * rows.count(1) + (LAYERS * 5 if change == "repeat" else 0)
        reader.close()


def test_equal_records_are_shared_without_a_word() -> None:
    ids = prompt(1, COMMON)
    chosen = replace(CONFIG, share_equal=True)
    with SpecKVCache.for_model(model(), chosen) as cache, cache.sibling() as other:
        for each in (cache, other):
            run(each, ids)
        assert blocks(cache) == LAYERS * 10


def test_wrong_words_are_refused() -> None:
    with SpecKVCache.for_model(model(), CONFIG) as cache:
        with pytest.raises(ConfigError, match=r"input_ids \(4,\)"):
            cache.tell_tokens(torch.zeros(4, dtype=torch.long))
        with pytest.raises(ConfigError, match="not \\(rows, tokens\\) of integers"):
            cache.tell_tokens(torch.zeros(1, 4))
        cache.tell_tokens(prompt(1, COMMON))
        with pytest.raises(ConfigError, match="was told 1 rows, the model runs 2"):
            run(cache, prompt(2, COMMON))
        cache.reset()
        run(cache, prompt(1, 8))
        with pytest.raises(ConfigError, match="tell_tokens after 8 tokens"):
            cache.tell_tokens(prompt(1, COMMON))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_keys_that_depend_on_the_length_are_not_shared_by_tokens(kind: str) -> None:
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    if kind == "longrope":
        factors = [1.0] * (HEAD_DIM // 2)
        rope |= {
            "short_factor": factors,
            "long_factor": factors,
            "original_max_position_embeddings": 512,
        }
    stated = config(rope_parameters=rope, dtype=torch.float32)
    with (
        SpecKVCache.for_model(stated, CONFIG) as cache,
        pytest.raises(UnsupportedLayer, match=kind),
    ):
        cache.tell_tokens(prompt(1, COMMON))
