"""The driver's four commands on an engine: the same story for the driver on csim and for the RTL engine in simulation.

An engine has `register(contents) -> number`, `view(number)`, and, as coroutines, `submit(commands)` and
`completions(count)`, which gives spec.COMMAND_COMPLETION rows in order of finishing.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from speckv_pynq import spec
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.driver import SpeckvDriver
from speckv_pynq.driver.commands import command
from speckv_pynq.errors import CommandError, ConfigError, DeviceBufferError
from speckv_pynq.reference import BlockInfo, decode_record, encode_record
from speckv_pynq.spec import CommandStatus, DType, Kind, Move, Opcode, Parameter, Scheme
from tests.blocks import REAL_BLOCKS, make_bits

LINE = spec.LINE_BYTES
SHAPE = (16, 2, 64)  # tokens, heads, head_dim
KIND_BYTES = 2 * 16 * 2 * 64
SLOT = 2 * KIND_BYTES + LINE
SCHEMES = (Scheme.RAW, Scheme.INT8_DELTA_RLE, Scheme.INT4)
CASES = ("real", "runs", "any")  # of blocks
REFUSED = frozenset({CommandStatus.BAD_BUFFER, CommandStatus.DEVICE_ERROR})
NO_BUFFER = 15
OWNERS = (0, 7, 9)


class Engine(Protocol):
    def register(self, contents: bytes) -> int: ...
    def view(self, number: int) -> np.ndarray: ...
    async def submit(self, commands: np.ndarray) -> None: ...
    async def completions(self, count: int) -> list[np.void]: ...


@dataclass
class Story:
    """What a run leaves: completions in order of finishing, and the bytes of every buffer."""

    completions: list[np.void] = field(default_factory=list)
    buffers: dict[str, bytes] = field(default_factory=dict)

    def ends(self) -> dict[int, tuple[int, ...]]:
        """By tag: owner, opcode, status, and of commands that ran what came of them."""
        out = {}
        for row in self.completions:
            status = CommandStatus(int(row["status"]))
            names = ["owner", "opcode", "status"]
            if status not in REFUSED:
                names += [
                    "bytes",
                    "blocks",
                    "failed",
                    "first_failed",
                    "block_status",
                    "value",
                    "limit",
                ]
            out[int(row["tag"])] = tuple(int(row[name]) for name in names)
        return out


def block(case: str, number: int) -> bytes:
    """K, then V, fp16: of a real cache, of a named case, or any bit patterns."""
    if case != "real":
        return b"".join(
            make_bits(case, 2 * number + i, SHAPE, DType.FP16).tobytes() for i in range(2)
        )
    tokens, heads, _ = SHAPE
    with np.load(REAL_BLOCKS) as data:
        kinds = [data[name][number % len(data[name]), :tokens, :heads] for name in ("key", "value")]
    return b"".join(np.ascontiguousarray(kind).tobytes() for kind in kinds)


def decoded(contents: bytes) -> bytes:
    """What is left of a block's bytes after int4."""
    k, v = np.frombuffer(contents, np.uint16).reshape(2, *SHAPE)
    record = encode_record(k, v, Scheme.INT4, dtype=DType.FP16)
    return b"".join(kind.tobytes() for kind in decode_record(record, BlockInfo(*SHAPE)))


def table(count: int) -> np.ndarray:
    """Descriptors of block i at i blocks, with its record in slot i."""
    rows = np.zeros(count, spec.DESCRIPTOR)
    index = np.arange(count, dtype=np.uint64)
    rows["record_offset"], rows["record_capacity"] = index * SLOT, SLOT
    rows["key_offset"] = index * (2 * KIND_BYTES)
    rows["value_offset"] = rows["key_offset"] + KIND_BYTES
    rows["tokens"], rows["heads"], rows["head_dim"] = SHAPE
    rows["kinds"], rows["layer_count"] = Kind.BOTH, 1
    rows["scheme"], rows["first_position"] = Scheme.INT4, index * 16
    rows["layout_fingerprint"] = 0x0123456789ABCDEF
    return rows


