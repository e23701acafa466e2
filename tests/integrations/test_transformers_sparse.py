"""Sparse attention: with all blocks it is dense attention; with fewer a token sees the chosen ones and no others."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from speckv_pynq.integrations.transformers import CacheConfig, SpecKVCache
from speckv_pynq.prefetch.ranking import Ranker
from tests.integrations.tiny import LAYERS, generate, logits, model, padded, prompt

pytestmark = pytest.mark.requires("libspeckv")
BLOCK, SINKS, RECENT = 16, 4, 32


def sparse(scheme: str = "raw", **changes: Any) -> CacheConfig:
    """Reads as few blocks as the budget says, even of short sequences."""
    return CacheConfig(scheme, attention="sparse", **({"least_blocks": 0} | changes))


def own_model(dtype: torch.dtype = torch.float32) -> Any:
    """A copy of the shared model: caches change its attention implementation."""
    return copy.deepcopy(model(dtype))


# ---- all blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_blocks_bit_for_bit(dtype: torch.dtype) -> None:
    made, ids, at = own_model(dtype), prompt(2, 120), 0
    with SpecKVCache.for_model(made, sparse(budget=1.0)) as cache:
        plain = DynamicCache(config=made.config)
        for tokens in (70, *[1] * 10, 33, *[1] * 7):
            part = ids[:, at : at + tokens]
            assert torch.equal(logits(made, cache, part), logits(model(dtype), plain, part))
            at += tokens
        assert cache.stats().sparse.read == cache.stats().sparse.held > 0


@pytest.mark.parametrize("told", [True, False])
def test_all_blocks_of_a_padded_batch(told: bool) -> None:
    inputs = padded([90, 12, 67])
    want = generate(model(), DynamicCache(config=model().config), inputs, max_new_tokens=24)
    made, mask = own_model(), inputs["attention_mask"] if told else None
    with SpecKVCache.for_model(made, sparse(budget=1.0), attention_mask=mask) as cache:
        assert generate(made, cache, inputs, max_new_tokens=24).tolist() == want.tolist()
        assert cache.stats().sparse.read > 0


@pytest.mark.parametrize(
    "how",
    [
        {"num_beams": 3},
        {"do_sample": True, "num_return_sequences": 3},
        {"prefill_chunk_size": 30},
    ],
)
def test_all_blocks_by_every_way_of_generation(how: dict[str, Any]) -> None:
    inputs, results = padded([70, 41]), []
    made = own_model()
    with SpecKVCache.for_model(made, sparse(budget=1.0)) as cache:
        for each in (DynamicCache(config=made.config), cache):
            torch.manual_seed(1)
            results.append(generate(made, each, inputs, max_new_tokens=20, **how).tolist())
    assert results[1] == results[0]


OPERATIONS = st.one_of(
    st.tuples(st.just("tokens"), st.sampled_from([1, 1, 1, 1, 2, 17])),
    st.tuples(st.just("steps"), st.sampled_from([2, 6])),
    st.tuples(st.just("crop"), st.sampled_from([1, 2, 9, 13, 16, 20, 50])),
    st.tuples(st.just("reorder"), st.lists(st.integers(0, 2), min_size=3, max_size=3)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 2), min_size=1, max_size=3)),
    st.tuples(st.just("repeat"), st.just(2)),
    st.tuples(st.just("fork"), st.none()),
    st.tuples(st.just("reset"), st.none()),
)


class Pair:
    """A dense and a sparse cache of one model, which reads all blocks: they go through the same."""

    def __init__(self, scheme: str, recent: int, l1_bytes: int | None) -> None:
        self.made, same = own_model(), {"recent": recent, "l1_bytes": l1_bytes}
        dense = CacheConfig(scheme, block_tokens=BLOCK, **same)
        chosen = sparse(scheme, budget=1.0, **same)
        self.caches = [SpecKVCache.for_model(self.made, kind) for kind in (dense, chosen)]
        self.seed, self.rows = 0, 3

    def tokens(self, count: int) -> None:
        self.seed += 1
        ids = prompt(self.rows, count, self.seed)
        want, got = (logits(self.made, cache, ids) for cache in self.caches)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)  # sums in another order

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.tokens(1)

    def crop(self, count: int) -> None:
        for cache in self.caches:
            cache.crop(-count)
        if not self.caches[0].get_seq_length():
            self.reset(None)

    def reorder(self, rows: list[int]) -> None:
        chosen = torch.tensor([row % self.rows for row in rows[: self.rows]])
        for cache in self.caches:
            cache.reorder_cache(chosen)
        self.rows = len(chosen)

    def select(self, rows: list[int]) -> None:
        chosen = torch.tensor([row % self.rows for row in rows])
        for cache in self.caches:
            cache.batch_select_indices(chosen)
        self.rows = len(chosen)

    def repeat(self, times: int) -> None:
        if self.rows * times <= 6:
            for cache in self.caches:
                cache.batch_repeat_interleave(times)
            self.rows *= times

    def fork(self, _: None) -> None:
        forks = [cache.fork() for cache in self.caches]
        for cache in self.caches:
            cache.close()
        self.caches = forks

    def reset(self, _: None) -> None:
        for cache in self.caches:
            cache.reset()
        self.tokens(40)

    def close(self) -> None:
        for cache in self.caches:
            cache.close()


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(["raw", "int4"]),
    st.sampled_from([0, 5, 32]),
    st.sampled_from([None, 100 << 10]),
    st.lists(OPERATIONS, max_size=8),
)
@example("int4", 0, None, [("crop", 13), ("steps", 8), ("crop", 3), ("steps", 9)])
@example("raw", 5, 100 << 10, [("tokens", 1), ("reorder", [2, 0, 0]), ("fork", None)])
def test_all_blocks_whatever_happens(
    scheme: str, recent: int, l1_bytes: int | None, operations: list[tuple[str, Any]]
) -> None:
    pair = Pair(scheme, recent, l1_bytes)
    try:
        pair.tokens(75)
        for name, argument in operations:
            getattr(pair, name)(argument)
        pair.steps(2)
    finally:
        pair.close()


# ---- some blocks


def every_other(
    self: Ranker, layer: int, query: Any, budget_blocks: int, candidates: Any = None
) -> Any:
    """In place of Ranker.choose: of row i every other block from i % 2 on."""
    blocks = self.blocks(layer)
    return np.stack([np.arange(row % 2, blocks - blocks % 2, 2) for row in range(self.rows)])


@pytest.mark.parametrize("scheme", ["raw", "int4"])
def test_a_token_sees_sinks_chosen_blocks_and_open_run(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against dense attention over the same blocks with a mask that hides the others."""
    monkeypatch.setattr(Ranker, "choose", every_other)
    made, ids = own_model(), prompt(2, 140)
    plain = CacheConfig(scheme, block_tokens=BLOCK)
    with (
        SpecKVCache.for_model(made, sparse(scheme)) as cache,
        SpecKVCache.for_model(made, plain) as dense,
    ):
        for each in (cache, dense):
            logits(made, each, ids[:, :120])
        for at in range(120, 140):
            # Blocks begin behind the sinks, of which the ranker's block 0 is made.
            open_start = SINKS + (at - SINKS - RECENT) // BLOCK * BLOCK
            position = torch.arange(at + 1)
            coded = (position >= SINKS) & (position < open_start)
            chosen = ((position - SINKS) // BLOCK + 1) % 2 == torch.arange(2)[:, None]
            mask = (~coded | chosen)[:, None, None]
            want = logits(made, dense, ids[:, at : at + 1], attention_mask=mask)
            got = logits(made, cache, ids[:, at : at + 1])
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("budget", [0.2, 0.5])
def test_only_chosen_blocks_are_asked_of_the_tiers(budget: float) -> None:
    made, ids = own_model(), prompt(2, 606)
    few = sparse(budget=budget, l1_bytes=200 << 10, fit_layers=False)
    with SpecKVCache.for_model(made, few) as cache:
        logits(made, cache, ids[:, :596])
        before = cache.stats()
        for at in range(596, 606):
            logits(made, cache, ids[:, at : at + 1])
        after = cache.stats()
    read = after.sparse.read - before.sparse.read
    asked = [
        getattr(after.tiers, name) - getattr(before.tiers, name)
        for name in ("hits_l1", "hits_l2", "misses")
    ]
    assert sum(asked) == read
    steps, uncoded = (
        2 * LAYERS * 10,
        1 + 3,
    )  # sinks and open run, in blocks: they count in the budget
    blocks = -(-(606 - SINKS) // BLOCK) + 1
    assert after.sparse.held - before.sparse.held == steps * (blocks - uncoded)
    assert read == steps * (int(budget * blocks) - uncoded)


def test_layers_share_a_budget() -> None:
    """Some read more, others less, together what the budget says; each row by itself."""
    made, ids = own_model(), prompt(2, 700)
    counts = {}
    for fit in (False, True):
        with SpecKVCache.for_model(made, sparse(budget=0.4, fit_layers=fit)) as cache:
            logits(made, cache, ids)
            steps(made, cache, 2, 5, seed=1)
            counts[fit] = cache.stats().sparse.read
    assert counts[True] == pytest.approx(counts[False], abs=2 * LAYERS * 5)  # rounding


def test_a_short_sequence_is_read_whole() -> None:
    made = own_model()
    with SpecKVCache.for_model(made, CacheConfig("raw", attention="sparse")) as cache:
        logits(made, cache, prompt(1, 200))
        logits(made, cache, prompt(1, 1))
        stats = cache.stats().sparse
    assert stats.read == stats.held == LAYERS * 10


@pytest.mark.parametrize("told", [True, False])
def test_rows_do_not_depend_on_each_other(told: bool) -> None:
    """Each row of a padded batch gives what it gives alone. Untold padding moves where blocks begin: few are read."""
    inputs, made = padded([300, 220, 300]), own_model()
    mask = inputs["attention_mask"] if told else None
    with SpecKVCache.for_model(made, sparse(budget=0.3), attention_mask=mask) as cache:
        together = generate(made, cache, inputs, max_new_tokens=20)
        stats = cache.stats().sparse
    assert stats.read < 0.3 * stats.held
    for row in range(3):
        length = int(inputs["attention_mask"][row].sum())
        if not told and length < 300:
            continue
        with SpecKVCache.for_model(made, sparse(budget=0.3)) as cache:
            alone = generate(
                made, cache, inputs["input_ids"][row : row + 1, -length:], max_new_tokens=20
            )
        assert together[row, -20:].tolist() == alone[0, -20:].tolist()


def steps(made: Any, cache: SpecKVCache, rows: int, count: int, seed: int) -> torch.Tensor:
    ids = prompt(rows, count, seed)
    return torch.cat([logits(made, cache, ids[:, i : i + 1]) for i in range(count)], 1)


@pytest.mark.parametrize("way", ["reorder", "select", "repeat", "fork"])
def test_what_is_known_of_rows_goes_with_them(way: str) -> None:
    """A row that moved chooses as it would have where it was."""
    made, ids = own_model(), prompt(2, 300)
    with SpecKVCache.for_model(made, sparse(budget=0.3)) as cache:
        logits(made, cache, ids)
        steps(made, cache, 2, 5, seed=1)
        with cache.fork() as other:
            same = prompt(1, 8, seed=2).expand(2, -1)
            want = torch.cat([logits(made, cache, same[:, i : i + 1]) for i in range(8)], 1)
            rows = {"reorder": [1, 0], "select": [1], "repeat": [0, 0, 1, 1], "fork": [0, 1]}[way]
            if way == "reorder":
                other.reorder_cache(torch.tensor(rows))
            elif way == "select":
                other.batch_select_indices(torch.tensor(rows))
            elif way == "repeat":
                other.batch_repeat_interleave(2)
            same = same[:1].expand(len(rows), -1)
            got = torch.cat([logits(made, other, same[:, i : i + 1]) for i in range(8)], 1)
    torch.testing.assert_close(got, want[rows], rtol=1e-4, atol=1e-4)


def test_blocks_brought_up_ahead_change_nothing_but_where_they_come_from() -> None:
    made, ids, results = own_model(), prompt(2, 500), []
    for ahead in (False, True):
        few = sparse("int4", budget=0.3, l1_bytes=200 << 10, ahead=ahead)
        with SpecKVCache.for_model(made, few) as cache:
            logits(made, cache, ids)
            results.append(steps(made, cache, 2, 10, seed=1))
            cache.system.tiers.wait_prefetched()
            stats = cache.stats()
        assert (stats.sparse.ahead > 0) == (stats.tiers.prefetched > 0) == ahead
        assert stats.tiers.hits_l2 <= stats.tiers.prefetched
    assert torch.equal(*results)


def test_what_is_kept_of_keys_counts_as_held() -> None:
    ids, held = prompt(1, 200), {}
    for attention in ("dense", "sparse"):
        made = own_model()
        config = CacheConfig("raw", attention=attention, block_tokens=BLOCK)
        with SpecKVCache.for_model(made, config) as cache:
            logits(made, cache, ids)
            held[attention] = cache.stats().held_bytes
    blocks, text = 200 // BLOCK, made.config
    heads = text.num_key_value_heads
    head_dim = text.hidden_size // text.num_attention_heads
    bounds_and_bits = 2 * 4 * head_dim + BLOCK * head_dim // 8
    assert held["sparse"] - held["dense"] >= LAYERS * blocks * heads * bounds_and_bits
