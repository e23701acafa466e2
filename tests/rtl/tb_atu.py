"""atu: translations equal to the reference's walk, four cycles for a hit, and nothing old after it was forgotten."""

from __future__ import annotations

from typing import Any

import cocotb

from speckv_pynq.address import pack_address
from speckv_pynq.reference.page_table import key_hash
from speckv_pynq.spec import Invalidate, Translation
from tests.rtl.atu_bench import MASK, Bench, Lookup
from tests.rtl.bench import report, rng, setting

WAYS = setting("ways", 4)
SETS = 256 // WAYS


def address(*fields: int) -> int:
    high, low = pack_address(*fields)
    return high << 64 | low


def keys_of(count: int, chance: Any) -> list[int]:
    """Blocks of a few requests."""
    keys: set[int] = set()
    while len(keys) < count:
        fields = chance.randrange(4), chance.randrange(30), chance.randrange(0, 8, 4)
        keys.add(address(*fields, 32 * chance.randrange(1000), 0))
    return sorted(keys)


def inside(key: int, chance: Any) -> int:
    """An address of the block."""
    return key | chance.getrandbits(89) & ~MASK


@cocotb.test()
async def hits(dut: Any) -> None:
    """Every hit takes four cycles, and one starts every cycle."""
    bench = Bench(dut, chance := rng(), 9)
    await bench.start()
    keys = keys_of(100, chance)
    for key in keys:
        bench.map(key)
    await bench.look(*keys)
    while True:  # those that still fit beside the others
        before = int(dut.misses_o.value)
        await bench.look(*keys)
        if int(dut.misses_o.value) == before:
            break
        keys = keys[: len(keys) * 3 // 4]
    bench.done.clear()
    before = int(dut.hits_o.value)
    addresses = [inside(chance.choice(keys), chance) for _ in range(1000)]
    await bench.look(*addresses)
    assert [lookup.address for lookup, _, _ in bench.done] == addresses
    latencies = {cycle - lookup.taken for lookup, cycle, _ in bench.done}
    cycles = bench.done[-1][1] - bench.done[0][1] + 1
    assert int(dut.hits_o.value) == before + 1000
    assert len(latencies) == 1
    report(latency_cycles=latencies.pop(), beats_per_cycle=1000 / cycles)


@cocotb.test()
async def hits_pass_misses(dut: Any) -> None:
    """Hits go on, as fast, while half of the walks wait for slow memory; a key is walked for once."""
    bench = Bench(dut, chance := rng(), 9)
    await bench.start()
    warm, *cold = keys_of(9, chance)
    for key in (warm, *cold):
        bench.map(key)
    await bench.look(warm)
    reads = bench.memory.reads
    bench.memory.latency = (400, 400)
    bench.done.clear()
    # Of eight slots, one is kept for each lookup in the pipeline, which may miss.
    bench.queue = [Lookup(key) for key in cold[:4]] + [
        Lookup(inside(warm, chance)) for _ in range(300)
    ]
    await bench.until(lambda: len(bench.done) == 300)
    assert len(bench.memory.waiting) == 4
    assert all(lookup.address & MASK == warm for lookup, _, _ in bench.done)
    assert {cycle - lookup.taken for lookup, cycle, _ in bench.done} == {4}
    bench.queue = [Lookup(inside(key, chance)) for key in cold[:4]]  # these wait for the same walks
    await bench.until(lambda: not bench.queue and bench.offered is None)
    assert len(bench.memory.waiting) == 4
    await bench.finish()
    assert bench.memory.reads - reads == sum(probes(bench, key) for key in cold[:4])
    bench.forget(Invalidate.EVERYTHING)
    await bench.finish()
    await bench.look(*cold)
    report(walks_at_once=bench.memory.most)


def probes(bench: Bench, key: int) -> int:
    """Entries that a walk for the key reads."""
    return list(bench.table.places(key)).index(bench.table.place_of(key)) + 1


@cocotb.test()
async def the_least_recently_used_goes(dut: Any) -> None:
    bench = Bench(dut, rng(), 11)
    await bench.start()
    groups: dict[int, list[int]] = {}
    for position in range(4000):
        key = address(1, 0, 0, 32 * position, 0)
        groups.setdefault(key_hash(key) % SETS, []).append(key)
    group = max(groups.values(), key=len)[: WAYS + 1]
    for key in group:
        bench.map(key)
    await bench.look(*group[:WAYS])  # in this order: the walks of one at a time
    for key in group[:WAYS]:
        await bench.look(key)
    await bench.look(group[0])
    misses = int(dut.misses_o.value)
    await bench.look(group[WAYS])  # makes room for itself
    await bench.look(group[0])
    assert int(dut.misses_o.value) == misses + 1
    await bench.look(*group[:WAYS])
    assert int(dut.misses_o.value) == misses + 2  # one other had gone


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    """Lookups while entries change and are forgotten, with faults of every kind but a silent memory."""
    chance = rng()
    bench = Bench(dut, chance, 10)
    await bench.start()
    bench.stall, bench.pressure = setting("stall", 0.1), setting("pressure", 0.1)
    bench.memory.stall = setting("pressure", 0.1)
    keys = keys_of(700, chance)
    hot = chance.sample(keys, 40)
    for key in keys[:500]:
        bench.map(key)
    for key in chance.sample(keys[:500], 20):
        bench.map(key, kinds=0)
    broken = [p for k in chance.sample(keys, 5) if (p := bench.table.place_of(k)) is not None]
    bench.memory.errors.update(broken)
    bench.answers = {key: [bench.now(key)] for key in keys}
    changes = 0
    lookups = setting("lookups", 2500)
    while len(bench.done) < lookups:
        if len(bench.queue) < 4:
            kind = keys if chance.random() < 0.4 else hot
            bench.queue += [Lookup(inside(chance.choice(kind), chance))] * chance.choice(
                (1, 1, 1, 4)
            )
            bench.queue[-1] = Lookup(bench.queue[-1].address)
            bench.queue = [Lookup(q.address) for q in bench.queue]
        if bench.forgetting is None and chance.random() < 0.02:
            key = chance.choice(hot)
            if chance.random() < 0.3 and bench.table.place_of(key) is not None:
                bench.table.unmap(key)
                bench.note(key)
            else:
                bench.map(key)
            changes += 1
            # The host may go on with further keys before it forgets them; what was read meanwhile is allowed.
            roll = chance.random()
            if roll < 0.7:
                bench.forget(Invalidate.KEY, inside(key, chance))
            elif roll < 0.9:
                bench.forget(Invalidate.REQUEST, inside(key, chance))
            else:
                bench.forget(Invalidate.EVERYTHING)
        await bench.step()
    await bench.finish()
    for kind in Invalidate:  # with nothing under way
        bench.forget(kind, keys[0])
        await bench.finish()
    hits, misses = int(dut.hits_o.value), int(dut.misses_o.value)
    assert hits + misses == len(bench.done)
    faults = sum(n for status, n in bench.counts.items() if status != Translation.OK)
    assert int(dut.faults_o.value) == faults == bench.faults
    bench.coverage.hit("answer", "WALK_TIMEOUT")  # its own test
    bench.coverage.finish()
    report(lookups=len(bench.done), hits=hits, misses=misses, changes=changes)


@cocotb.test()
async def silent_memory(dut: Any) -> None:
    """Each walk ends in time; hits go on; once memory answers, all is as before."""
    bench = Bench(dut, chance := rng(), 9)
    await bench.start(timeout := 200)
    keys = keys_of(40, chance)
    for key in keys:
        bench.map(key)
        del bench.answers[key][0]
    await bench.look(keys[0])
    for stuck in ("answers", "requests"):
        bench.memory.answers = stuck != "answers"
        bench.memory.stall = 1.0 if stuck == "requests" else 0.0
        bench.late = True
        bench.done.clear()
        bench.queue = [Lookup(k) for k in keys[1:31]] + [Lookup(keys[0])] * 1
        await bench.until(lambda: len(bench.done) == 31, 2000)
        timeouts = [(lk, c) for lk, c, s in bench.done if s == Translation.WALK_TIMEOUT]
        assert len(timeouts) == 30, stuck
        assert max(cycle - lookup.taken for lookup, cycle in timeouts) < timeout + 100
        bench.memory.answers, bench.memory.stall = True, 0.0
        for _ in range(200):
            await bench.step()
        bench.late = False
        await bench.look(keys[1])
        bench.forget(Invalidate.EVERYTHING)
        await bench.finish()
        await bench.look(*keys)
        assert int(dut.fault_status_o.value) == Translation.WALK_TIMEOUT
        bench.forget(Invalidate.EVERYTHING)
        await bench.finish()
        await bench.look(keys[0])
    report(timeouts=int(dut.faults_o.value))
