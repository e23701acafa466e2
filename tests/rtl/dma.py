"""What benches of the DMA engine share: a codec made of the reference, jobs, and what memory must hold after one."""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speckv_pynq import spec
from speckv_pynq.errors import RecordError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.reference.record import BITS
from speckv_pynq.spec import DType, Kind, Move, Scheme, Status
from tests.blocks import identity
from tests.rtl.axi import AxiMemory
from tests.rtl.beats import LINE, LOW_WORD, completion_of
from tests.rtl.bench import Receiver, Sender, run_streams

Verdict = tuple[int, int, int, int, int]  # a completion's fields


def info_of(row: np.void) -> BlockInfo:
    """The block that a descriptor is about."""
    values: dict[str, Any] = {name: int(row[name]) for name in BlockInfo.__dataclass_fields__}
    return BlockInfo(**values | {"dtype": DType(values["dtype"]), "kinds": Kind(values["kinds"])})


def split(data: bytes, info: BlockInfo) -> list[np.ndarray | None]:
    """K and V, bit patterns (tokens, heads, head_dim), of a block's bytes."""
    kinds = info.kind_list
    parts = np.frombuffer(data, BITS[info.dtype]).reshape(len(kinds), *info.shape)
    return [parts[kinds.index(kind)] if kind in kinds else None for kind in (Kind.KEY, Kind.VALUE)]


@functools.lru_cache(maxsize=4096)
def code(compress: bool, descriptor: bytes, data: bytes) -> tuple[bytes, Verdict]:
    """What a codec makes of a descriptor that passes its checks and of its source's bytes."""
    row = np.frombuffer(descriptor, spec.DESCRIPTOR)[0]
    info = info_of(row)
    if compress:
        k, v = split(data, info)
        record = encode_record(k, v, Scheme(row["scheme"]), **identity(info))
        header = np.frombuffer(record[:LINE], spec.RECORD_HEADER)[0]
        return record, (0, int(header["flags"]), len(record), 0, 0)
    try:
        arrays = decode_record(data, info)
    except RecordError as error:
        return b"", (int(error.status or 0), 0, 0, error.value & LOW_WORD, error.limit & LOW_WORD)
    header = np.frombuffer(data[:LINE], spec.RECORD_HEADER)[0]
    size = LINE + -(-int(header["payload_bytes"]) // LINE) * LINE
    block = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays if a is not None)
    return block, (0, int(header["flags"]), size, 0, 0)


class StandIn:
    """A codec at the engine's ports: takes a descriptor and its beats whole, then gives beats and a completion."""

    def __init__(self, dut: Any, stall: float = 0.0) -> None:
        self.stall = stall
        self.compress = dut.compress_o
        self.ports = {
            name: (getattr(dut, f"{name}_tdata_{way}"), getattr(dut, f"{name}_tvalid_{way}"))
            for name, way in (
                ("descriptor", "o"),
                ("source", "o"),
                ("target", "i"),
                ("completion", "i"),
            )
        }
        self.readies = {
            name: getattr(dut, f"{name}_tready_{way}")
            for name, way in (
                ("descriptor", "i"),
                ("source", "i"),
                ("target", "o"),
                ("completion", "o"),
            )
        }
        self.source_last, self.target_last = dut.source_tlast_o, dut.target_tlast_i
        self.open: list[bytes] = []  # descriptors whose beats are not all there
        self.beats: list[bytes] = []
        self.out: deque[tuple[str, int, bool]] = deque()
        self.results = 0  # of which beats or completions are in `out`
        self.offered: tuple[str, int, bool] | None = None
        self.driven: dict[str, int] = {}  # handles are written when a value changes

    def _set(self, name: str, handle: Any, value: int) -> None:
        if self.driven.get(name) != value:
            self.driven[name] = value
            handle.value = value

    def drive(self, chance: random.Random) -> None:
        stall = self.stall
        self.descriptor_ready = len(self.open) < 2 and chance.random() >= stall
        # A block is taken in while the one before is given out, no more.
        self.source_ready = bool(self.open) and self.results < 2 and chance.random() >= stall
        self._set("descriptor", self.readies["descriptor"], self.descriptor_ready)
        self._set("source", self.readies["source"], self.source_ready)
        if self.offered is None and self.out and chance.random() >= stall:
            self.offered = self.out.popleft()
            port, value, last = self.offered
            self.ports[port][0].value = value
            if port == "target":
                self._set("last", self.target_last, last)
        offered = self.offered[0] if self.offered else ""
        for name in ("target", "completion"):
            self._set(name, self.ports[name][1], offered == name)

    def settle(self) -> None:
        if self.descriptor_ready and self.ports["descriptor"][1].value:
            self.open.append(int(self.ports["descriptor"][0].value).to_bytes(LINE, "little"))
        if self.source_ready and self.ports["source"][1].value:
            self.beats.append(int(self.ports["source"][0].value).to_bytes(LINE, "little"))
            if self.source_last.value:
                self._code(bool(self.compress.value))
        if self.offered and self.readies[self.offered[0]].value:
            self.results -= self.offered[0] == "completion"
            self.offered = None

    def advance(self) -> None:
        pass

    def _code(self, compress: bool) -> None:
        data, verdict = code(compress, self.open.pop(0), b"".join(self.beats))
        self.beats = []
        self.results += 1
        for at in range(0, len(data), LINE):
            beat = int.from_bytes(data[at : at + LINE], "little")
            self.out.append(("target", beat, at + LINE == len(data)))
        self.out.append(("completion", completion_of(*verdict), True))


