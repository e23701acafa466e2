"""The host of the RTL engine: rings, buffer table and buffers in an AxiMemory, registers over AXI4-Lite."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import FallingEdge

from speckv_pynq import spec
from tests.rtl import axi_lite
from tests.rtl.axi import AxiMemory
from tests.rtl.bench import CLOCK_NS, begin, run_streams

LINE = spec.LINE_BYTES
ENTRY = spec.BUFFER_ENTRY.itemsize
BASE = 0x2_4000_0000  # addresses need more than 32 bits
COMPARED = (
    "tag", "bytes", "owner", "status", "opcode", "blocks", "failed", "first_failed", "value", "limit", "block_status",
)  # fmt: skip


class Host:
    """Owns the memory [BASE, BASE + size): rings first, then the buffer table, then buffers one after another."""

    def __init__(
        self,
        dut: Any,
        chance: random.Random,
        *,
        size: int,
        slots_log2: int = 4,
        buffers: int = 16,
        prefixes: tuple[str, ...] = ("m_axi",),
        latency: int = 4,
        stall: float = 0.0,
    ) -> None:
        self.dut, self.chance, self.slots = dut, chance, 1 << slots_log2
        self.bytes = bytearray(size)
        self.memories = [
            AxiMemory(dut, self.bytes, prefix, BASE, latency=latency, stall=stall)
            for prefix in prefixes
        ]
        self.registers = axi_lite.Host(dut, chance, stall / 2)
        self.ends: list[Any] = list(self.memories)  # clocked together; a bench may add its own
        self.ring, self.done = 0, self.slots * LINE
        self.table = 2 * self.slots * LINE
        self.table_slots = buffers
        self.heap = -(-(self.table + buffers * ENTRY) // LINE) * LINE
        self.places: dict[int, tuple[int, int]] = {}  # buffer -> offset in bytes, size
        self.tail = self.head = 0
        self.failure: BaseException | None = None

    async def start(self) -> None:
        await begin(self.dut, axi_lite.INPUTS)
        cocotb.start_soon(self._run())
        for name, value in (
            ("command_base", BASE + self.ring),
            ("command_slots_log2", self.slots.bit_length() - 1),
            ("completion_base", BASE + self.done),
            ("completion_slots_log2", self.slots.bit_length() - 1),
            ("buffer_base", BASE + self.table),
            ("buffer_slots", self.table_slots),
            ("clock_period", CLOCK_NS * 256),
            ("interrupt_enable", 0b111),
            ("control", 1),
        ):
            await self.registers.write(name, value)

    async def _run(self) -> None:
        try:
            await run_streams(
                self.dut, self.chance, self.ends, until=lambda: False, most_cycles=1 << 30
            )
        except BaseException as error:
            self.failure = error
            raise

    def view(self, buffer: int) -> np.ndarray:
        """A registered buffer's bytes, (nbytes,) uint8."""
        offset, size = self.places[buffer]
        return np.frombuffer(self.bytes, np.uint8)[offset : offset + size]

    def register(self, contents: bytes) -> int:
        """A buffer with these bytes; its number, from 1 on."""
        number = len(self.places) + 1
        self.places[number] = (self.heap, len(contents))
        self.bytes[self.heap : self.heap + len(contents)] = contents
        self.heap += -(-len(contents) // LINE) * LINE
        assert self.heap <= len(self.bytes), "the memory is too small for the buffers"
        self.enter(number)
        return number

    def enter(self, number: int, *, size: int | None = None, shift: int = 0) -> None:
        """Writes a buffer's entry into the table; size 0 forgets it."""
        offset, known = self.places[number]
        entry = np.zeros(1, spec.BUFFER_ENTRY)
        entry["base"], entry["bytes"] = BASE + offset + shift, known if size is None else size
        at = self.table + number * ENTRY
        self.bytes[at : at + ENTRY] = entry.tobytes()

    async def submit(self, commands: np.ndarray) -> None:
        """Puts commands, (n,) spec.COMMAND, into the ring, with one doorbell."""
        while True:
            used = (self.tail - await self.registers.read("command_head")) & 0xFFFFFFFF
            if used + len(commands) <= self.slots:
                break
        for command in commands:
            at = self.ring + self.tail % self.slots * LINE
            self.bytes[at : at + LINE] = command.tobytes()
            self.tail += 1
        await self.registers.write("command_tail", self.tail)

    def ready(self) -> int:
        """Completions in memory that have not been read."""
        count = 0
        while count < self.slots and self._completion(self.head + count)["number"] == (
            self.head + count + 1
        ):
            count += 1
        return count

    def _completion(self, number: int) -> np.void:
        at = self.done + number % self.slots * LINE
        return np.frombuffer(self.bytes, spec.COMMAND_COMPLETION, 1, at)[0].copy()

    async def completions(self, count: int, most_cycles: int = 20_000) -> list[np.void]:
        """The next completions, in order; an error when they do not come."""
        out: list[np.void] = []
        for _ in range(most_cycles):
            if self.failure is not None:
                raise self.failure
            fresh = self.ready()
            if fresh:
                out += [self._completion(self.head + i) for i in range(fresh)]
                self.head += fresh
                await self.registers.write("completion_head", self.head)
            if len(out) >= count:
                assert len(out) == count, f"{len(out)} completions instead of {count}"
                return out
            await FallingEdge(self.dut.clk_i)
        raise AssertionError(f"{len(out)} of {count} completions after {most_cycles} cycles")

    async def wait(self, cycles: int) -> None:
        for _ in range(cycles):
            await FallingEdge(self.dut.clk_i)

    async def quiet(self, cycles: int) -> None:
        """Nothing completes for so long."""
        await self.wait(cycles)
        assert self.ready() == 0, f"{self._completion(self.head)} came"


def summary(completion: np.void) -> dict[str, int]:
    """The fields of a completion that do not depend on time or place."""
    return {name: int(completion[name]) for name in COMPARED}
