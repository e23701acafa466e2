"""kv_compress: records and completions equal to the reference's in every byte, in order; how fast."""

from itertools import cycle, islice
from typing import Any

import cocotb

from speckv_pynq import spec
from speckv_pynq.spec import DType, Kind, Scheme
from tests.rtl.bench import Coverage, Receiver, Sender, begin, report, rng, run_streams, setting
from tests.rtl.compress_jobs import Job, random_jobs, real_jobs, refused_jobs, whole_real_jobs

GOALS = {
    "scheme": [s.name for s in Scheme if s <= Scheme.INT4],
    "dtype": [d.name for d in DType],
    "kinds": [k.name for k in (Kind.KEY, Kind.VALUE, Kind.BOTH)],
    "tokens": spec.BLOCK_TOKENS_ALLOWED,
    "head_dim": spec.HEAD_DIM_ALLOWED,
    "fallback": [False, True],
}


class TimedSender(Sender):
    """A sender that knows the cycle in which each item went."""

    def settle(self) -> None:
        super().settle()
        self.cycles = getattr(self, "cycles", [])
        self.cycle = getattr(self, "cycle", 0) + 1
        if self.taken:
            self.cycles.append(self.cycle)


async def run(dut: Any, jobs: list[Job], stall: float, pressure: float) -> dict[str, Any]:
    """Puts all jobs through and checks what comes out; returns when beats went in and records came out."""
    await begin(
        dut,
        ["descriptor_tvalid_i", "block_tvalid_i", "record_tready_i", "completion_tready_i"],
    )
    descriptors = Sender(
        dut.descriptor_tdata_i,
        dut.descriptor_tvalid_i,
        dut.descriptor_tready_o,
        [job.descriptor for job in jobs],
        stall=stall,
    )
    blocks = TimedSender(
        dut.block_tdata_i,
        dut.block_tvalid_i,
        dut.block_tready_o,
        [beat for job in jobs for beat in job.beats],
        stall=stall,
    )
    records = Receiver(
        (dut.record_tdata_o, dut.record_tlast_o),
        dut.record_tvalid_o,
        dut.record_tready_i,
        stall=pressure,
    )
    completions = Receiver(
        dut.completion_tdata_o, dut.completion_tvalid_o, dut.completion_tready_i, stall=pressure
    )
    slow = 1 / (1 - stall) / (1 - pressure)
    await run_streams(
        dut,
        rng(),
        [descriptors, blocks, records, completions],
        until=lambda: len(completions.items) == len(jobs),
        most_cycles=int(slow * (4 * len(blocks.items) + 200 * len(jobs)) + 2000),
    )
    at = 0
    for number, job in enumerate(jobs):
        got = records.items[at : at + len(job.record)]
        at += len(job.record)
        what = f"block {number} {job.tags}"
        assert [last for _, last in got] == [0] * (len(got) - 1) + [1] * bool(got), what
        for index, (beat, want) in enumerate(zip([b for b, _ in got], job.record, strict=True)):
            assert beat == want, (
                f"{what}: beat {index} of {len(got)}: {beat:0128x}, not {want:0128x}"
            )
        assert completions.items[number] == job.completion, (
            f"{what}: completion {completions.items[number]:032x}, not {job.completion:032x}"
        )
        if job.record:
            assert completions.cycles[number] >= records.cycles[at - 1], what
    assert at == len(records.items)
    return {"blocks": blocks, "records": records}


@cocotb.test()
async def jobs_of_all_kinds(dut: Any) -> None:
    chance = rng()
    schemes = tuple(Scheme[name] for name in setting("schemes", ["RAW", "INT8_DELTA_RLE", "INT4"]))
    most_bytes = setting("most_bytes", 8192)
    jobs = list(islice(real_jobs(chance, schemes), setting("real", 0)))
    jobs += islice(random_jobs(chance, schemes, most_bytes), setting("random", 0))
    jobs += refused_jobs(setting("max_block_bytes", 0)) if setting("refused", False) else []
    chance.shuffle(jobs)
    await run(dut, jobs, setting("stall", 0.0), setting("pressure", 0.0))
    coverage = Coverage(**GOALS)
    for job in jobs:
        for name, value in job.tags.items():
            if name in GOALS:
                coverage.hit(name, value)
    report(jobs=len(jobs), beats=sum(len(job.beats) for job in jobs))
    if setting("cover", False):
        coverage.finish()


@cocotb.test()
async def one_beat_a_cycle(dut: Any) -> None:
    """Equal real blocks behind one another: beats taken a cycle, and cycles from a first beat to its header."""
    scheme = Scheme[setting("scheme", "INT4")]
    wanted = setting("blocks", 12)
    jobs = list(islice(cycle(whole_real_jobs(scheme)), wanted))
    seen = await run(dut, jobs, 0.0, 0.0)
    size = len(jobs[0].beats)
    taken, out = seen["blocks"].cycles, seen["records"].cycles
    warm = wanted // 2 * size  # once the rings hold what they ever will
    steady = taken[warm:]
    heads = [sum(len(job.record) for job in jobs[:i]) for i in range(wanted)]
    report(
        scheme=scheme.name,
        block_beats=size,
        beats_per_cycle=len(steady) / (steady[-1] - steady[0] + 1),
        cycles_per_record=(out[heads[-1]] - out[heads[wanted // 2]]) / (wanted - 1 - wanted // 2),
        latency_cycles=out[0] - taken[0],
        latency_behind_block=out[0] - taken[size - 1],
    )


@cocotb.test()
async def reset_amid_a_block(dut: Any) -> None:
    """What reset cuts off leaves nothing behind."""
    chance = rng()
    jobs = list(islice(random_jobs(chance, (Scheme.INT4, Scheme.INT8_DELTA_RLE), 8192), 6))
    for cut in (3, 70, 150):
        await begin(dut, ["descriptor_tvalid_i", "block_tvalid_i", "record_tready_i"])
        streams = [
            Sender(
                dut.descriptor_tdata_i,
                dut.descriptor_tvalid_i,
                dut.descriptor_tready_o,
                [job.descriptor for job in jobs],
            ),
            Sender(
                dut.block_tdata_i,
                dut.block_tvalid_i,
                dut.block_tready_o,
                [beat for job in jobs for beat in job.beats],
            ),
        ]
        cycles = iter(range(cut))
        await run_streams(
            dut, chance, streams, until=lambda c=cycles: next(c, None) is None, most_cycles=cut + 1
        )
    await run(dut, jobs, 0.0, 0.0)
