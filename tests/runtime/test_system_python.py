"""CXLSpecKVSystem: what goes in by address comes out, forks and frees, leases, settings, statistics."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq import spec
from speckv_pynq.config import POLICIES
from speckv_pynq.errors import (
    ConfigError,
    Fenced,
    LeaseError,
    NotStored,
    PoolFull,
    RecordError,
    ShapeError,
)
from speckv_pynq.native.directory import Answer
from speckv_pynq.pool import FileStore
from speckv_pynq.system import CXLSpecKVSystem, Geometry, SystemConfig, prometheus

pytestmark = pytest.mark.requires("libspeckv")
GEOMETRY = Geometry(layers=3, kv_heads=2, head_dim=64)
TOKENS = 16
SMALL = {"l1_size_gb": 2**-16, "l2_size_gb": 2**-6, "l3_size_gb": 2**-8, "block_tokens": TOKENS}


def opened(scheme: str = "raw", **changes: object) -> CXLSpecKVSystem:
    return CXLSpecKVSystem(GEOMETRY, SystemConfig(scheme=scheme, **{**SMALL, **changes}))  # type: ignore[arg-type]


@pytest.fixture
def system() -> Iterator[CXLSpecKVSystem]:
    with opened() as system:
        yield system


def values(seed: int, blocks: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (blocks * TOKENS, 2, 64)
    k, v = (rng.standard_normal(shape).astype(np.float16) for _ in range(2))
    return k, v


def same(got: tuple[np.ndarray, np.ndarray], want: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(g.tobytes() == w.tobytes() for g, w in zip(got, want, strict=True))


def test_blocks_come_back_by_address(system: CXLSpecKVSystem) -> None:
    for layer in range(3):
        system.put(7, layer, 0, *values(layer, 4))
    for layer in range(3):
        k, v = values(layer, 4)
        assert same(system.get(7, layer, 0, 4 * TOKENS), (k, v))
        assert same(
            system.get(7, layer, TOKENS, TOKENS), (k[TOKENS : 2 * TOKENS], v[TOKENS : 2 * TOKENS])
        )
    assert system.stored(7, 0, 0, 5 * TOKENS).tolist() == [True] * 4 + [False]
    with pytest.raises(NotStored, match="request 7, layer 0: no block at position 64"):
        system.get(7, 0, 0, 5 * TOKENS)
    assert system.free(7) == 12
    stats = system.stats()
    assert (stats.tiers.blocks, stats.tiers.l3_bytes, stats.mapped_blocks) == (0, 0, 0)


def test_a_fork_keeps_what_it_saw(system: CXLSpecKVSystem) -> None:
    old, new = values(1, 2), values(2)
    system.put(1, 0, 0, *old)
    assert system.fork(1, 2) == 2
    assert system.stats().tiers.blocks == 2
    system.put(1, 0, 0, *new)
    assert same(system.get(2, 0, 0, 2 * TOKENS), old)
    assert same(system.get(1, 0, 0, TOKENS), new)
    system.free(1)
    assert same(system.get(2, 0, 0, 2 * TOKENS), old)
    with pytest.raises(ConfigError, match="request 2 has blocks already"):
        system.fork(2, 2)


def test_a_common_prompt_is_held_once() -> None:
    """64 conversations: the same 1,024 tokens, then their own."""
    with opened("int4", l3_size_gb=2**-4) as system:
        for conversation in range(64):
            for layer in range(3):
                system.put(conversation, layer, 0, *values(layer, 64))
                system.put(conversation, layer, 1024, *values(1000 + conversation, 1))
        stats = system.stats()
        assert stats.mapped_blocks == 64 * 3 * 65
        assert stats.tiers.blocks == 3 * 64 + 64 * 3
        assert stats.tiers.shared_blocks == 63 * 3 * 64
        for conversation in range(64):
            system.free(conversation)
        assert system.stats().tiers.l3_bytes == 0


OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3), st.integers(0, 2), st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("fork"), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("free"), st.integers(0, 3)),
    st.tuples(st.just("prefetch"), st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(OPERATIONS, max_size=25), st.sampled_from(POLICIES), st.booleans())
def test_it_does_what_a_dict_does(operations: list[tuple], policy: str, share: bool) -> None:
    want: dict[tuple[int, int, int], int] = {}
    with opened(policy=policy, share_equal=share) as system:
        for what, *rest in operations:
            if what == "put":
                req, layer, block, seed = rest
                system.put(req, layer, block * TOKENS, *values(seed))
                want[req, layer, block] = seed
            elif what == "fork":
                req, new = rest
                mine = [key for key in want if key[0] == new]
                if mine:
                    with pytest.raises(ConfigError):
                        system.fork(req, new)
                else:
                    system.fork(req, new)
                    want |= {(new, *key[1:]): s for key, s in want.items() if key[0] == req}
            elif what == "free":
                assert system.free(rest[0]) == sum(key[0] == rest[0] for key in want)
                want = {key: s for key, s in want.items() if key[0] != rest[0]}
            else:
                system.prefetch_step(rest[0], rest[1], rest[2] * TOKENS, depth_k=3)
            stats = system.stats()
            assert stats.mapped_blocks == stats.tiers.references == len(want)
            assert stats.tiers.l3_bytes - stats.tiers.l3_slack_bytes == stats.tiers.record_bytes
        for (req, layer, block), seed in want.items():
            assert same(system.get(req, layer, block * TOKENS, TOKENS), values(seed))


def test_prefetched_blocks_hit(system: CXLSpecKVSystem) -> None:
    for layer in range(3):
        system.put(1, layer, 0, *values(layer, 4))
    assert system.prefetch_step(1, 0, 4 * TOKENS) == 4
    system.tiers.wait_prefetched()
    system.get(1, 1, 0, 4 * TOKENS)
    tiers = system.stats().tiers
    assert tiers.hits_l2 == 4
    assert tiers.misses == 0


def test_prefetch_step_follows_the_layers_round_and_passes_over_what_is_there(
    system: CXLSpecKVSystem,
) -> None:
    for layer in range(3):
        system.put(1, layer, 0, *values(layer, 4))
    tiers = system.tiers

    def there(layer: int) -> list[bool]:
        handles = system._held(1, layer, np.arange(4))
        tiers.wait_prefetched()
        found = tiers.resident(handles).tolist()
        tiers.release(handles)
        return found

    assert system.prefetch_step(1, 2, 4 * TOKENS, [5, 9], depth_k=6) == 6  # wraps to layer 0
    assert (there(0), there(1), there(2)) == ([True] * 4, [True, True, False, False], [False] * 4)
    assert system.prefetch_step(1, 2, 4 * TOKENS, depth_k=3) == 3  # two of layer 1, one of 2
    assert (there(1), there(2)) == ([True] * 4, [True, False, False, False])
    positions = [3 * TOKENS + 1, 3 * TOKENS, 9 * TOKENS]  # block 3, again, and one not there yet
    assert system.prefetch_step(1, 1, 4 * TOKENS, depth_k=8, candidates=positions) == 1
    assert there(2) == [True, False, False, True]
    assert system.prefetch_step(1, 1, 4 * TOKENS, depth_k=0) == 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"layer": 3}, "layer 3"),
        ({"layer": -1}, "layer -1"),
        ({"cur_pos": -1}, "cur_pos -1"),
        ({"depth_k": -1}, "depth_k -1"),
        ({"recent_tokens": [4, -2]}, "token -2 is not within"),
        ({"recent_tokens": [1 << 31]}, "token 2147483648"),
        ({"recent_tokens": ["a"]}, "token 'a' is not an integer"),
    ],
)
def test_prefetch_step_refuses_what_is_out_of_range(
    system: CXLSpecKVSystem, change: dict, what: str
) -> None:
    call = {"layer": 0, "cur_pos": 0, "recent_tokens": [1], "depth_k": 1} | change
    with pytest.raises(ConfigError, match=what):
        system.prefetch_step(1, **call)


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        ({"position": 3}, ShapeError, "positions 3..18 are not whole blocks of 16"),
        ({"tokens": 8}, ShapeError, "not whole blocks"),
        ({"layer": 3}, ConfigError, "layer 3 is not one of"),
        ({"dtype": np.float32}, ShapeError, "float32"),
    ],
)
def test_bad_calls_change_nothing(
    system: CXLSpecKVSystem, change: dict, error: type, what: str
) -> None:
    call = {"position": 0, "tokens": TOKENS, "layer": 0, "dtype": np.float16} | change
    k, v = (x[: call["tokens"]].astype(call["dtype"]) for x in values(0))
    with pytest.raises(error, match=what):
        system.put(1, call["layer"], call["position"], k, v)
    assert system.stats().tiers.blocks == system.stats().mapped_blocks == 0


def test_a_full_pool_keeps_what_there_was() -> None:
    with opened(l3_size_gb=20 * 4096 / 2**30) as system:
        system.put(1, 0, 0, *values(1, 4))
        before = system.stats().tiers.record_bytes
        with pytest.raises(PoolFull):
            system.put(1, 0, 0, *values(2, 16))
        assert system.stats().tiers.record_bytes == before
        assert same(system.get(1, 0, 0, 4 * TOKENS), values(1, 4))


# ---- beyond the process


@pytest.mark.parametrize("scheme", ["raw", "int4"])
def test_a_request_comes_back_from_a_store_as_it_was(tmp_path, scheme: str) -> None:
    with opened(scheme) as system, FileStore(tmp_path / "store", 1 << 22) as store:
        for layer in range(3):
            system.put(5, layer, 0, *values(layer, 4))
        system.put(6, 0, 0, *values(9))
        want = [system.get(5, layer, 0, 4 * TOKENS) for layer in range(3)]
        assert system.save(5, store) == 12
        assert system.save(6, store) == 1
        records = system.stats().tiers.record_bytes_by_layer
    with opened(scheme) as system, FileStore(tmp_path / "store", 1 << 22) as store:
        assert system.restore(5, store) == 12
        assert all(same(system.get(5, layer, 0, 4 * TOKENS), want[layer]) for layer in range(3))
        with pytest.raises(ConfigError, match="request 5 has blocks already"):
            system.restore(5, store)
        assert system.restore(6, store) == 1
        assert system.stats().tiers.record_bytes_by_layer == records


def test_what_a_store_gives_wrongly_is_a_miss_or_an_error(tmp_path) -> None:
    with opened() as system, FileStore(tmp_path / "store", 1 << 22) as store:
        system.put(5, 0, 0, *values(0, 3))
        system.save(5, store)
        keys = sorted(store.keys())
        store.delete(keys[1])
        store.store(keys[2], store.load(keys[0]))  # of another position
        system.free(5)
        assert system.restore(5, store) == 2
        k, v = values(0, 3)
        assert same(system.get(5, 0, 0, TOKENS), (k[:TOKENS], v[:TOKENS]))
        assert system.stored(5, 0, 0, 3 * TOKENS).tolist() == [True, False, True]
        with pytest.raises(RecordError):
            system.get(5, 0, 2 * TOKENS, TOKENS)
        system.free(5)
        store.store(keys[1], b"short")
        with pytest.raises(RecordError, match="do not hold whole records"):
            system.restore(5, store)
        stats = system.stats()
        assert (stats.mapped_blocks, stats.tiers.blocks) == (0, 0)


# ---- leases


def test_a_silent_agent_is_fenced_before_its_block_changes() -> None:
    with opened(lease_s=0.05) as system:
        system.put(1, 0, 0, *values(1))
        started = time.monotonic()
        agent = system.leases.register()
        keys = system.leases.keys(1, 0, 0)
        assert agent.acquire(keys, write=False, now_ns=time.monotonic_ns()) == [Answer.GRANTED]
        system.put(1, 0, 0, *values(2))
        assert time.monotonic() - started > 0.04
        assert same(system.get(1, 0, 0, TOKENS), values(2))
        with pytest.raises(Fenced):
            agent.poll(now_ns=time.monotonic_ns())
        assert system.stats().fenced_agents == 1


def test_an_agent_that_answers_keeps_its_place() -> None:
    with opened(lease_s=5.0) as system:
        system.put(1, 0, 0, *values(1))
        agent = system.leases.register()
        keys = system.leases.keys(1, 0, 0)
        agent.acquire(keys, write=False, now_ns=time.monotonic_ns())
        changed = threading.Event()

        def change() -> None:
            system.put(1, 0, 0, *values(2))
            changed.set()

        thread = threading.Thread(target=change)
        thread.start()
        deadline = time.monotonic() + 4
        recalls: list = []
        while not recalls and time.monotonic() < deadline:
            assert not changed.is_set()
            recalls = agent.poll(now_ns=time.monotonic_ns())
        agent.acknowledge([recall.key for recall in recalls])
        thread.join(4)
        assert changed.is_set()
        assert system.stats().fenced_agents == 0
        assert agent.poll(now_ns=time.monotonic_ns()) == []


def test_an_agent_that_never_yields_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that polls but keeps its lease is fenced at the recall's deadline, so the wait always ends."""
    with opened(lease_s=0.05) as system:
        system.put(1, 0, 0, *values(1))
        keys = system.leases.keys(1, 0, 0)
        monkeypatch.setattr(system.leases.directory, "expire", lambda now_ns: frozenset())
        agent = system.leases.register()
        agent.acquire(keys, write=True, now_ns=time.monotonic_ns())
        with pytest.raises(LeaseError, match="1 of 1 blocks are still leased"):
            system.free(1)
        assert same(system.get(1, 0, 0, TOKENS), values(1))


