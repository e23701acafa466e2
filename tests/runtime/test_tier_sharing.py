"""Equal blocks are held once: by the keys that callers give, and by equal records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.errors import PoolFull
from speckv_pynq.spec import Scheme
from speckv_pynq.tiers import TierManager
from speckv_pynq.tiers.sharing import PrefixKeys
from tests.runtime.tiers import SMALL, Cache, budgets, conserved, held, manager, through_reference

pytestmark = pytest.mark.requires("libspeckv")
KEYS = [bytes([i]) * 32 for i in range(6)]


def test_what_two_callers_name_alike_is_coded_and_held_once() -> None:
    mine, theirs = Cache.random(3, seed=1), Cache.random(3, seed=2)
    with manager() as tiers:
        first = mine.put(tiers, keys=KEYS[:3])
        before = tiers.stats()
        second = theirs.put(tiers, keys=[*KEYS[:2], None])
        after = tiers.stats()
        assert second[:2].tolist() == first[:2].tolist()
        assert (after.blocks, after.references) == (4, 6)
        assert after.shared_blocks == 2
        assert after.bytes_encoded - before.bytes_encoded == SMALL.block_bytes
        assert theirs.get(tiers, second).block(2)[0].tobytes() == theirs.block(2)[0].tobytes()
        tiers.release(first)
        assert theirs.get(tiers, second).block(0)[0].tobytes() == mine.block(0)[0].tobytes()
        tiers.release(second)
        assert tiers.stats().blocks == 0


def test_a_key_of_blocks_that_are_gone_makes_new_ones() -> None:
    old, new = Cache.random(2, seed=1), Cache.random(2, seed=2)
    with manager() as tiers:
        tiers.release(old.put(tiers, keys=KEYS[:2]))
        assert new.get(tiers, new.put(tiers, keys=KEYS[:2])).same(new)
        assert tiers.stats().shared_blocks == 0


def test_one_key_twice_in_a_call() -> None:
    cache = Cache.random(4)
    with manager() as tiers:
        handles = cache.put(tiers, keys=[KEYS[0], None, KEYS[0], KEYS[1]])
        assert handles[0] == handles[2] != handles[1]
        assert (tiers.stats().blocks, tiers.stats().references) == (3, 4)


@pytest.mark.parametrize("scheme", [Scheme.RAW, Scheme.INT4])
def test_equal_records_are_found_without_keys(scheme: Scheme) -> None:
    cache, other = Cache.random(3, seed=1), Cache.random(3, seed=2)
    with manager(replace(budgets(SMALL), share_equal=True), scheme=scheme) as tiers:
        handles = [cache.put(tiers), other.put(tiers), cache.put(tiers), cache.put(tiers, layer=1)]
        assert handles[0].tolist() == handles[2].tolist()
        assert tiers.stats().blocks == 9
        assert tiers.stats().shared_blocks == 3
        want = [through_reference(c, scheme, n) for c, n in ((cache, 0), (other, 0), (cache, 1))]
        for cache_want, those in zip(want, (handles[0], handles[1], handles[3]), strict=True):
            assert cache_want.get(tiers, those).same(cache_want)


def test_a_put_that_finds_no_room_takes_no_reference() -> None:
    cache = Cache.random(3)
    room = 4 * 8256 // 4096 * 4096
    with manager(budgets(SMALL, l3=room)) as tiers:
        first = cache.put(tiers, keys=KEYS[:3])
        before = held(tiers)
        with pytest.raises(PoolFull):
            Cache.random(5, seed=3).put(tiers, keys=[KEYS[0], KEYS[3], KEYS[1], KEYS[4], KEYS[5]])
        assert held(tiers) == before
        assert cache.get(tiers, first).same(cache)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.booleans())
def test_references_and_bytes_are_conserved(data: st.DataObject, equal: bool) -> None:
    caches = [Cache.random(3, seed=seed) for seed in range(3)]
    with manager(replace(budgets(SMALL, l1=2), share_equal=equal)) as tiers:
        live: list[tuple[Cache, np.ndarray]] = []
        for _ in range(data.draw(st.integers(1, 8))):
            if live and data.draw(st.booleans()):
                tiers.release(live.pop(data.draw(st.integers(0, len(live) - 1)))[1])
            else:
                which = data.draw(st.integers(0, 2))
                keys = [KEYS[which], None, None] if data.draw(st.booleans()) else None
                live.append((caches[which], caches[which].put(tiers, keys=keys)))
            _check(tiers, live)


def _check(tiers: TierManager, live: list[tuple[Cache, np.ndarray]]) -> None:
    conserved(tiers)
    stats = tiers.stats()
    assert stats.references == 3 * len(live)
    assert stats.blocks == len({handle for _, handles in live for handle in handles.tolist()})
    for cache, handles in live:
        assert cache.get(tiers, handles).same(cache)


def test_the_index_does_not_outgrow_what_is_held() -> None:
    cache = Cache.random(8)
    with manager() as tiers:
        for round_ in range(300):
            keys = [round_.to_bytes(16, "little") + bytes([i]) * 16 for i in range(8)]
            tiers.release(cache.put(tiers, keys=keys))
        assert tiers.stats().metadata_bytes < 400_000


def test_prefix_keys_say_what_the_tokens_before_say() -> None:
    tokens = np.arange(100)
    other = tokens.copy()
    other[50] = -1
    keys = PrefixKeys(b"model")
    one, two = keys.chain(tokens, [16, 48, 96]), keys.chain(other, [16, 48, 96])
    assert one[:2] == two[:2]
    assert one[2] != two[2]
    assert one == keys.chain(tokens.astype(np.uint16), [16, 48, 96])
    assert one[1:] == keys.chain(tokens, [48, 96])
    assert not set(one) & set(PrefixKeys(b"other").chain(tokens, [16, 48, 96]))
    layers = {PrefixKeys.of_layer(one[0], layer) for layer in range(3)}
    assert len(layers) == 3
