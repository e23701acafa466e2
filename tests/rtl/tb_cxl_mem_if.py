"""cxl_mem_if between a host and a memory: every request is answered once, with the right line, whatever fails."""

from __future__ import annotations

import random
from typing import Any

import cocotb

from tests.rtl.bench import Coverage, begin, report, rng, run_streams, setting
from tests.rtl.cxl_host import (
    LINE_MASK,
    MEM_INV,
    MEM_INV_NT,
    MEM_RD,
    MEM_RD_DATA,
    MEM_RD_FWD,
    MEM_SPEC_RD,
    MEM_WR,
    MEM_WR_FWD,
    MEM_WR_PTL,
    Host,
    Memory,
)

BASE, SIZE = 0x12_3456_0000_00, 1 << 20
DEADLINE = 512
BOUND = DEADLINE + DEADLINE // 2 + 16  # what the module promises, and its pipeline
INPUTS = (
    "clear_lost_i",
    "poison_on_decode_error_i",
    "m2s_req_valid_i",
    "m2s_rwd_valid_i",
    "s2m_ndr_credit_i",
    "s2m_drs_credit_i",
    "m_axi_rvalid_i",
    "m_axi_bvalid_i",
    "m_axi_arready_i",
    "m_axi_awready_i",
    "m_axi_wready_i",
    "m_axi_ruser_i",
    "m_axi_rresp_i",
)


async def start(dut: Any, **options: Any) -> tuple[Host, Memory, random.Random]:
    await begin(dut, INPUTS)
    dut.base_line_i.value, dut.size_lines_i.value = BASE >> 6, SIZE >> 6
    dut.m_axi_rlast_i.value = 1
    memory = Memory(dut, **{k: options.pop(k) for k in ("stall", "latency") if k in options})
    host = Host(dut, BASE, SIZE, **options)
    dut.poison_on_decode_error_i.value = host.decode_poison
    return host, memory, rng()


async def run(
    dut: Any, host: Host, memory: Memory, chance: random.Random, most: int, until: Any = None
) -> int:
    return await run_streams(
        dut, chance, [host, memory], until=until or (lambda: host.done), most_cycles=most
    )


async def idle(dut: Any, host: Host, memory: Memory, chance: random.Random, cycles: int) -> None:
    left = iter(range(cycles))
    await run(dut, host, memory, chance, cycles + 2, until=lambda: next(left, None) is None)


def write(
    chance: random.Random, address: int, poison: int = 0, partial: bool = False
) -> tuple[int, ...]:
    strobe = chance.getrandbits(64) if partial else 0
    return (MEM_WR_PTL if partial else MEM_WR, address, chance.getrandbits(512), strobe, poison)


def readable(host: Host, memory: Memory) -> None:
    """The memory holds what the host believes."""
    for address, want in host.model.items():
        assert memory.lines.get(address - BASE, (0, 0)) == want