def faulty(rows: np.ndarray) -> np.ndarray:
    """The first of the rows, again and again with one field wrong, and one that is fine at the end."""
    faults: list[dict[str, int]] = [
        {"record_offset": 8}, {"key_offset": 32}, {"record_capacity": SLOT - 1}, {"record_offset": 1 << 40},
        {"value_offset": 1 << 20}, {"tokens": 17}, {"head_dim": 65}, {"heads": 0}, {"kinds": 0}, {"dtype": 3},
        {"record_capacity": 0}, {"kinds": 1},
    ]  # fmt: skip
    out = np.repeat(rows[:1], len(faults) + 1)
    for row, fault in zip(out, faults, strict=False):
        for name, value in fault.items():
            row[name] = value
    return out


async def scenario(engine: Engine) -> Story:
    """Compresses, decompresses, prefetches, sets parameters, polls, and does each of it wrongly too."""
    story, count = Story(), len(SCHEMES) * len(CASES)
    blocks = b"".join(block(case, i) for i, case in enumerate(CASES * len(SCHEMES)))
    places = {"blocks": engine.register(blocks), "records": engine.register(bytes(count * SLOT))}
    places["tables"] = engine.register(bytes(64 * LINE))
    places["results"] = engine.register(bytes(64 * LINE))
    places["copies"] = engine.register(bytes(len(blocks)))

    async def do(*commands: np.ndarray) -> list[np.void]:
        await engine.submit(np.concatenate(commands))
        done = await engine.completions(len(commands))
        story.completions += done
        return done

    def move(opcode: Opcode, tag: int, way: Move, **fields: int) -> np.ndarray:
        source, target = ("blocks", "records") if way == Move.COMPRESS else ("records", "copies")
        named = {
            "source": places[source],
            "target": places[target],
            "descriptors": places["tables"],
        }
        return command(opcode, tag=tag, move=way, **named | fields)

    def write(rows: np.ndarray, line: int) -> None:
        engine.view(places["tables"])[line * LINE : line * LINE + rows.nbytes] = rows.view(np.uint8)

    # Every scheme, said by the descriptors and by the parameter.
    coded = table(count)
    coded["scheme"] = np.repeat(SCHEMES, len(CASES))
    write(coded, 0)
    results = {"results": places["results"]}
    await do(move(Opcode.DMA_BATCH, 1, Move.COMPRESS, count=count, **results))
    default = {"flags": spec.CommandFlag.DEFAULT_SCHEME}
    for tag, scheme in ((2, Scheme.INT4), (4, Scheme.RAW)):
        setting = command(
            Opcode.SET_PARAM, tag=tag, param=Parameter.COMPRESSION_SCHEME, value=scheme
        )
        await do(setting)
        await do(move(Opcode.DMA_BATCH, tag + 1, Move.COMPRESS, count=1, **default))

    # Back again, the bytes of each record as its completion said.
    made = np.frombuffer(engine.view(places["results"])[: count * 16], spec.COMPLETION)
    read = coded.copy()
    read["record_capacity"] = made["record_bytes"]
    read["record_capacity"][0] = SLOT  # it was coded anew
    write(read, 0)
    await do(move(Opcode.DMA_BATCH, 10, Move.DECOMPRESS, count=count, results_line=4, **results))

    # Faults of descriptors and of records, each by itself.
    wrong = faulty(table(1))
    write(wrong, 16)
    wrong_at = {"descriptors_line": 16, "count": len(wrong)}
    await do(move(Opcode.DMA_BATCH, 11, Move.COMPRESS, results_line=8, **wrong_at, **results))
    await do(move(Opcode.DMA_BATCH, 12, Move.DECOMPRESS, results_line=12, **wrong_at, **results))
    damaged = read[3:7].copy()
    damaged["first_position"][0] += 1
    damaged["record_capacity"][1] = LINE
    damaged["layout_fingerprint"][2] = 1
    engine.view(places["records"])[6 * SLOT + LINE] ^= 1
    write(damaged, 40)
    await do(
        move(Opcode.DMA_BATCH, 13, Move.DECOMPRESS, descriptors_line=40, count=4, results_line=16, **results)
    )  # fmt: skip

    # Commands that are none, or name what is not there.
    bad: list[dict[str, int]] = [
        {name: NO_BUFFER} for name in ("source", "target", "descriptors", "results")
    ]
    bad += [{"source": 0}, {"descriptors_line": 60, "count": 5}, {"results_line": 64, **results}]
    for tag, fields in enumerate(bad, 20):
        await do(move(Opcode.DMA_BATCH, tag, Move.COMPRESS, **{"count": 1, **fields}))
    await do(command(Opcode.SET_PARAM, tag=30, param=Parameter.PREFETCH_SLICE, value=0))
    await do(command(Opcode.SET_PARAM, tag=31, param=99, value=1))
    await do(move(Opcode.DMA_BATCH, 32, Move.COMPRESS, count=0))

    # Prefetches: of each owner the newest stay; slices; polls behind what is older of their owner.
    engine.view(places["copies"])[:] = 0
    await do(command(Opcode.SET_PARAM, tag=40, param=Parameter.PREFETCH_DEPTH, value=2))
    await do(command(Opcode.SET_PARAM, tag=41, param=Parameter.PREFETCH_SLICE, value=3))
    fetch = [
        move(Opcode.PREFETCH, 50 + i, Move.DECOMPRESS, descriptors_line=i, count=1, owner=7)
        for i in range(5)
    ]
    last = move(
        Opcode.PREFETCH, 60, Move.DECOMPRESS, count=count, results_line=20, owner=9, **results
    )
    demand = move(Opcode.DMA_BATCH, 61, Move.DECOMPRESS, descriptors_line=5, count=1, owner=7)
    polls = [
        command(Opcode.POLL_DONE, tag=62 + i, owner=owner) for i, owner in enumerate((7, 9, 0))
    ]
    done = await do(*fetch, last, demand, *polls)
    for owner, poll in ((7, 62), (9, 63)):
        mine = [int(row["tag"]) for row in done if row["owner"] == owner]
        assert mine[-1] == poll, f"poll_done before what is older of owner {owner}: {mine}"
    story.buffers = {name: engine.view(number).tobytes() for name, number in places.items()}
    return story


