"""prefetch_core beside a model of what is in L2: what it asks for, in what order, and what it never does."""

from __future__ import annotations

import random
from typing import Any

import cocotb

from tests.rtl.bench import Coverage, begin, report, rng, run_streams, setting
from tests.rtl.prefetch_world import (
    CANCELLED,
    NO_PREDICTION,
    NO_ROOM,
    OK,
    PUSHED_OUT,
    TOKENS,
    Hint,
    World,
    key_of,
    request_of,
)

PATIENCE, PREDICTOR = 256, 512
INPUTS = (
    "hint_valid_i",
    "cancel_i",
    "result_ready_i",
    "predict_ready_i",
    "candidate_valid_i",
    "lookup_ready_i",
    "translation_valid_i",
    "descriptor_ready_i",
    "moved_valid_i",
    "slot_valid_i",
    "returned_ready_i",
    "filled_ready_i",
    "note_valid_i",
)


async def start(dut: Any, **options: Any) -> tuple[World, random.Random]:
    await begin(dut, INPUTS)
    world = World(dut, **options)
    world.configure()
    world.slots.extend(range(1000))
    return world, rng()


async def run(
    dut: Any, world: World, chance: random.Random, until: Any = None, most: int = 20000
) -> int:
    return await run_streams(
        dut, chance, [world], until=until or (lambda: world.settled), most_cycles=most
    )


async def idle(dut: Any, world: World, chance: random.Random, cycles: int) -> None:
    end = world.cycle + cycles
    await run(dut, world, chance, until=lambda: world.cycle >= end)


def any_hint(chance: random.Random, requests: int, blocks: int, layers: int) -> Hint:
    return Hint(
        req_id=chance.randrange(requests),
        layer=chance.randrange(layers),
        position=chance.randrange(TOKENS * (blocks + 1)),
        depth=chance.choice([0, 1, 2, 3, 5, 8, 100]),
        dense=chance.randrange(2),
        owner=chance.randrange(3),
        priority=chance.randrange(4),
    )


def predictions(seed: int, blocks: int) -> Any:
    """Up to eight positions, some of them in one block, some beyond the sequence."""

    def positions(req_id: int, position: int) -> list[int]:
        chance = random.Random(f"{seed} {req_id} {position}")
        return [chance.randrange(TOKENS * (blocks + 1)) for _ in range(chance.randrange(9))]

    return positions


