"""A host on an AXI4-Lite slave with ports s_axi_*: one access at a time, with stalls."""

from __future__ import annotations

import random
from typing import Any

from cocotb.triggers import FallingEdge, ReadOnly

from speckv_pynq import spec

OKAY, SLAVE_ERROR = 0, 2
INPUTS = (
    "s_axi_awaddr_i", "s_axi_awvalid_i", "s_axi_wdata_i", "s_axi_wstrb_i", "s_axi_wvalid_i", "s_axi_bready_i",
    "s_axi_araddr_i", "s_axi_arvalid_i", "s_axi_rready_i",
)  # fmt: skip
MOST_CYCLES = 200


class Host:
    """Reads and writes words. stall: the chance of each cycle to wait before offering or taking."""

    def __init__(self, dut: Any, chance: random.Random, stall: float = 0.0) -> None:
        self.dut, self.chance, self.stall = dut, chance, stall

    def _port(self, name: str) -> Any:
        return getattr(self.dut, f"s_axi_{name}")

    async def _offer(self, channels: list[str]) -> None:
        """Offers on the channels, each from a moment of its own, until all are taken."""
        left, offered = list(channels), set()
        for _ in range(MOST_CYCLES):
            for channel in left:
                if channel not in offered and self.chance.random() >= self.stall:
                    offered.add(channel)
                self._port(f"{channel}valid_i").value = channel in offered
            await ReadOnly()
            taken = [c for c in left if c in offered and self._port(f"{c}ready_o").value]
            await FallingEdge(self.dut.clk_i)
            for channel in taken:
                self._port(f"{channel}valid_i").value = 0
                left.remove(channel)
            if not left:
                return
        raise AssertionError(f"{', '.join(left)} not taken after {MOST_CYCLES} cycles")

    async def _take(self, channel: str, names: tuple[str, ...]) -> tuple[int, ...]:
        """A response, which must stand unchanged until it is taken."""
        waiting = None
        for _ in range(MOST_CYCLES):
            ready = self.chance.random() >= self.stall
            self._port(f"{channel}ready_i").value = ready
            await ReadOnly()
            valid = bool(self._port(f"{channel}valid_o").value)
            got = tuple(int(self._port(name).value) for name in names)
            assert waiting is None or (valid and got == waiting), "a response changed or went away"
            waiting = got if valid else None
            await FallingEdge(self.dut.clk_i)
            if valid and ready:
                self._port(f"{channel}ready_i").value = 0
                return got
        raise AssertionError(f"no response on {channel} after {MOST_CYCLES} cycles")

    async def write_word(self, address: int, data: int, strobe: int = 15) -> int:
        """The response: OKAY or SLAVE_ERROR."""
        self._port("awaddr_i").value = address
        self._port("wdata_i").value, self._port("wstrb_i").value = data, strobe
        await self._offer(["aw", "w"])
        return (await self._take("b", ("bresp_o",)))[0]

    async def read_word(self, address: int) -> tuple[int, int]:
        """(data, response)."""
        self._port("araddr_i").value = address
        await self._offer(["ar"])
        data, response = await self._take("r", ("rdata_o", "rresp_o"))
        return data, response

    async def write(self, name: str, value: int) -> None:
        """A register of spec.REGISTERS, all of its bits."""
        register = spec.REGISTERS[name]
        for word in range(2 if register.bits > 32 else 1):
            part = value >> 32 * word & 0xFFFFFFFF
            assert await self.write_word(register.offset + 4 * word, part) == OKAY, name

    async def read(self, name: str) -> int:
        register, value = spec.REGISTERS[name], 0
        for word in range(2 if register.bits > 32 else 1):
            data, response = await self.read_word(register.offset + 4 * word)
            assert response == OKAY, name
            value |= data << 32 * word
        return value