# ---- settings


def test_settings_from_file_and_environment(tmp_path) -> None:
    path = tmp_path / "speckv.toml"
    path.write_text('[speckv]\nl1_size_gb = 2\nscheme = "raw"\nshare_equal = false\n')
    variables = {"SPECKV_CONFIG": str(path), "SPECKV_L1_SIZE_GB": "0.5", "SPECKV_LIBRARY": "x"}
    config = SystemConfig.load(environment=variables)
    assert (config.l1_size_gb, config.scheme, config.share_equal) == (0.5, "raw", False)
    assert (config.l2_size_gb, config.l3_size_gb, config.prefetch_depth) == (3, 128, 4)
    assert config.tiers.l1_bytes == 1 << 29
    assert SystemConfig.load(environment={}) == SystemConfig()


@pytest.mark.parametrize(
    ("text", "variables", "what"),
    [
        ("[speckv]\nl9 = 1\n", {}, "speckv.l9 is not one of l1_size_gb"),
        ("[speckv\n", {}, "speckv.toml"),
        ("speckv = 3\n", {}, "speckv is not a table"),
        ("[speckv]\nl1_size_gb = -1\n", {}, "l1_size_gb -1 is not within"),
        ('[speckv]\nscheme = "best"\n', {}, "scheme 'best' is not one of"),
        ("", {"SPECKV_PREFETCH_DEPTH": "many"}, "SPECKV_PREFETCH_DEPTH='many' is not an int"),
        ("", {"SPECKV_SHARE_EQUAL": "perhaps"}, "SPECKV_SHARE_EQUAL='perhaps' is not a bool"),
        ("", {"SPECKV_L3_POOL": "tape:1"}, "pool 'tape:1'"),
        ("", {"SPECKV_LEASE_S": "nan"}, "lease_s nan is not finite"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text: str, variables: dict, what: str) -> None:
    path = tmp_path / "speckv.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what):
        SystemConfig.load(path, variables)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_as_a_file_is_settings_or_a_typed_error(tmp_path_factory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8", newline="")
    with contextlib.suppress(ConfigError):  # anything else that is raised fails the test
        SystemConfig.load(path, {})


# ---- statistics


def test_prometheus_text_says_what_the_object_says(system: CXLSpecKVSystem) -> None:
    system.put(1, 0, 0, *values(1, 3))
    system.get(1, 0, 0, 2 * TOKENS)
    stats = system.stats()
    lines = prometheus(stats).splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert samples["speckv_blocks"] == "3"
    assert samples['speckv_tier_bytes{tier="l3"}'] == str(stats.tiers.l3_bytes)
    assert samples['speckv_lookups_total{tier="l3"}'] == "2"
    for name in {sample.partition("{")[0] for sample in samples}:
        assert f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}" in lines
    assert stats.tiers.record_bytes >= spec.LINE_BYTES