@cocotb.test()
async def one_hint_after_the_other_asks_for_what_the_definition_says(dut: Any) -> None:
    """With a filter that forgets nothing exactly that; with a small one also what it forgot, never less."""
    exact = setting("exact", True)
    coverage = Coverage(
        dense=[0, 1],
        issued=["none", "some", "depth"],
        hole=[0, 1],
        resident=[0, 1],
        used=[0, 1],
        failed=[0, 1],
    )
    world, chance = await start(dut, stall=setting("stall", 0.2), walk_cycles=(1, 30), fail=0.1)
    world.positions = predictions(1, 9)
    for req_id in range(4):
        world.map(req_id, 9, chance, holes=0.2)
    total, again = 0, 0
    for _ in range(setting("hints", 150)):
        hint = any_hint(chance, 4, 9, world.layers)
        before, up = len(world.issued), world.up()
        world.hints.append(hint)
        await run(
            dut,
            world,
            chance,
            until=lambda: not world.hints and len(world.results) == len(world.sent),
        )
        status, issued = world.results[len(world.sent) - 1]
        await run(dut, world, chance, until=lambda n=before + issued: len(world.issued) >= n)
        keys = [key for _, key, _ in world.issued[before:]]
        wanted = world.wanted(hint)
        new = [key for key in wanted if key not in up]
        assert status == OK
        assert len(keys) == issued == len(set(keys))
        if exact:
            assert set(keys) == set(new[: hint.depth])
        else:
            assert set(keys) <= set(wanted)
            # Nothing that was not there has been passed over: all before the last one asked for are asked for too.
            last = max((wanted.index(key) for key in keys), default=-1)
            reach = wanted if issued < hint.depth else wanted[: last + 1]
            assert set(reach) - up <= set(keys)
        again += len(set(keys) & up)
        total += issued
        coverage.hit("dense", hint.dense)
        coverage.hit(
            "issued", "none" if not issued else "depth" if issued == hint.depth else "some"
        )
        coverage.hit("hole", int(len(wanted) < world.layers * (hint.position // TOKENS)))
        coverage.hit("resident", int(bool(set(wanted) & up)))
        failed = len(world.returned)
        if chance.random() < 0.3:
            await run(dut, world, chance)
        for slot in chance.sample(sorted(world.held), chance.randrange(len(world.held) // 3 + 1)):
            used = chance.randrange(2)
            coverage.hit("used", used)
            world.evict(slot, used)
        await run(dut, world, chance, until=lambda: not world.notes)
        await idle(dut, world, chance, 40)
        coverage.hit("failed", int(len(world.returned) > failed))
    await run(dut, world, chance)
    assert int(dut.issued_o.value) == total
    assert int(dut.failed_o.value) == len(world.returned)
    assert int(dut.useful_o.value) == coverage.seen["used", "1"]
    assert int(dut.wasted_o.value) == coverage.seen["used", "0"]
    assert exact or again
    if exact:
        assert again == 0
    report(issued=total, fetched_again=again)
    coverage.finish()


@cocotb.test()
async def a_storm_of_hints_loses_none_and_no_slot(dut: Any) -> None:
    """Hints, cancellations, evictions, failures and depths at random: every hint has one result within bounds."""
    coverage = Coverage(
        status=[OK, PUSHED_OUT, CANCELLED, NO_ROOM], depth=range(6), filled=[0, 1], full=[1]
    )
    world, chance = await start(
        dut, stall=setting("stall", 0.3), walk_cycles=(1, 60), move_cycles=(5, 200), fail=0.1
    )
    world.slots.clear()
    world.slots.extend(range(12))
    world.configure(most_moving_i=6)
    world.positions = predictions(2, 9)
    for req_id in range(5):
        world.map(req_id, 9, chance, holes=0.1)

    hints = setting("hints", 400)

    def storm() -> bool:
        """Bursts of hints, and times in which nothing leaves L2."""
        rate = 0.5 if world.cycle // 200 % 10 == 0 else 0.02
        if (
            len(world.sent) + len(world.hints) < hints
            and len(world.hints) < 3
            and chance.random() < rate
        ):
            world.hints.append(any_hint(chance, 5, 9, world.layers))
        if chance.random() < 0.002:
            world.cancels.append(chance.randrange(5))
        if chance.random() < 0.01:
            depth = chance.randrange(6)
            coverage.hit("depth", depth)
            world.dut.prefetch_depth_i.value = depth
        if (
            world.held
            and chance.random() < 0.05
            and (world.cycle // 800 % 4 or len(world.sent) == hints)
        ):
            world.evict(chance.choice(sorted(world.held)), chance.randrange(2))
        coverage.hit("filled", int(bool(world.held)))
        if world.offered.get("hint") and not world.dut.hint_ready_o.value:
            coverage.hit("full", 1)
        for slot in world.taken:
            assert slot not in world.slots
            assert slot not in world.held
        return len(world.sent) == hints and world.settled

    cycles = await run(dut, world, chance, until=storm, most=400 * hints)
    for status, _ in world.results.values():
        coverage.hit("status", status)
    # Bound: of all hints before it in the queue, each with its patience, and its look-ups.
    waits = [world.result_at[tag] - at for tag, at in enumerate(world.sent_at)]
    assert max(waits) < 9 * (PREDICTOR + 20 * PATIENCE)
    assert world.most_moving <= 6
    # All slots are somewhere: free, held, or the one on offer inside.
    assert sorted([*world.slots, *world.held]) == list(range(12))
    assert int(dut.asked_o.value) == len(world.sent)
    counts = [sum(s == status for s, _ in world.results.values()) for status in range(5)]
    assert int(dut.dropped_o.value) == counts[PUSHED_OUT]
    assert int(dut.cancelled_o.value) == counts[CANCELLED]
    assert int(dut.issued_o.value) == len(world.issued) == sum(n for _, n in world.results.values())
    report(storm_cycles=cycles, longest_wait_cycles=max(waits))
    coverage.finish()


@cocotb.test()
async def the_newest_hints_win_and_the_highest_priority_goes_first(dut: Any) -> None:
    world, chance = await start(dut)
    world.predictor_deaf = True  # the first hint holds the walk for a while
    world.map(0, 4, chance)
    world.hints.append(Hint(0, 0, 128, 1, dense=0, owner=9))
    await run(dut, world, chance, until=lambda: len(world.sent) == 1)
    await idle(dut, world, chance, 3)
    dut.prefetch_depth_i.value = 2
    for i in range(4):  # of one owner: two stay
        world.hints.append(Hint(0, i, 128, 1, owner=1, priority=i % 2))
    for i in range(2):
        world.hints.append(Hint(0, i, 128, 1, owner=2, priority=3))
    await run(dut, world, chance, until=lambda: len(world.sent) == 7)
    await idle(dut, world, chance, 5)
    assert {tag: status for tag, (status, _) in world.results.items()} == {
        1: PUSHED_OUT,
        2: PUSHED_OUT,
    }
    dut.prefetch_depth_i.value = 1
    await idle(dut, world, chance, 6)
    assert list(world.results) == [1, 2, 3, 5]
    assert int(dut.dropped_o.value) == 4
    await run(dut, world, chance)
    assert list(world.results)[4:] == [0, 6, 4]
    assert world.results[0][0] == NO_PREDICTION
    dut.prefetch_depth_i.value = 0  # prefetch is off
    world.hints.append(Hint(0, 0, 128, 1))
    await run(dut, world, chance)
    assert world.results[7] == (PUSHED_OUT, 0)


@cocotb.test()
async def a_cancelled_request_gets_no_descriptor_and_no_slot(dut: Any) -> None:
    for after_cycles in (*range(1, 40), *range(40, 120, 7)):
        world, chance = await start(dut, walk_cycles=(20, 20), move_cycles=(50, 50))
        world.configure(most_moving_i=3)
        world.map(7, 5, chance)
        world.map(8, 5, chance)
        world.positions = lambda req_id, position: [40, 70]
        await idle(dut, world, chance, 270)  # the filter has been cleared
        world.hints.extend(
            [Hint(7, 0, 160, 5, dense=after_cycles % 2), Hint(7, 1, 160, 6), Hint(8, 2, 160, 2)]
        )
        end = world.cycle + after_cycles
        await run(dut, world, chance, until=lambda w=world, e=end: w.cycle >= e)
        kept = len([key for key in world.held.values() if request_of(key) == 7])
        sent = len(world.sent)
        world.cancels.append(7)
        issued = len(world.issued)
        await run(dut, world, chance)
        for tag in range(sent):
            if world.sent[tag].req_id == 7 and world.result_at[tag] > end + 3:
                assert world.results[tag][0] == CANCELLED
        late = [
            key for at, key, _ in world.issued[issued:] if request_of(key) == 7 and at > end + 4
        ]
        assert sent < 2 or not late
        if sent >= 2:
            assert len([key for key in world.held.values() if request_of(key) == 7]) <= kept + 2
        await idle(dut, world, chance, 30)
        assert len(world.slots) + len(world.held) == 1000


@cocotb.test()
async def what_is_missing_ends_a_hint_in_time(dut: Any) -> None:
    world, chance = await start(dut, walk_cycles=(20, 20))
    world.map(0, 6, chance)
    world.map(1, 6, chance, heads=64)  # too large for half a slot
    world.positions = lambda req_id, position: [0, 33, 1, 64]
    # No prediction: an answer that comes later does no harm to the next hint.
    world.predictor_mute = True
    world.hints.append(Hint(0, 0, 192, 3, dense=0))
    waited = await run(dut, world, chance)
    assert world.results[0] == (NO_PREDICTION, 0)
    assert waited < PREDICTOR + 20
    world.predictor_mute = False
    world.positions = lambda req_id, position: [160]
    world.hints.append(Hint(0, 0, 192, 1, dense=0))
    await run(dut, world, chance)
    assert [key for _, key, _ in world.issued] == [key_of(0, 1, 5)]
    # No slots: given up, and asked for again by the next hint.
    world.slots.extend(range(2000, 2100))
    world.no_slots = True
    world.offered["slot"] = False
    world.hints.append(Hint(0, 0, 192, 20))
    waited = await run(dut, world, chance)
    assert world.results[2] == (NO_ROOM, 0)
    assert waited < 2 * PATIENCE + 200
    world.no_slots = False
    world.hints.append(Hint(0, 0, 192, 20))
    await run(dut, world, chance)
    assert world.results[3] == (OK, 20)
    # Nothing is mapped, or what is does not fit: no slot is used.
    faults = int(dut.faults_o.value)
    world.hints.extend([Hint(5, 0, 192, 5), Hint(1, 0, 192, 5)])
    await run(dut, world, chance)
    assert [world.results[tag] for tag in (4, 5)] == [(OK, 0)] * 2
    assert int(dut.faults_o.value) - faults == 2 * 6 * world.layers


@cocotb.test()
async def lines_stay_within_the_budget(dut: Any) -> None:
    world, chance = await start(dut, walk_cycles=(2, 2), move_cycles=(5, 5))
    rate, burst = 2560, 3000  # ten lines a cycle
    world.configure(rate_i=rate, burst_lines_i=burst)
    await idle(dut, world, chance, 20)
    world.map(0, 12, chance)
    begun = world.cycle
    world.hints.append(Hint(0, 0, 12 * TOKENS, 48))
    await run(dut, world, chance)
    assert world.results[0] == (OK, 48)
    spent, largest = 0, 1000
    for cycle, key, _ in world.issued:
        assert spent <= burst + (cycle - begun) * rate / 256 + largest
        spent += world.pages[key]["record_bytes"] // 64
    used = world.lines - burst - largest
    assert world.issued[-1][0] - begun >= used * 256 / rate


@cocotb.test()
async def latency_and_rate(dut: Any) -> None:
    world, chance = await start(dut, walk_cycles=(4, 4), move_cycles=(20, 20))
    world.map(0, 40, chance)
    await idle(dut, world, chance, 300)  # the filter is cleared after reset
    world.hints.append(Hint(0, 0, 40 * TOKENS, 1))
    await run(dut, world, chance)
    latency = world.issued[0][0] - world.sent_at[0]
    count = len(world.issued)
    world.hints.append(Hint(0, 0, 40 * TOKENS, 100))
    await run(dut, world, chance)
    cycles = [at for at, _, _ in world.issued[count:]]
    report(
        latency_cycles=latency, descriptors_per_cycle=(len(cycles) - 1) / (cycles[-1] - cycles[0])
    )