@cocotb.test()
async def any_traffic(dut: Any) -> None:
    """Few lines, so that requests of one line meet; every opcode; addresses inside and outside; slow credits."""
    coverage = Coverage(
        req=[*range(16)],
        rwd=[*range(16)],
        conflict=["read-write", "write-read", "write-write"],
        where=["here", "below", "above"],
        poison=[0, 1],
        exhausted=[k for k in ("ndr", "drs") if setting(f"{k}_credit", 0.5) <= 0.5]
        + ["req", "rwd"],
    )
    host, memory, chance = await start(
        dut,
        stall=setting("memory_stall", 0.3),
        latency=(1, setting("latency", 12)),
        decode_poison=setting("decode_poison", 0),
        ndr_credit=setting("ndr_credit", 0.5),
        drs_credit=setting("drs_credit", 0.5),
        ndr_most=setting("answer_credits", 8),
        drs_most=setting("answer_credits", 8),
    )
    host.stall = setting("host_stall", 0.2)
    places = [BASE + 64 * i for i in range(6)] + [BASE + SIZE - 64]
    outside = [BASE - 64, BASE + SIZE, 0, (1 << 52) - 64]
    for _ in range(setting("requests", 3000)):
        address = chance.choice(outside) if chance.random() < 0.05 else chance.choice(places)
        opcode = (
            chance.choice([MEM_RD, MEM_RD_DATA]) if chance.random() < 0.8 else chance.randrange(16)
        )
        host.requests.append((opcode, address | chance.getrandbits(1) << 5))
        coverage.hit("req", opcode)
        coverage.hit(
            "where", "here" if host.here(address) else "below" if address < BASE else "above"
        )
        address = chance.choice(outside) if chance.random() < 0.05 else chance.choice(places)
        poison = int(chance.random() < 0.1)
        item = write(chance, address, poison, chance.random() < 0.5)
        if chance.random() < 0.1:
            item = (chance.randrange(16), *item[1:])
        coverage.hit("rwd", item[0])
        coverage.hit("poison", poison)
        host.writes.append(item)

    def until() -> bool:
        for kind in ("ndr", "drs"):
            if setting(f"{kind}_credit", 0.5) <= 0.5 and not host.given[kind] and host.open[kind]:
                coverage.hit("exhausted", kind)
        for kind, queue in (("req", host.requests), ("rwd", host.writes)):
            if queue and not host.credits[kind]:
                coverage.hit("exhausted", kind)
        return host.done

    requests = len(host.requests) + len(host.writes)
    cycles = await run(dut, host, memory, chance, 60 * requests, until)
    for pair in host.conflicts - {"read-read"}:
        coverage.hit("conflict", pair)
    readable(host, memory)
    assert not int(dut.lost_o.value)
    assert not int(dut.over_run_o.value)
    assert not int(dut.timed_out_o.value)
    await idle(dut, host, memory, chance, 40)
    assert host.credits == {"req": setting("req_credits", 16), "rwd": setting("rwd_credits", 16)}
    coverage.finish()
    report(random_requests=requests, random_cycles=cycles)


@cocotb.test()
async def one_request_a_cycle(dut: Any) -> None:
    host, memory, chance = await start(dut, latency=(1, 1), ndr_most=64, drs_most=64)
    await idle(dut, host, memory, chance, 70)
    count = 400
    host.requests.append((MEM_RD, BASE))
    await run(dut, host, memory, chance, 100)
    report(read_latency_cycles=host.latencies.pop())
    host.writes.append(write(chance, BASE))
    await run(dut, host, memory, chance, 100)
    report(write_latency_cycles=host.latencies.pop())
    host.requests.extend((MEM_RD, BASE + 64 * i) for i in range(count))
    read_cycles = await run(dut, host, memory, chance, 20 * count)
    host.writes.extend(write(chance, BASE + 64 * i) for i in range(count))
    write_cycles = await run(dut, host, memory, chance, 20 * count)
    host.requests.extend((MEM_RD, BASE + 64 * i) for i in range(count))
    host.writes.extend(write(chance, BASE + 64 * (count + i)) for i in range(count))
    both_cycles = await run(dut, host, memory, chance, 20 * count)
    report(
        reads_per_cycle=count / read_cycles,
        writes_per_cycle=count / write_cycles,
        both_per_cycle=2 * count / both_cycles,
    )


@cocotb.test()
async def either_kind_of_answer_goes_without_credits_of_the_other(dut: Any) -> None:
    for kept, goes in (("ndr", "drs"), ("drs", "ndr")):
        host, memory, chance = await start(dut, **{f"{kept}_credit": 0.0})
        host.requests.extend((MEM_RD, BASE + 64 * (i % 4)) for i in range(200))
        host.writes.extend(write(chance, BASE + 64 * (i % 4)) for i in range(200))
        queue = host.requests if goes == "drs" else host.writes
        await run(
            dut,
            host,
            memory,
            chance,
            4000,
            until=lambda h=host, q=queue, g=goes: not q and not h.open[g],
        )
        assert host.open[kept]
        setattr(host, f"{kept}_credit", 1.0)
        await run(dut, host, memory, chance, 4000)
        readable(host, memory)