class DriverEngine:
    """SpeckvDriver on csim. What it refuses at once ends here as the RTL engine's completion would."""

    def __init__(self, device: CsimDevice, driver: SpeckvDriver) -> None:
        self.device, self.driver = device, driver
        self.buffers: dict[int, Any] = {}
        self.refused: list[np.void] = []

    def register(self, contents: bytes) -> int:
        buffer = self.device.allocate(len(contents))
        buffer.array[:] = np.frombuffer(contents, np.uint8)
        number = self.driver.register(buffer)
        self.buffers[number] = buffer
        return number

    def view(self, number: int) -> np.ndarray:
        return self.buffers[number].array

    async def submit(self, commands: np.ndarray) -> None:
        for buffer in self.buffers.values():
            buffer.sync_to_device()
        try:
            self.driver.submit(commands)
        except (CommandError, ConfigError, DeviceBufferError) as error:
            assert len(commands) == 1, "a batch with a bad command is refused whole"
            row = np.zeros(1, spec.COMMAND_COMPLETION)[0]
            for name in ("tag", "owner", "opcode"):
                row[name] = commands[0][name]
            of_buffer = isinstance(error, DeviceBufferError)
            row["status"] = CommandStatus.BAD_BUFFER if of_buffer else CommandStatus.DEVICE_ERROR
            self.refused.append(row)

    async def completions(self, count: int) -> list[np.void]:
        done, self.refused = self.refused, []
        self.driver.drain()
        for owner in OWNERS:
            done += [completion.row for completion in self.driver.poll_done(owner=owner)]
        assert len(done) == count
        for buffer in self.buffers.values():
            buffer.sync_from_device()
        return done


def on_csim() -> Story:
    """The scenario through SpeckvDriver."""
    with CsimDevice() as device, SpeckvDriver(device) as driver:
        return _finish(scenario(DriverEngine(device, driver)))


def _finish(story: Coroutine[Any, Any, Story]) -> Story:
    """The result of a coroutine that never waits."""
    try:
        story.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")
