"""The benches' AXI memory, driven without a simulator: what it stores and answers, and the rules that it holds to."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from tests.rtl.axi import DECERR, OKAY, SLVERR, AxiMemory, Fault, busy

LINE = 64
BASE = 0x10000


class Port:
    """A signal as a bench sees it."""

    def __init__(self, bits: int) -> None:
        self.bits, self.value = bits, 0

    def __len__(self) -> int:
        return self.bits


def ports(widths: str, way: str) -> dict[str, Port]:
    pairs = (item.split(":") for item in widths.split())
    return {f"m_axi_{name}_{way}": Port(int(bits)) for name, bits in pairs}


@pytest.fixture
def dut():
    address = "id:2 addr:64 len:8 size:3 burst:2 valid:1"
    outputs = " ".join(f"{c}{item}" for c in ("ar", "aw") for item in address.split())
    outputs += " wdata:512 wstrb:64 wlast:1 wvalid:1 rready:1 bready:1"
    inputs = "arready:1 awready:1 wready:1 rid:2 rdata:512 rresp:2 rlast:1 rvalid:1 bid:2 bresp:2 bvalid:1"
    return SimpleNamespace(**ports(outputs, "o"), **ports(inputs, "i"))


def drive(dut, **values):
    for name, value in values.items():
        getattr(dut, f"m_axi_{name}_o").value = value


def ask(dut, channel="ar", address=BASE, beats=1, name=0, **values):
    fields = {
        "addr": address,
        "len": beats - 1,
        "size": 6,
        "burst": 1,
        "id": name,
        "valid": 1,
    } | values
    drive(dut, **{f"{channel}{field}": value for field, value in fields.items()})


def step(dut, memory, chance=None, cycles=1):
    """Cycles; returns what was answered: ("r", id, data, response) and ("b", id, response)."""
    got = []
    for _ in range(cycles):
        memory.drive(chance or random.Random(1))
        memory.settle()
        if dut.m_axi_rvalid_i.value and dut.m_axi_rready_o.value:
            got.append(
                ("r", dut.m_axi_rid_i.value, dut.m_axi_rdata_i.value, dut.m_axi_rresp_i.value)
            )
        if dut.m_axi_bvalid_i.value and dut.m_axi_bready_o.value:
            got.append(("b", dut.m_axi_bid_i.value, dut.m_axi_bresp_i.value))
        taken = dut.m_axi_arvalid_o.value and dut.m_axi_arready_i.value
        if taken:
            drive(dut, arvalid=0)
        if dut.m_axi_awvalid_o.value and dut.m_axi_awready_i.value:
            drive(dut, awvalid=0)
    return got


def test_a_burst_is_read_in_order_after_the_latency(dut):
    memory = AxiMemory(dut, bytearray(range(256)) * 2, base=BASE, latency=5)
    drive(dut, rready=1)
    ask(dut, address=BASE + LINE, beats=3, name=2)
    assert step(dut, memory, cycles=5) == []
    lines = [bytes(memory.data[LINE * i : LINE * (i + 1)]) for i in (1, 2, 3)]
    want = [("r", 2, int.from_bytes(line, "little"), OKAY) for line in lines]
    assert step(dut, memory, cycles=4) == want
    assert memory.idle
    assert busy(memory.read_cycles) == 1.0


def test_strobes_choose_bytes_and_a_beat_may_come_before_its_address(dut):
    memory = AxiMemory(dut, bytearray(2 * LINE), base=BASE)
    drive(dut, bready=1, wvalid=1, wdata=(1 << 512) - 1, wstrb=0b101, wlast=1)
    step(dut, memory)
    drive(dut, wvalid=0)
    ask(dut, "aw", address=BASE + LINE)
    assert step(dut, memory, cycles=4) == [("b", 0, OKAY)]
    assert memory.data == bytes(LINE) + b"\xff\x00\xff" + bytes(LINE - 3)


def test_faults_answer_where_they_stand_and_change_nothing(dut):
    faults = [
        Fault(BASE + 70, BASE + 71, SLVERR, writes=False),
        Fault(BASE, BASE + 1, DECERR, reads=False),
    ]
    memory = AxiMemory(dut, bytearray(b"\x55" * 2 * LINE), base=BASE, faults=faults)
    drive(dut, rready=1, bready=1, wvalid=1, wstrb=(1 << 64) - 1, wlast=1)
    ask(dut, beats=2)
    ask(dut, "aw")
    got = step(dut, memory)
    drive(dut, wvalid=0)
    got += step(dut, memory, cycles=4)
    assert [item[-1] for item in got if item[0] == "r"] == [OKAY, SLVERR]
    assert [item for item in got if item[0] == "b"] == [("b", 0, DECERR)]
    assert memory.data == b"\x55" * 2 * LINE


def test_reordering_keeps_each_id_in_order(dut):
    memory = AxiMemory(dut, bytearray(range(256)), base=BASE, reorder=True)
    for i in range(4):
        ask(dut, address=BASE + LINE * i, name=i % 2)
        step(dut, memory)
    drive(dut, rready=1)
    got = step(dut, memory, random.Random(3), 20)
    orders = {name: [data & 255 for _, n, data, _ in got if n == name] for name in (0, 1)}
    assert orders == {0: [0, 128], 1: [64, 192]}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"address": BASE + 4096 - LINE, "beats": 2}, "4 KiB"),
        ({"beats": 65}, "more than 64"),
        ({"address": BASE + 8}, "not aligned"),
        ({"address": BASE - LINE}, "outside"),
        ({"address": BASE + 8192, "beats": 1}, "outside"),
        ({"size": 5}, "size 5"),
        ({"burst": 0}, "INCR"),
    ],
)
@pytest.mark.parametrize("channel", ["ar", "aw"])
def test_a_burst_that_breaks_a_rule_fails(dut, channel, asked, message):
    memory = AxiMemory(dut, bytearray(8192), base=BASE)
    ask(dut, channel, **asked)
    with pytest.raises(AssertionError, match=message):
        step(dut, memory)


def test_an_offer_that_changes_or_goes_fails(dut):
    memory = AxiMemory(dut, bytearray(8192), base=BASE, stall=1.0)
    ask(dut)
    step(dut, memory)
    ask(dut, address=BASE + LINE)
    with pytest.raises(AssertionError, match="changed"):
        step(dut, memory)
    drive(dut, arvalid=0)
    with pytest.raises(AssertionError, match="withdrawn"):
        step(dut, memory)


@pytest.mark.parametrize("last", [0, 1])
def test_a_wrong_wlast_fails(dut, last):
    memory = AxiMemory(dut, bytearray(8192), base=BASE)
    ask(dut, "aw", beats=1 + last)
    drive(dut, wvalid=1, wlast=last)
    with pytest.raises(AssertionError, match="wlast"):
        step(dut, memory, cycles=2)