@cocotb.test()
async def errors_of_memory_are_poison(dut: Any) -> None:
    host, memory, chance = await start(dut)
    host.writes.append(write(chance, BASE))
    host.writes.append(write(chance, BASE + 64, poison=1))
    await run(dut, host, memory, chance, 200)
    memory.bad_reads = {128}
    host.model[BASE + 128] = (0, 1)
    host.requests.extend((MEM_RD, BASE + 64 * i) for i in range(3))
    await run(dut, host, memory, chance, 200)
    assert sorted(poison for _, poison in host.answers["req"]) == [0, 1, 1]
    assert int(dut.poisoned_o.value) == 2
    # A write that fails may have left the old line: nothing is trusted until that is acknowledged.
    memory.bad_writes = {0}
    host.writes.append(write(chance, BASE))
    await run(dut, host, memory, chance, 200)
    assert int(dut.lost_o.value)
    host.expect_any = True
    host.answers["req"].clear()
    host.requests.append((MEM_RD, BASE + 192))
    await run(dut, host, memory, chance, 200)
    assert host.answers["req"] == [(0, 1)]
    dut.clear_lost_i.value = 1
    await idle(dut, host, memory, chance, 2)
    dut.clear_lost_i.value = 0
    assert not int(dut.lost_o.value)
    host.expect_any, memory.bad_writes = False, set()
    host.writes.append(write(chance, BASE))
    host.requests.extend([(MEM_RD, BASE + 192)] * 2)
    await run(dut, host, memory, chance, 200)


@cocotb.test()
async def a_memory_that_does_not_answer_gives_poison_in_time(dut: Any) -> None:
    for fault in ("deaf", "mute"):
        host, memory, chance = await start(dut, latency=(1, 3))
        setattr(memory, fault, True)
        host.expect_any = True
        for i in range(100):  # several times what the module holds
            host.requests.append((MEM_RD, BASE + 64 * (i % 5)))
            host.writes.append(write(chance, BASE + 64 * (i % 7)))
        await run(dut, host, memory, chance, 20 * BOUND)
        assert max(host.latencies) <= BOUND, f"{max(host.latencies)} cycles"
        assert host.answers["req"] == [(LINE_MASK, 1)] * 100
        assert int(dut.lost_o.value)
        assert int(dut.timed_out_o.value) == 200
        # Late answers arrive, belong to nobody, and what comes afterwards is right. The loss must be acknowledged,
        # which is refused while a late answer is missing.
        if fault == "mute":
            dut.clear_lost_i.value = 1
            await idle(dut, host, memory, chance, 3)
            dut.clear_lost_i.value = 0
            assert int(dut.lost_o.value)
        setattr(memory, fault, False)
        await idle(dut, host, memory, chance, 80)
        dut.clear_lost_i.value = 1
        await idle(dut, host, memory, chance, 2)
        dut.clear_lost_i.value = 0
        assert not int(dut.lost_o.value)
        host.expect_any = False
        host.model = {BASE + address: held for address, held in memory.lines.items()}
        for i in range(200):
            host.requests.append((MEM_RD, BASE + 64 * (i % 5)))
            host.writes.append(write(chance, BASE + 64 * (i % 7)))
        await run(dut, host, memory, chance, 20000)
        readable(host, memory)
        if fault == "mute":
            report(longest_answer_cycles=max(host.latencies), deadline_cycles=DEADLINE)


@cocotb.test()
async def what_is_outside_the_subset_is_completed_and_counted(dut: Any) -> None:
    host, memory, chance = await start(dut)
    await idle(dut, host, memory, chance, 20)
    for opcode in (MEM_RD_FWD, MEM_WR_FWD, 5, 15, MEM_INV, MEM_INV_NT, MEM_SPEC_RD, MEM_SPEC_RD):
        host.requests.append((opcode, BASE))
    for opcode in (0, 3, 15):
        host.writes.append((opcode, BASE, LINE_MASK, 0, 0))
    await run(dut, host, memory, chance, 200)
    assert host.answers["req"] == [None] * 6
    assert host.answers["rwd"] == [None] * 3
    assert int(dut.refused_o.value) == 7
    assert not memory.accepted
    assert not memory.lines
    await idle(dut, host, memory, chance, 20)
    assert host.credits["req"] == setting("req_credits", 16)


@cocotb.test()
async def a_message_without_a_credit_is_dropped_and_reported(dut: Any) -> None:
    host, memory, chance = await start(dut)
    memory.mute = True
    places = setting("req_credits", 16)
    host.requests.extend([(MEM_RD, BASE)] * (places + 4))
    await run(dut, host, memory, chance, 200, until=lambda: host.outstanding == places)
    await idle(dut, host, memory, chance, 5)
    assert host.credits["req"] == 0
    assert not int(dut.over_run_o.value)
    host.credits["req"] = 1
    await idle(dut, host, memory, chance, 2)
    assert int(dut.over_run_o.value)
    host.requests.clear()
    host.open["drs"].popitem()  # the one that was dropped
    memory.mute = False
    await run(dut, host, memory, chance, 200)
