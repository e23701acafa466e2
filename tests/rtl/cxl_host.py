"""What stands on both sides of cxl_mem_if in a bench: a host that sends by credits, and a memory behind AXI."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

LINE_MASK = (1 << 512) - 1
POISONED = -1  # what a read is expected to give where only its poison counts
MEM_INV, MEM_RD, MEM_RD_DATA, MEM_RD_FWD, MEM_WR_FWD, MEM_SPEC_RD, MEM_INV_NT = 0, 1, 2, 3, 4, 8, 9
MEM_WR, MEM_WR_PTL = 1, 2
READS, DROPPED = {MEM_RD, MEM_RD_DATA}, {MEM_SPEC_RD}
WRITES = {MEM_WR, MEM_WR_PTL}


def spread(strobe: int) -> int:
    """64 byte enables as a mask of 512 bits."""
    return int.from_bytes(bytes(0xFF if strobe >> i & 1 else 0 for i in range(64)), "little")


@dataclass
class Memory:
    """Lines behind AXI. Accesses happen, and are answered, at a random time each, in any order of their ids."""

    dut: Any
    stall: float = 0.0
    latency: tuple[int, int] = (1, 12)
    lines: dict[int, tuple[int, int]] = field(default_factory=dict)  # address: data, poison
    bad_reads: set[int] = field(default_factory=set)  # addresses that answer with an error
    bad_writes: set[int] = field(default_factory=set)
    deaf: bool = False  # takes no address
    mute: bool = False  # answers nothing
    accepted: int = 0

    def __post_init__(self) -> None:
        self.reads: list[tuple[int, int, int]] = []  # due, id, address
        self.writes: list[
            tuple[int, int, int, int, int, int]
        ] = []  # due, id, address, data, strobe, user
        self.aw: deque[tuple[int, int]] = deque()
        self.w: deque[tuple[int, int, int]] = deque()
        self.cycle = 0
        self.r_up = self.b_up = False

    def drive(self, chance: random.Random) -> None:
        dut, self.cycle, self.chance = self.dut, self.cycle + 1, chance
        self.r_up = self.b_up = False
        if not self.mute:
            due = [one for one in self.reads if one[0] <= self.cycle]
            if due and chance.random() >= self.stall:
                one = chance.choice(due)
                self.reads.remove(one)
                data, poison = self.lines.get(one[2], (0, 0))
                dut.m_axi_rid_i.value, dut.m_axi_rdata_i.value = one[1], data
                dut.m_axi_ruser_i.value = poison
                dut.m_axi_rresp_i.value = 2 if one[2] in self.bad_reads else 0
                self.r_up = True
            done = [one for one in self.writes if one[0] <= self.cycle]
            if done and chance.random() >= self.stall:
                one = chance.choice(done)
                self.writes.remove(one)
                self.store(*one[2:])
                dut.m_axi_bid_i.value = one[1]
                dut.m_axi_bresp_i.value = 2 if one[2] in self.bad_writes else 0
                self.b_up = True
        dut.m_axi_rvalid_i.value, dut.m_axi_bvalid_i.value = self.r_up, self.b_up
        ready = [not self.deaf and chance.random() >= self.stall for _ in range(3)]
        dut.m_axi_arready_i.value, dut.m_axi_awready_i.value, dut.m_axi_wready_i.value = ready
        self.ready = ready

    def store(self, address: int, data: int, strobe: int, user: int) -> None:
        """A line is poisoned until it is written whole again."""
        if address in self.bad_writes:
            return
        old, poison = self.lines.get(address, (0, 0))
        mask = spread(strobe)
        whole = mask == LINE_MASK
        self.lines[address] = (data & mask | old & ~mask, user if whole else user | poison)

    def settle(self) -> None:
        dut = self.dut
        if self.ready[0] and dut.m_axi_arvalid_o.value:
            address = int(dut.m_axi_araddr_o.value)
            assert address % 64 == 0
            self.accepted += 1
            identity = int(dut.m_axi_arid_o.value)
            assert all(one[1] != identity for one in self.reads), f"read id {identity} is in use"
            self.reads.append((self.cycle + self.chance.randint(*self.latency), identity, address))
        if self.ready[1] and dut.m_axi_awvalid_o.value:
            self.aw.append((int(dut.m_axi_awid_o.value), int(dut.m_axi_awaddr_o.value)))
        if self.ready[2] and dut.m_axi_wvalid_o.value:
            data, strobe = int(dut.m_axi_wdata_o.value), int(dut.m_axi_wstrb_o.value)
            self.w.append((data, strobe, int(dut.m_axi_wuser_o.value)))
        while self.aw and self.w:
            identity, address = self.aw.popleft()
            assert all(one[1] != identity for one in self.writes), f"write id {identity} is in use"
            due = self.cycle + self.chance.randint(*self.latency)
            self.writes.append((due, identity, address, *self.w.popleft()))

    def advance(self) -> None:
        pass


@dataclass
class Host:
    """Sends Req and RwD messages as credits allow, and knows what every read must give: lines in the order sent.

    requests: (opcode, host address). writes: (opcode, host address, data, strobe, poison). answers: what came for
    each, by the number of the message: None for Cmp, (data, poison) for MemData.
    """

    dut: Any
    base: int
    size: int
    requests: deque[tuple[int, int]] = field(default_factory=deque)
    writes: deque[tuple[int, int, int, int, int]] = field(default_factory=deque)
    stall: float = 0.0
    ndr_credit: float = 1.0  # chance a cycle of giving a credit that is owed
    drs_credit: float = 1.0
    ndr_most: int = 8  # credits given at first
    drs_most: int = 8
    decode_poison: int = 0
    answers: dict[str, list[Any]] = field(default_factory=lambda: {"req": [], "rwd": []})
    latencies: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model: dict[int, tuple[int, int]] = {}
        self.credits = {"req": 0, "rwd": 0}
        self.owed = {"ndr": self.ndr_most, "drs": self.drs_most}
        self.given = {"ndr": 0, "drs": 0}  # credits that the device may use
        # tag: what must come, and when it was sent; of each kind of answer and channel
        self.open: dict[str, dict[int, tuple[Any, int, str]]] = {"ndr": {}, "drs": {}}
        self.cycle = 0
        self.expect_any = False  # a time of failures: answers are recorded, not compared
        self.conflicts: set[str] = set()
        self.lines_open: dict[int, tuple[str, int]] = {}  # tag: read or write, line

    @property
    def outstanding(self) -> int:
        return len(self.open["ndr"]) + len(self.open["drs"])

    @property
    def done(self) -> bool:
        return not (self.requests or self.writes or self.outstanding)

    def tag(self) -> int:
        while True:
            tag = self.chance.getrandbits(16)
            if tag not in self.open["ndr"] and tag not in self.open["drs"]:
                return tag

    def drive(self, chance: random.Random) -> None:
        dut, self.cycle, self.chance = self.dut, self.cycle + 1, chance
        send_req = bool(self.requests and self.credits["req"]) and chance.random() >= self.stall
        send_rwd = bool(self.writes and self.credits["rwd"]) and chance.random() >= self.stall
        dut.m2s_req_valid_i.value, dut.m2s_rwd_valid_i.value = send_req, send_rwd
        if send_req:  # before the write: of the two in one cycle the read is first
            self.credits["req"] -= 1
            self._send_request(*self.requests.popleft())
        if send_rwd:
            self.credits["rwd"] -= 1
            self._send_write(*self.writes.popleft())
        for kind, rate in (("ndr", self.ndr_credit), ("drs", self.drs_credit)):
            give = self.owed[kind] > 0 and chance.random() < rate
            getattr(dut, f"s2m_{kind}_credit_i").value = give
            self.owed[kind] -= give
            self.given[kind] += give

    def here(self, address: int) -> bool:
        return self.base <= address < self.base + self.size

    def _send_request(self, opcode: int, address: int) -> None:
        dut, tag = self.dut, self.tag()
        dut.m2s_req_opcode_i.value, dut.m2s_req_tag_i.value = opcode, tag
        dut.m2s_req_address_i.value = address >> 5
        for name in ("meta_field", "meta_value", "snoop_type"):
            getattr(dut, f"m2s_req_{name}_i").value = self.chance.getrandbits(2)
        line = address & ~63
        if opcode in DROPPED:
            return
        if opcode not in READS:
            self.open["ndr"][tag] = (None, self.cycle, "req")
        elif not self.here(line):
            self.open["drs"][tag] = ((LINE_MASK, self.decode_poison), self.cycle, "req")
        else:
            self.open["drs"][tag] = (self.model.get(line, (0, 0)), self.cycle, "req")
        self.lines_open[tag] = ("read", line)
        self._note("read", line, tag)

    def _send_write(self, opcode: int, address: int, data: int, strobe: int, poison: int) -> None:
        dut, tag = self.dut, self.tag()
        dut.m2s_rwd_opcode_i.value, dut.m2s_rwd_tag_i.value = opcode, tag
        dut.m2s_rwd_address_i.value = address >> 6
        dut.m2s_rwd_data_i.value, dut.m2s_rwd_byte_enable_i.value = data, strobe
        dut.m2s_rwd_poison_i.value = poison
        line = address & ~63
        if opcode in WRITES and self.here(line):
            mask = LINE_MASK if opcode == MEM_WR else spread(strobe)
            old, was = self.model.get(line, (0, 0))
            whole = mask == LINE_MASK
            self.model[line] = (data & mask | old & ~mask, poison if whole else poison | was)
        self.open["ndr"][tag] = (None, self.cycle, "rwd")
        self.lines_open[tag] = ("write", line)
        self._note("write", line, tag)

    def _note(self, kind: str, line: int, tag: int) -> None:
        """Which orders within a line have been tried: an earlier request still open."""
        for other, (was, at) in self.lines_open.items():
            if at == line and other != tag:
                self.conflicts.add(f"{was}-{kind}")

    def settle(self) -> None:
        dut = self.dut
        self.credits["req"] += int(dut.m2s_req_credit_o.value)
        self.credits["rwd"] += int(dut.m2s_rwd_credit_o.value)
        if dut.s2m_ndr_valid_o.value:
            assert (int(dut.s2m_ndr_opcode_o.value), int(dut.s2m_ndr_meta_field_o.value)) == (0, 3)
            self._answer("ndr", int(dut.s2m_ndr_tag_o.value), None)
        if dut.s2m_drs_valid_o.value:
            assert (int(dut.s2m_drs_opcode_o.value), int(dut.s2m_drs_meta_field_o.value)) == (0, 3)
            got = (int(dut.s2m_drs_data_o.value), int(dut.s2m_drs_poison_o.value))
            self._answer("drs", int(dut.s2m_drs_tag_o.value), got)

    def _answer(self, kind: str, tag: int, got: Any) -> None:
        assert self.given[kind] > 0, f"{kind} without a credit"
        self.given[kind] -= 1
        self.owed[kind] += 1
        assert tag in self.open[kind], f"{kind} with tag {tag}, which waits for none"
        want, since, channel = self.open[kind].pop(tag)
        if not self.expect_any:
            assert got == want, f"tag {tag}: {got} instead of {want}"
        self.lines_open.pop(tag)
        self.answers[channel].append(got)
        self.latencies.append(self.cycle - since)

    def advance(self) -> None:
        pass
