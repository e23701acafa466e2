"""Drives atu: memory with a page table behind AXI, a requester that knows what may be answered, a host that changes
entries and makes the unit forget."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from cocotb.triggers import FallingEdge, ReadOnly

from speckv_pynq import spec
from speckv_pynq.reference.page_table import PageTable, key_mask
from speckv_pynq.spec import Invalidate, Translation
from tests.rtl.bench import Coverage, begin

BASE = 0x3_0000_0040  # any multiple of a line
LINE = spec.LINE_BYTES
NOTHING = bytes(LINE)
SHAPE = {"tokens": 32, "heads": 4, "head_dim": 64, "layer_count": 1, "kinds": 3}
MASK = key_mask(32, 4, 2)


class Memory:
    """The read channel: answers after `latency` (least, most) cycles, in order of an id only."""

    def __init__(self, dut: Any, table: PageTable, chance: random.Random) -> None:
        self.dut, self.table, self.chance = dut, table, chance
        self.latency = (1, 20)
        self.stall = 0.0
        self.answers = True
        self.errors: set[int] = set()  # places whose reads fail
        self.waiting: list[tuple[int, int, int, bytes | None]] = []  # due, id, place, data if read
        self.held: tuple[int, int] | None = None
        self.cycle = self.most = self.reads = 0

    def drive(self) -> None:
        dut = self.dut
        self.ready = self.chance.random() >= self.stall
        dut.m_axi_arready.value = self.ready
        due = [w for w in self.waiting if w[0] <= self.cycle] if self.answers else []
        dut.m_axi_rvalid.value = bool(due)
        if due:
            chosen = self.chance.choice(due)
            self.waiting.remove(chosen)
            _, ident, place, data = chosen
            dut.m_axi_rid.value = ident
            dut.m_axi_rdata.value = int.from_bytes(data or self.read(place), "little")
            dut.m_axi_rresp.value = 2 if place in self.errors else 0

    def read(self, place: int) -> bytes:
        return self.table.entries[place].tobytes()

    def settle(self) -> None:
        dut = self.dut
        self.cycle += 1
        if not dut.m_axi_arvalid.value:
            assert self.held is None, "a read was withdrawn"
            return
        offer = int(dut.m_axi_araddr.value), int(dut.m_axi_arid.value)
        assert self.held in (None, offer), "a read changed while it waited"
        self.held = None if self.ready else offer
        if self.ready:
            place, rest = divmod(offer[0] - BASE, LINE)
            assert rest == 0, f"reads {offer[0]:#x}"
            assert 0 <= place < len(self.table.entries), f"reads {offer[0]:#x}"
            assert all(w[1] != offer[1] for w in self.waiting), "two reads of one id"
            now = self.read(place) if self.chance.random() < 0.5 else None
            self.waiting.append(
                (self.cycle + self.chance.randint(*self.latency), offer[1], place, now)
            )
            self.most = max(self.most, len(self.waiting))
            self.reads += 1


@dataclass
class Lookup:
    address: int
    taken: int = -1  # cycle
    hits: int | None = None


class Bench:
    """Lookups in `queue` are sent as they can; answers are checked as they come."""

    def __init__(self, dut: Any, chance: random.Random, entries_log2: int) -> None:
        self.dut, self.chance = dut, chance
        self.table = PageTable(entries_log2)
        self.memory = Memory(dut, self.table, chance)
        self.queue: list[Lookup] = []
        self.open: dict[int, Lookup] = {}  # by tag
        self.done: list[tuple[Lookup, int, Translation]] = []  # with the cycle
        self.answers: dict[int, list[tuple[Translation, bytes]]] = {}  # key -> allowed now
        self.stall = self.pressure = 0.0
        self.forgetting: tuple[Invalidate, int, list[int]] | None = None
        self.forget_taken = False
        self.held: Any = None
        self.cycle = 0
        self.offered: Lookup | None = None
        self.tag = 0
        self.counts: Counter[Translation] = Counter()
        self.late = False  # memory is late: a walk may end with a timeout
        self.faults = 0
        self.coverage = Coverage(
            answer=[t.name for t in Translation],
            forget=[f"{i.name} {w}" for i in Invalidate for w in ("idle", "while walking")],
        )

    async def start(self, timeout: int = 5000) -> None:
        dut = self.dut
        inputs = "request_valid request_address request_tag response_ready forget_valid forget_kind forget_address"
        await begin(
            dut,
            [*(f"{n}_i" for n in inputs.split()), "m_axi_arready", "m_axi_rvalid", "m_axi_rlast"],
        )
        dut.key_mask_i.value, dut.table_base_i.value = MASK, BASE
        dut.table_log2_i.value = len(self.table.entries).bit_length() - 1
        dut.timeout_i.value, dut.m_axi_rlast.value = timeout, 1

    def map(self, key: int, **changes: int) -> None:
        fields = SHAPE | {
            "record_offset": self.chance.randrange(1 << 40) * LINE,
            "record_bytes": self.chance.randrange(1, 100) * LINE,
            "layout_fingerprint": self.chance.getrandbits(64),
        }
        self.table.map(key, **fields)
        for name, value in changes.items():
            self.table.entries[self.table.place_of(key)][name] = value
        self.note(key)

    def note(self, key: int) -> None:
        """The table has changed; what was allowed stays so until the key is forgotten."""
        self.answers.setdefault(key, [(Translation.NOT_MAPPED, NOTHING)]).append(self.now(key))

    def now(self, key: int) -> tuple[Translation, bytes]:
        places = list(self.table.places(key))
        for place in places:
            if place in self.memory.errors:
                return Translation.BUS_ERROR, NOTHING
            flags = self.table.entries[place]["flags"]
            if not flags or self.table.place_of(key) == place:
                break
        return self.table.walk(key)

    def forget(self, kind: Invalidate, address: int = 0) -> None:
        """Starts it; `forgetting` is None again when it is done."""
        keys = [k for k in self.answers if covers(kind, address, k)]
        self.forgetting, self.forget_taken = (kind, address, keys), False
        self.remember = {k: len(self.answers[k]) - 1 for k in keys}
        walking = "while walking" if self.memory.waiting else "idle"
        self.coverage.hit("forget", f"{kind.name} {walking}")

    async def step(self) -> None:
        dut = self.dut
        if self.offered is None and self.queue and self.chance.random() >= self.stall:
            free = [
                (self.tag + i) % 256 for i in range(256) if (self.tag + i) % 256 not in self.open
            ]
            if free:
                self.offered, self.tag = self.queue.pop(0), free[0]
                dut.request_address_i.value, dut.request_tag_i.value = (
                    self.offered.address,
                    self.tag,
                )
        dut.request_valid_i.value = self.offered is not None
        ready = self.chance.random() >= self.pressure
        dut.response_ready_i.value = ready
        offers = self.forgetting is not None and not self.forget_taken
        dut.forget_valid_i.value = offers
        if offers and self.forgetting:
            dut.forget_kind_i.value, dut.forget_address_i.value = (
                int(self.forgetting[0]),
                self.forgetting[1],
            )
        self.memory.drive()
        await ReadOnly()
        self.memory.settle()
        self.cycle += 1
        self.faults += bool(dut.fault_valid_o.value)
        if self.offered is not None and dut.request_ready_o.value:
            self.offered.taken = self.cycle
            self.open[self.tag] = self.offered
            self.offered = None
        if offers and dut.forget_ready_o.value:
            self.forget_taken = True
        if dut.forget_done_o.value and self.forgetting:
            for key in self.forgetting[2]:
                del self.answers[key][: self.remember[key]]
            self.forgetting = None
        self.receive(ready)
        await FallingEdge(dut.clk_i)

    def receive(self, ready: bool) -> None:
        dut = self.dut
        if not dut.response_valid_o.value:
            assert self.held is None, "an answer was withdrawn"
            return
        status = Translation(int(dut.response_status_o.value))
        entry = int(dut.response_entry_o.value).to_bytes(LINE, "little")
        answer = int(dut.response_tag_o.value), status, entry
        assert self.held in (None, answer), "an answer changed while it waited"
        self.held = None if ready else answer
        if not ready:
            return
        lookup = self.open.pop(answer[0])
        key = lookup.address & MASK
        allowed = self.answers.setdefault(key, [(Translation.NOT_MAPPED, NOTHING)])
        late = self.late and (status, entry) == (Translation.WALK_TIMEOUT, NOTHING)
        assert late or (status, entry) in allowed, f"{key:#x}: {status.name}, not one of {allowed}"
        self.counts[status] += 1
        self.coverage.hit("answer", status.name)
        self.done.append((lookup, self.cycle, status))

    async def until(self, condition: Any, most: int = 100_000) -> None:
        for _ in range(most):
            if condition():
                return
            await self.step()
        raise AssertionError(f"not done after {most} cycles; open: {self.open}")

    async def finish(self) -> None:
        await self.until(lambda: not (self.queue or self.open or self.offered or self.forgetting))

    async def look(self, *addresses: int) -> None:
        self.queue += [Lookup(a) for a in addresses]
        await self.finish()


def covers(kind: Invalidate, address: int, key: int) -> bool:
    bits, shift = next((b, s) for n, b, s in spec.ADDRESS_FIELDS if n == "req_id")
    same_request = (address ^ key) >> shift & (1 << bits) - 1 == 0
    return {Invalidate.KEY: address & MASK == key, Invalidate.REQUEST: same_request}.get(kind, True)