@dataclass
class Bench:
    """The engine, its memory and its codec, ready to run jobs."""

    dut: Any
    chance: random.Random
    memory: AxiMemory
    ends: list[Any]
    jobs: Sender = field(init=False)
    done: Receiver = field(init=False)
    next_byte: int = 0

    def __post_init__(self) -> None:
        dut = self.dut
        self.jobs = Sender(dut.job_tdata_i, dut.job_tvalid_i, dut.job_tready_o, [])
        self.done = Receiver(dut.done_tdata_o, dut.done_tvalid_o, dut.done_tready_i)

    def place(self, nbytes: int) -> int:
        """Address of a new region, a line or more behind the one before."""
        at = self.next_byte + LINE * self.chance.randrange(1, 5)
        self.next_byte = at + -(-nbytes // LINE) * LINE
        assert self.next_byte <= len(self.memory.data), "the bench's memory is full"
        return self.memory.base + at

    def put(self, address: int, data: bytes) -> None:
        at = address - self.memory.base
        self.memory.data[at : at + len(data)] = data

    def get(self, address: int, nbytes: int) -> bytes:
        at = address - self.memory.base
        return bytes(self.memory.data[at : at + nbytes])

    async def run(self, job: np.ndarray, most_cycles: int = 100_000) -> np.void:
        """Runs one spec.DMA_JOB and returns its spec.DMA_DONE."""
        wanted = len(self.done.items) + 1
        assert isinstance(self.jobs.items, list)
        self.jobs.items.append(int.from_bytes(job.tobytes(), "little"))
        await run_streams(
            self.dut,
            self.chance,
            [self.memory, self.jobs, self.done, *self.ends],
            until=lambda: len(self.done.items) == wanted,
            most_cycles=most_cycles,
        )
        assert self.memory.idle, "a run was reported before memory had answered everything"
        data = int(self.done.items[-1]).to_bytes(spec.DMA_DONE.itemsize, "little")
        return np.frombuffer(data, spec.DMA_DONE)[0]

    def job(self, move: Move, table: np.ndarray, **fields: int) -> np.ndarray:
        """A job for a table, which is written to memory, as is room for its completions."""
        job = np.zeros(1, spec.DMA_JOB)
        job["move"], job["count"], job["tag"] = move, len(table), self.chance.getrandbits(64)
        job["table_address"] = self.place(table.nbytes)
        self.put(int(job["table_address"][0]), table.tobytes())
        job["results_address"] = self.place(len(table) * spec.COMPLETION.itemsize)
        for name, value in fields.items():
            job[name] = value
        return job


def apply(
    bench: Bench, job: np.ndarray, refused: dict[int, Verdict], *, upto: int | None = None
) -> tuple[bytearray, list[Verdict]]:
    """Memory after a job, and its completions; `refused`: descriptors that a check or the bus stops.

    Reads memory as it is now: call it before the job runs.
    """
    memory, base = bytearray(bench.memory.data), bench.memory.base
    fields = {name: int(job[name][0]) for name in spec.DMA_JOB.names or ()}
    verdicts = []
    for i in range(fields["count"] if upto is None else upto):
        at = fields["table_address"] - base + i * LINE
        row = np.frombuffer(bytes(memory[at : at + LINE]), spec.DESCRIPTOR)[0].copy()
        verdict = refused.get(i) or _move(memory, base, fields, row)
        verdicts.append(verdict)
        if fields["results_address"]:
            size = spec.COMPLETION.itemsize
            at = fields["results_address"] - base + i * size
            memory[at : at + size] = completion_of(*verdict).to_bytes(size, "little")
    return memory, verdicts


def _move(memory: bytearray, base: int, job: dict[str, int], row: np.void) -> Verdict:
    """Runs a descriptor that passes its checks on `memory`."""
    record = job["records"] - base + int(row["record_offset"])
    capacity = int(row["record_capacity"])
    places = [job["blocks"] - base + int(row[name]) for name in ("key_offset", "value_offset")]
    if job["move"] == Move.COPY:
        memory[places[0] : places[0] + capacity] = memory[record : record + capacity]
        return 0, 0, capacity, 0, 0
    info = info_of(row)
    kind_bytes = info.block_bytes // len(info.kind_list)
    used = [places[(Kind.KEY, Kind.VALUE).index(kind)] for kind in info.kind_list]
    if job["move"] == Move.COMPRESS:
        if job["flags"] & spec.CommandFlag.DEFAULT_SCHEME:
            row["scheme"] = job["scheme"]
        block = b"".join(bytes(memory[at : at + kind_bytes]) for at in used)
        data, verdict = code(True, row.tobytes(), block)
        memory[record : record + len(data)] = data
        return verdict
    read = min(capacity, LINE + info.block_bytes)
    data, verdict = code(False, row.tobytes(), bytes(memory[record : record + read]))
    for i, at in enumerate(used if data else []):
        memory[at : at + kind_bytes] = data[i * kind_bytes : (i + 1) * kind_bytes]
    return verdict


def check_done(done: np.void, job: np.ndarray, verdicts: Iterable[Verdict], status: int) -> None:
    """The run's record against the completions of its descriptors."""
    verdicts = list(verdicts)
    bad = [i for i, verdict in enumerate(verdicts) if verdict[0] != Status.OK]
    want = np.zeros(1, spec.DMA_DONE)
    want["tag"], want["blocks"], want["failed"] = job["tag"], len(verdicts), len(bad)
    want["bytes"], want["status"] = sum(verdict[2] for verdict in verdicts), status
    if bad:
        want["first_failed"] = bad[0]
        want["block_status"], _, _, want["value"], want["limit"] = verdicts[bad[0]]
    assert done == want[0], f"got {done}, want {want[0]}"
