"""speckv_csr: every register as spec.REGISTERS has it, and errors for what is not there."""

from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from speckv_pynq import spec
from tests.rtl import axi_lite
from tests.rtl.axi_lite import OKAY, SLAVE_ERROR
from tests.rtl.bench import Coverage, begin, rng, setting

SPACE = 1 << 12


def places(access: str) -> dict[str, int]:
    """Lowest bit of each register of one access in its packed structure (the first register stands highest)."""
    out, low = {}, 0
    for name, register in reversed(spec.REGISTERS.items()):
        if register.access == access:
            out[name] = low
            low += register.bits + (access == "wo")
    return out


def bits_of(packed: int, name: str, access: str) -> int:
    """A register's value; its fields stand in the structure first field highest."""
    register, low = spec.REGISTERS[name], places(access)[name]
    value = 0
    for field in reversed(register.fields.values()):
        value |= (packed >> low & (1 << field.bits) - 1) << field.low
        low += field.bits
    return value


def packed_of(values: dict[str, int], access: str) -> int:
    out = 0
    for name, low in places(access).items():
        for field in reversed(spec.REGISTERS[name].fields.values()):
            out |= (values.get(name, 0) >> field.low & (1 << field.bits) - 1) << low
            low += field.bits
    return out


def reset_of(name: str) -> int:
    return sum(f.reset << f.low for f in spec.REGISTERS[name].fields.values())


async def start(dut: Any) -> axi_lite.Host:
    await begin(dut, [*axi_lite.INPUTS, "value_i", "event_i"])
    return axi_lite.Host(dut, rng(), setting("stall", 0.0))


@cocotb.test()
async def every_register(dut: Any) -> None:
    host, chance = await start(dut), rng()
    seen = Coverage(access=["constant", "ro", "rw", "w1c", "wo"], response=[OKAY, SLAVE_ERROR])
    shown = {n: chance.getrandbits(r.bits) for n, r in spec.REGISTERS.items() if r.access == "ro"}
    dut.value_i.value = packed_of(shown, "ro")
    for name, register in spec.REGISTERS.items():
        seen.hit("access", register.access)
        if register.access == "wo":
            assert (await host.read_word(register.offset))[1] == SLAVE_ERROR
            continue
        expected = shown[name] if register.access == "ro" else reset_of(name)
        assert await host.read(name) == expected, name
        if register.access in ("constant", "ro"):
            assert await host.write_word(register.offset, 0xFFFFFFFF) == SLAVE_ERROR
            seen.hit("response", SLAVE_ERROR)
            assert await host.read(name) == expected, name
        elif register.access == "rw":
            value = chance.getrandbits(register.bits)
            await host.write(name, value)
            seen.hit("response", OKAY)
            assert await host.read(name) == value
            assert bits_of(int(dut.state_o.value), name, "rw") == value
    seen.finish()


@cocotb.test()
async def nothing_elsewhere(dut: Any) -> None:
    host = await start(dut)
    known = {
        register.offset + 4 * word
        for register in spec.REGISTERS.values()
        for word in range(2 if register.bits > 32 else 1)
    }
    before = int(dut.state_o.value)
    for address in set(range(0, 0x140, 4)) | set(range(0x200, SPACE, 0x1FC)):
        if address not in known:
            assert await host.read_word(address) == (0, SLAVE_ERROR), hex(address)
            assert await host.write_word(address, 0xFFFFFFFF) == SLAVE_ERROR, hex(address)
    assert int(dut.state_o.value) == before


@cocotb.test()
async def byte_strobes(dut: Any) -> None:
    host, chance = await start(dut), rng()
    value = 0
    for strobe in range(16):
        data = chance.getrandbits(32)
        mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
        value = (value & ~mask) | (data & mask)
        assert await host.write_word(spec.REGISTERS["command_tail"].offset, data, strobe) == OKAY
        assert await host.read("command_tail") == value


@cocotb.test()
async def counters_do_not_tear(dut: Any) -> None:
    host = await start(dut)
    name = "count_bytes"
    dut.value_i.value = packed_of({name: 0xFFFFFFFF}, "ro")
    low, _ = await host.read_word(spec.REGISTERS[name].offset)
    dut.value_i.value = packed_of({name: 0x100000000}, "ro")
    high, _ = await host.read_word(spec.REGISTERS[name].offset + 4)
    assert high << 32 | low == 0xFFFFFFFF
    assert await host.read(name) == 0x100000000


async def event(dut: Any, causes: int) -> None:
    dut.event_i.value = packed_of({"interrupt_status": causes}, "w1c")
    await FallingEdge(dut.clk_i)
    dut.event_i.value = 0


@cocotb.test()
async def interrupts(dut: Any) -> None:
    host = await start(dut)
    await event(dut, 0b101)
    for _ in range(3):
        await FallingEdge(dut.clk_i)
    assert not dut.irq_o.value, "no cause is enabled"
    await host.write("interrupt_enable", 0b001)
    await FallingEdge(dut.clk_i)
    assert dut.irq_o.value
    assert await host.read("interrupt_status") == 0b101
    await host.write("interrupt_status", 0b100)
    assert await host.read("interrupt_status") == 0b001
    assert dut.irq_o.value
    await host.write("interrupt_status", 0b001)
    await FallingEdge(dut.clk_i)
    assert not dut.irq_o.value


@cocotb.test()
async def a_cause_that_comes_while_it_is_cleared_stays(dut: Any) -> None:
    host = await start(dut)
    dut.event_i.value = packed_of({"interrupt_status": 1}, "w1c")  # in every cycle
    await host.write("interrupt_status", 1)
    dut.event_i.value = 0
    assert await host.read("interrupt_status") == 1


@cocotb.test()
async def orders_are_pulses(dut: Any) -> None:
    host = await start(dut)
    bits, low = spec.REGISTERS["cancel_owner"].bits, places("wo")["cancel_owner"]
    seen = []

    async def watch() -> None:
        while True:
            await FallingEdge(dut.clk_i)
            order = int(dut.order_o.value) >> low
            if order >> bits & 1:
                seen.append(order & (1 << bits) - 1)

    watching = cocotb.start_soon(watch())
    for owner in (0, 7, 0xFFFFFFFF):
        await host.write("cancel_owner", owner)
    watching.cancel()
    assert seen == [0, 7, 0xFFFFFFFF]
