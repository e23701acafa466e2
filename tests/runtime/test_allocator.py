"""SpeckvAllocator and CxlSpeckvKVAllocator: errors, leases, waits, prefetch, damage, life of arrays."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import numpy as np
import pytest

from speckv_pynq.address import pack_address
from speckv_pynq.allocator import (
    OVERWRITE,
    WRITE,
    AllocatorConfig,
    CxlSpeckvKVAllocator,
    SpeckvAllocator,
)
from speckv_pynq.device import library
from speckv_pynq.errors import (
    ConfigError,
    LeaseTimeout,
    NotWritten,
    PoolFull,
    RecordError,
    StaleHandle,
)
from speckv_pynq.spec import DType, Scheme, Status
from tests.runtime.system import (
    BLOCK,
    FRAME,
    RECORD,
    TOKENS,
    block_of,
    pool_of,
    records_in,
    small,
)

pytestmark = pytest.mark.requires("libspeckv")


def write(system: SpeckvAllocator, request: int, block: int, seed: int) -> None:
    with system.access(request, 0, 0, block * TOKENS, 0, OVERWRITE) as view:
        view.array.view(np.uint16)[:] = block_of(seed)


def read(system: SpeckvAllocator, request: int, block: int) -> np.ndarray:
    with system.access(request, 0, 0, block * TOKENS) as view:
        return view.array.view(np.uint16).copy()


def filled(blocks: int, **settings: Any) -> SpeckvAllocator:
    """A system with request 0, whose block i is block_of(i)."""
    system = small(**settings)
    system.alloc(0, blocks * TOKENS)
    for block in range(blocks):
        write(system, 0, block, block)
    return system


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "layers 0, limit 65536"),
        ({"kv_heads": 257}, "kv_heads 257, limit 256"),
        ({"head_dim": 72}, "head_dim 72"),
        ({"block_tokens": 8}, "block_tokens 8"),
        ({"kv_heads": 256, "head_dim": 256}, "bytes of a block 4194304, limit 1048576"),
        ({"l1_bytes": BLOCK - 1}, f"l1_bytes {BLOCK - 1}, limit {BLOCK}"),
        ({"l3_bytes": 1 << 46}, "l3_bytes"),
        ({"scheme": Scheme.KLT}, "not supported.*scheme klt 3"),
        ({"scheme": Scheme.INT4, "dtype": DType.FP32}, "dtype 2, limit 1"),
        ({"threads": 65}, "threads 65, limit 64"),
        ({"threads": -1}, "threads -1 is not within"),
        ({"policy": "mru"}, "policy 'mru'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_limit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**settings)


def test_wrong_addresses_are_named(rng: np.random.Generator) -> None:
    system = filled(1)
    for field, value in (("layer", 2), ("head", 1), ("pos", 1 << 32), ("req_id", -1), ("kind", 2)):
        with pytest.raises(ConfigError, match=f"{field} {value}"):
            system.access(**{"req_id": 0, "layer": 0, "head": 0, "pos": 0, "kind": 0, field: value})
    with pytest.raises(NotWritten, match=f"position {TOKENS}, limit {TOKENS}"):
        system.access(0, 0, 0, TOKENS, 0, WRITE)
    with pytest.raises(NotWritten, match="nothing was written"):
        system.access(0, 1, 0, 0)
    with pytest.raises(ConfigError, match="mode 3"):
        system.access(0, 0, 0, 0, 0, 3)
    assert system.stats().leases == 0


def test_fp32_blocks_come_back_exactly() -> None:
    config = AllocatorConfig(
        1, 1, 64, block_tokens=16, dtype=DType.FP32, scheme=Scheme.LOSSLESS, l1_bytes=8192,
        l2_bytes=0, l3_bytes=1 << 20, threads=0,
    )  # fmt: skip
    rng = np.random.default_rng(2)
    with SpeckvAllocator(config, lib_path=library.find()) as system:
        system.alloc(9, 64)
        blocks = rng.normal(size=(4, 2, 16, 1, 64)).astype(np.float32)
        for i, block in enumerate(blocks):
            with system.access(9, 0, 0, 16 * i, mode=WRITE) as view:
                view.array[:] = block
        for i, block in enumerate(blocks):
            with system.access(9, 0, 0, 16 * i) as view:
                assert view.array.dtype == np.float32
                assert view.array.tobytes() == block.tobytes()
        assert system.stats().misses == 4


def test_arrays_for_reading_are_read_only() -> None:
    system = filled(1)
    with system.access(0, 0, 0, 0) as view, pytest.raises(ValueError, match="read-only"):
        view.entry[0] = 1


def test_a_lease_that_ran_out_gives_way_and_its_owner_is_told() -> None:
    system = filled(1, lease_timeout_ms=30, wait_timeout_ms=5000)
    writer = system.access(0, 0, 0, 0, 0, WRITE)
    start = time.monotonic()
    assert read(system, 0, 0).tobytes() == block_of(0).tobytes()
    assert 0.02 < time.monotonic() - start < 4
    with pytest.raises(StaleHandle):
        system.release(writer)
    stats = system.stats()
    assert (stats.expired_leases, stats.leases) == (1, 0)


def test_a_slot_whose_lease_ran_out_is_taken() -> None:
    system = filled(2, l1_bytes=BLOCK, lease_timeout_ms=30, wait_timeout_ms=5000)
    view = system.access(0, 0, 0, 0)
    assert read(system, 0, 1).tobytes() == block_of(1).tobytes()
    with pytest.raises(StaleHandle):
        system.release(view)


def test_a_wait_ends_with_the_release_or_with_its_deadline() -> None:
    system = filled(1, wait_timeout_ms=150)
    held = system.access(0, 0, 0, 0, 0, WRITE)
    start = time.monotonic()
    with pytest.raises(LeaseTimeout, match="wait_timeout_ms 150"):
        system.access(0, 0, 0, 0)
    assert 0.14 < time.monotonic() - start < 2
    timer = threading.Timer(0.03, system.release, [held])
    timer.start()
    system.release(system.access(0, 0, 0, 0, 0, WRITE))
    timer.join()


def test_prefetched_blocks_are_hits_of_l2() -> None:
    system = filled(12, threads=1, l2_bytes=4 * BLOCK)
    before = system.stats()
    system.prefetch(0, 0, 3, 4)
    deadline = time.monotonic() + 10
    while system.stats().prefetched < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert system.stats().held_bytes[1] == 4 * BLOCK
    for block in range(4):
        assert read(system, 0, block).tobytes() == block_of(block).tobytes()
    after = system.stats()
    assert (after.hits_l2, after.misses) == (before.hits_l2 + 4, before.misses)
    assert after.held_bytes[1] == 0


def test_with_no_thread_or_no_l2_prefetches_are_dropped() -> None:
    for settings in ({"threads": 0}, {"threads": 1, "l2_bytes": 0}):
        system = filled(4, **settings)
        system.prefetch(0, 0, 0, 3)
        assert system.stats().prefetch_dropped == 3


def test_dense_policy_keeps_blocks_that_a_scan_would_drive_out() -> None:
    hits = {}
    for policy in ("lru", "dense"):
        system = filled(6, policy=policy, l1_bytes=4 * BLOCK)
        start = system.stats().hits_l1
        for _ in range(5):
            for block in range(6):
                assert read(system, 0, block).tobytes() == block_of(block).tobytes()
        hits[policy] = system.stats().hits_l1 - start
    assert hits["lru"] == 0
    assert hits["dense"] >= 5 * 3


def test_a_full_l3_keeps_dirty_blocks_and_says_so() -> None:
    system = small(l1_bytes=2 * BLOCK, l3_bytes=2 * FRAME)  # one record
    system.alloc(0, 8 * TOKENS)
    for block in range(3):
        write(system, 0, block, block)
    with pytest.raises(PoolFull, match=f"bytes of a record {RECORD}, limit {2 * FRAME}"):
        write(system, 0, 3, 3)
    stats = system.stats()
    assert (stats.dirty_blocks, stats.used_bytes[2], stats.blocks) == (2, RECORD, 3)
    for block in (1, 2):
        assert read(system, 0, block).tobytes() == block_of(block).tobytes()
    with pytest.raises(PoolFull):
        read(system, 0, 0)
    system.fork(0, 1)
    system.free(0)
    assert system.stats().blocks == 3


def test_every_damaged_record_is_an_error_until_it_is_overwritten(rng: np.random.Generator) -> None:
    system = filled(12, scheme=Scheme.INT4)
    pool, wrong = pool_of(system), 0
    for _ in range(300):  # tests/bench/test_faults.py has a hundred thousand
        block = int(rng.integers(8))  # the others hold L1
        ((start, size),) = records_in(pool, 0, block)
        at, bit = start + int(rng.integers(size)), 1 << int(rng.integers(8))
        pool[at] ^= bit
        with pytest.raises(RecordError) as caught:
            read(system, 0, block)
        assert caught.value.status in set(Status) - {Status.OK}
        with pytest.raises(RecordError):
            system.access(0, 0, 0, block * TOKENS, 0, WRITE)
        pool[at] ^= bit
        wrong += 2
    assert system.stats().bad_records == wrong
    ((start, _),) = records_in(pool, 0, 5)
    pool[start + 70] ^= 1
    write(system, 0, 5, 99)
    assert read(system, 0, 5).tobytes() == block_of(99).tobytes()


def test_a_record_of_another_block_is_refused() -> None:
    system = filled(8)
    pool = pool_of(system)
    (first, size), (second, _) = records_in(pool, 0, 0)[0], records_in(pool, 0, 1)[0]
    pool[second : second + size] = pool[first : first + size]
    with pytest.raises(RecordError):
        read(system, 0, 1)


def test_a_coded_block_is_not_coded_again_unless_written() -> None:
    system = filled(6, scheme=Scheme.INT4, l1_bytes=BLOCK)
    once = [read(system, 0, block).tobytes() for block in range(6)]
    start = system.stats().write_backs
    system.fork(0, 1)
    for _ in range(3):
        for request in (0, 1):
            assert [read(system, request, block).tobytes() for block in range(6)] == once
    assert system.stats().write_backs == start


def test_a_batch_gives_all_views_or_none() -> None:
    system = filled(3)
    addresses = np.array(
        [pack_address(0, 0, 0, block * TOKENS, 1) for block in range(3)], np.uint64
    )
    views = system.access_batch(addresses)
    for block, view in enumerate(views):
        assert view.entry.tobytes() == block_of(block)[1, 0, 0].tobytes()
        system.release(view)
    with pytest.raises(NotWritten):
        system.access_batch([*addresses.tolist(), pack_address(0, 1, 0, 0, 0)])
    assert system.stats().leases == 0
    with pytest.raises(ConfigError, match=r"\(n, 2\)"):
        system.access_batch(addresses[:, :1])


def test_a_cursor_walks_hits_and_misses_with_one_lease() -> None:
    system = filled(8)
    with system.cursor() as cursor:
        for turn in range(3):
            for pos in range(8 * TOKENS):
                entry = cursor.read(*pack_address(0, 0, 0, pos, turn % 2))
                block, token = divmod(pos, TOKENS)
                assert entry.tobytes() == block_of(block)[turn % 2, token, 0].tobytes()
                assert system.stats().leases == 1
        with pytest.raises(NotWritten):
            cursor.read(*pack_address(0, 1, 0, 0, 0))
        assert cursor.read(*pack_address(0, 0, 0, 0, 0)).tobytes() == block_of(0)[0, 0, 0].tobytes()
    assert system.stats().leases == 0


def test_arrays_outlive_the_system_that_made_them() -> None:
    system = filled(1)
    array = system.access(0, 0, 0, 0).array
    system.close()
    del system
    gc.collect()
    assert array.tobytes() == block_of(0).tobytes()


def test_a_closed_system_answers_with_an_error() -> None:
    system = filled(1)
    system.close()
    for call in (lambda: system.alloc(1, 1), lambda: system.access(0, 0, 0, 0), system.stats):
        with pytest.raises(ConfigError, match="pointer"):
            call()


def test_threads_of_python_share_a_system() -> None:
    system = filled(6, threads=1, wait_timeout_ms=10_000)
    errors: list[BaseException] = []

    def work(mine: int) -> None:
        try:
            for turn in range(60):
                system.fork(0, mine)
                write(system, mine, turn % 6, mine)
                assert read(system, mine, turn % 6).tobytes() == block_of(mine).tobytes()
                other = (turn + 1) % 6
                assert read(system, mine, other).tobytes() == block_of(other).tobytes()
                system.free(mine)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(100 + i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert system.stats().blocks == 6


class TestEngine:
    """What a serving engine calls."""

    def start(self) -> CxlSpeckvKVAllocator:
        config = small().config
        return CxlSpeckvKVAllocator(library.find(), config=config)

    def test_pointers_stay_until_they_are_released(self) -> None:
        engine = self.start()
        first, second = engine.allocate(num_tokens=20), engine.allocate(num_tokens=3)
        assert first != second
        pointer = engine.get_kv_ptr(first, 1, 17, write=True)
        with pytest.raises(LeaseTimeout):
            engine.get_kv_ptr(first, 1, 17)
        engine.release_ptrs(first)
        assert engine.get_kv_ptr(first, 1, 17) == pointer
        assert engine.get_kv_ptr(first, 1, 17, kind=1) == pointer + BLOCK // 2
        engine.free(first)
        assert engine.memory.stats().blocks == 0
        engine.close()

    def test_prefetch_step_asks_for_what_is_read_next(self) -> None:
        engine = self.start()
        memory, layers = engine.memory, engine.memory.config.layers
        request = engine.allocate(num_tokens=10 * TOKENS, req_id=7)

        def asked(*args: Any, **named: Any) -> int:
            before = memory.stats().prefetch_dropped  # there is no thread, so all are
            engine.prefetch_step(request, *args, **named)
            return memory.stats().prefetch_dropped - before

        assert asked(0, 3 * TOKENS, [1, 2, 3], depth_k=2) == 2
        assert asked(0, 3 * TOKENS, depth_k=1000) == 3 * layers  # round once
        assert (
            asked(0, 3 * TOKENS, depth_k=1000, candidates=[TOKENS, TOKENS + 1, 50 * TOKENS])
            == layers
        )
        assert asked(0, 0, depth_k=5) == asked(0, 3 * TOKENS, depth_k=0) == 0
        assert asked(0, 9 * TOKENS) == 4
        memory.set_prefetch_depth(7)
        assert asked(0, 9 * TOKENS) == 7
        with pytest.raises(NotWritten):
            engine.prefetch_step(8, 0, TOKENS)
        for bad in ({"depth_k": -1}, {"recent_tokens": [-1]}, {"layer": layers}):
            with pytest.raises(ConfigError):
                engine.prefetch_step(**({"req_id": 7, "layer": 0, "cur_pos": TOKENS} | bad))
        engine.close()
