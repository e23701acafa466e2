"""entropy_decoder: symbols, seeds and verdicts of many records in turn, equal to the reference's."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import FallingEdge, ReadOnly

from speckv_pynq import spec
from speckv_pynq.codebook import Tables
from speckv_pynq.codebook.image import shared_sections
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import rans
from tests.rtl.bench import Coverage, begin, report, rng, setting
from tests.rtl.entropy_payloads import (
    Payload,
    damaged,
    klt_payloads,
    random_payload,
    tables_of,
    unfinished,
)

BEAT = spec.LINE_BYTES
LANES = spec.ENTROPY_LANES
MAP_COMPONENTS = 256 * BEAT
INPUTS = [
    *("table_valid_i", "job_valid_i", "payload_tvalid_i", "symbols_tready_i", "result_ready_i"),
    *("table_map_i", "table_address_i", "table_data_i", "payload_tdata_i", "payload_tdest_i"),
    *("job_context_i", "job_components_i", "job_tokens_i", "job_words_i", "job_classes_i"),
]


@dataclass
class Job:
    """A payload, what the reference makes of it, and how far the bench is with it."""

    payload: Payload
    tables: Tables
    at: int = 0  # where its classes begin in the map
    symbols: list[int] = field(default_factory=list)  # of a round, as the stream carries them
    halves: list[bool] = field(default_factory=list)
    verdict: tuple[int, int, int] = (0, 0, 0)
    seeds: bytes = b""
    beats: deque[int] = field(default_factory=deque)
    rounds: int = 0  # seen

    def __post_init__(self) -> None:
        p = self.payload
        beats = 2 + -(-2 * p.words // BEAT)
        data = p.stream.ljust(beats * BEAT, b"\xa5")
        self.beats.extend(
            int.from_bytes(data[i : i + BEAT], "little") for i in range(0, beats * BEAT, BEAT)
        )
        try:
            decoder = rans.Decoder(p.stream, p.words)
            each = np.repeat(p.classes, p.tokens)
            for part in rans.rounds(len(each)):
                lanes = slice(0, part.stop - part.start)
                ids = each[part]
                symbol = self.tables.symbol_at[ids, decoder.slots(lanes)].astype(np.int64)
                decoder.take(
                    lanes, self.tables.frequency[ids, symbol], self.tables.start[ids, symbol]
                )
                self.symbols.append(sum(int(s) << 5 * i for i, s in enumerate(symbol)))
                self.halves.append(len(symbol) < LANES)
            self.seeds = decoder.finish()
        except RecordError as error:
            self.verdict = (error.status, error.value, error.limit)


async def load_tables(dut: Any, tables: Tables, classes: npt.NDArray[np.uint8]) -> None:
    """As they lie in a codebook's image."""
    codes = list(shared_sections(tables))[3].astype("<u2").tobytes()
    for is_map, data in ((0, codes), (1, classes.tobytes())):
        dut.table_map_i.value = is_map
        dut.table_valid_i.value = 1
        for address in range(-(-len(data) // BEAT)):
            beat = data[address * BEAT : (address + 1) * BEAT].ljust(BEAT, b"\0")
            dut.table_address_i.value = address
            dut.table_data_i.value = int.from_bytes(beat, "little")
            await FallingEdge(dut.clk_i)
    dut.table_valid_i.value = 0


class Bench:
    """Starts jobs in free contexts, feeds them in turn, checks what comes out."""

    def __init__(self, dut: Any, jobs: list[Job], at_once: int, coverage: Coverage) -> None:
        self.dut, self.coverage, self.total = dut, coverage, len(jobs)
        self.waiting, self.at_once = deque(jobs), at_once
        self.running: dict[int, Job] = {}
        self.contexts = len(dut.free_o)
        self.done = 0
        self.round_cycles: dict[int, list[int]] = {}  # of each context
        self.started: dict[int, int] = {}
        self.first_after: list[int] = []

    async def run(self, chance: random.Random, stalls: dict[str, float], most: int) -> int:
        dut = self.dut
        offered_job: int | None = None
        offered_beat: int | None = None
        for cycle in range(most):
            if self.done == self.total:
                return cycle
            if offered_job is None and self.waiting and len(self.running) < self.at_once:
                free = [c for c in range(self.contexts) if c not in self.running]
                offered_job = chance.choice(free)
                job = self.waiting[0]
                dut.job_context_i.value = offered_job
                dut.job_components_i.value = len(job.payload.classes)
                dut.job_tokens_i.value = job.payload.tokens
                dut.job_words_i.value = job.payload.words
                dut.job_classes_i.value = job.at // 32
            dut.job_valid_i.value = offered_job is not None
            if offered_beat is None and chance.random() >= stalls.get("payload", 0.0):
                open_ = [c for c, job in self.running.items() if job.beats]
                if open_ and stalls.get("polite", 1.0):
                    open_ = [c for c in open_ if self.room >> c & 1]
                if open_:
                    offered_beat = chance.choice(open_)
                    dut.payload_tdest_i.value = offered_beat
                    dut.payload_tdata_i.value = self.running[offered_beat].beats[0]
            dut.payload_tvalid_i.value = offered_beat is not None
            symbols_ready = chance.random() >= stalls.get("symbols", 0.0)
            result_ready = chance.random() >= stalls.get("result", 0.0)
            dut.symbols_tready_i.value = symbols_ready
            dut.result_ready_i.value = result_ready
            await ReadOnly()
            job_taken = offered_job is not None and bool(dut.job_ready_o.value)
            beat_taken = offered_beat is not None and bool(dut.payload_tready_o.value)
            self.room = int(dut.room_o.value)
            if beat_taken and offered_beat is not None:
                self.room &= ~(1 << offered_beat)  # until it is seen again
            if symbols_ready and dut.symbols_tvalid_o.value:
                self.take_symbols(cycle)
            if result_ready and dut.result_valid_o.value:
                self.take_result()
            await FallingEdge(dut.clk_i)
            if job_taken and offered_job is not None:
                self.running[offered_job] = self.waiting.popleft()
                self.started[offered_job] = cycle
                offered_job = None
            if beat_taken and offered_beat is not None:
                self.running[offered_beat].beats.popleft()
                offered_beat = None
        raise AssertionError(f"{self.done} of {self.total} records after {most} cycles")

    room = 0

    def take_symbols(self, cycle: int) -> None:
        dut = self.dut
        context = int(dut.symbols_tdest_o.value)
        job = self.running[context]
        n = job.rounds
        assert n < len(job.symbols), f"context {context}: {n} rounds and more"
        half = bool(dut.symbols_half_o.value)
        got = int(dut.symbols_tdata_o.value)
        assert half == job.halves[n]
        if half:
            got &= (1 << 80) - 1
        assert got == job.symbols[n], f"context {context}, round {n}: {got:x} {job.symbols[n]:x}"
        assert bool(dut.symbols_tlast_o.value) == (n + 1 == len(job.symbols))
        if n == 0:
            self.first_after.append(cycle - self.started[context])
        job.rounds += 1
        self.round_cycles.setdefault(context, []).append(cycle)
        self.coverage.hit("round", "half" if half else "whole")

    def take_result(self) -> None:
        dut = self.dut
        context = int(dut.result_context_o.value)
        job = self.running.pop(context)
        verdict = tuple(
            int(getattr(dut, f"result_{name}_o").value) for name in ("status", "value", "limit")
        )
        assert verdict == job.verdict, f"{job.payload.what}: {verdict}, should be {job.verdict}"
        assert not job.beats
        assert job.rounds == len(job.symbols), f"{job.payload.what}: {job.rounds} rounds"
        if not job.verdict[0]:
            assert int(dut.result_seeds_o.value).to_bytes(BEAT, "little") == job.seeds
        self.done += 1
        self.coverage.hit("tokens", job.payload.tokens)
        limit = job.verdict[2]
        kind = "fine"
        if job.verdict[0]:
            kind = "state" if limit == rans.LOW else "end" if limit == 2 * rans.LOW - 1 else "words"
        self.coverage.hit("verdict", kind)


def placed(payloads: list[Payload], tables: Tables) -> tuple[list[Job], npt.NDArray[np.uint8]]:
    """Jobs whose classes lie one behind the other in the map, each from a multiple of 32 on."""
    classes = np.zeros(MAP_COMPONENTS, np.uint8)
    jobs, at = [], 0
    known: dict[bytes, int] = {}
    for payload in payloads:
        key = payload.classes.tobytes()
        if key not in known:
            assert at + len(payload.classes) <= len(classes), "the class map is full"
            known[key] = at
            classes[at : at + len(payload.classes)] = payload.classes
            at += -(-len(payload.classes) // 32) * 32
        jobs.append(Job(payload, tables, known[key]))
    return jobs, classes[:at]


def coverage() -> Coverage:
    return Coverage(
        tokens=spec.BLOCK_TOKENS_ALLOWED,
        verdict=("fine", "state", "words", "end"),
        round=("half", "whole"),
    )


@cocotb.test()
async def records_in_turn(dut: Any) -> None:
    """Real klt payloads, random symbols of random tables, damaged ones; random stalls of every side."""
    chance = rng()
    await begin(dut, INPUTS)
    seen, cycles, records, rounds = coverage(), 0, 0, 0
    for batch in range(setting("batches", 4)):
        numbers = np.random.default_rng([cocotb.RANDOM_SEED, batch])
        if batch % 2:
            tables = tables_of(numbers, int(numbers.integers(1, spec.CODEBOOK_CLASSES + 1)))
            payloads = [random_payload(numbers, tables) for _ in range(setting("records", 12))]
        else:
            tables, payloads = klt_payloads(batch, setting("records", 12))
        payloads += [
            damaged(numbers, payloads[int(numbers.integers(len(payloads)))])
            for _ in range(len(payloads))
        ]
        payloads.append(unfinished(numbers, tables))
        chance.shuffle(payloads)
        jobs, classes = placed(payloads, tables)
        await load_tables(dut, tables, classes)
        stalls = {
            name: chance.choice((0.0, 0.0, 0.3, 0.9))
            for name in ("payload", "symbols", "result", "polite")
        }
        bench = Bench(dut, jobs, chance.choice((1, 3, 13, len(dut.free_o))), seen)
        cycles += await bench.run(chance, stalls, 400_000)
        records += len(jobs)
        rounds += sum(map(len, bench.round_cycles.values()))
    report(cycles=cycles, records=records, rounds=rounds)
    seen.finish()


@cocotb.test()
async def rate(dut: Any) -> None:
    """Symbols a cycle with 1 .. all contexts at work, nothing stalled; cycles from a job to its first symbols."""
    chance = rng()
    await begin(dut, INPUTS)
    numbers = np.random.default_rng(7)
    tables = tables_of(numbers, 16)
    rates, latency = {}, 0
    for count in setting("counts", (1, 4, 8, 13, 16)):
        payloads = [
            random_payload(numbers, tables, components=setting("components", 150), tokens=32)
            for _ in range(count)
        ]
        jobs, classes = placed(payloads, tables)
        await load_tables(dut, tables, classes)
        bench = Bench(dut, jobs, count, coverage())
        await bench.run(chance, {}, 100_000)
        begins = max(cycles[0] for cycles in bench.round_cycles.values())
        ends = min(cycles[-1] for cycles in bench.round_cycles.values())
        seen = sum(begins <= c < ends for cycles in bench.round_cycles.values() for c in cycles)
        rates[str(count)] = round(
            LANES * seen / (ends - begins), 2
        )  # while all of them are at work
        if count == 1:
            latency = bench.first_after[0]
    report(symbols_per_cycle=rates, latency_cycles=latency)
