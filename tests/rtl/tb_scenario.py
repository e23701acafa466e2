"""The driver's scenario on the RTL engine, compared with the same scenario through SpeckvDriver on csim."""

from typing import Any

import cocotb
import numpy as np

from speckv_pynq import spec
from tests.rtl import scenario
from tests.rtl.bench import report, rng, setting
from tests.rtl.host import Host

PREFIXES = ("m_axi_control", "m_axi_data")


class RtlEngine(Host):
    async def completions(self, count: int, most_cycles: int = 200_000) -> list[np.void]:
        return await super().completions(count, most_cycles)


@cocotb.test()
async def the_driver_and_the_engine_agree(dut: Any) -> None:
    stall = setting("stall", 0.0)
    engine = RtlEngine(
        dut, rng(), size=1 << 19, slots_log2=5, prefixes=PREFIXES, latency=setting("latency", 20), stall=stall
    )  # fmt: skip
    for port in dut:  # of parts that have nothing to do here
        if port._name.endswith("_i") and port._name != "clk_i":
            port.value = 0
    await engine.start()
    got, want = await scenario.scenario(engine), scenario.on_csim()
    ends, expected = got.ends(), want.ends()
    assert ends == expected, [
        (tag, ends.get(tag), end) for tag, end in expected.items() if ends.get(tag) != end
    ]
    for name, contents in want.buffers.items():
        same = np.frombuffer(got.buffers[name], np.uint8) == np.frombuffer(contents, np.uint8)
        assert same.all(), f"{name}: {(~same).sum()} bytes differ, first at {int(np.argmin(same))}"
    report(
        commands=len(expected),
        blocks=await engine.registers.read("count_blocks"),
        cycles=engine.memories[0].cycle,
        busy_cycles=await engine.registers.read("count_busy_cycles"),
        statuses=sorted(
            {int(row["status"]) for row in np.frombuffer(got.buffers["results"], spec.COMPLETION)}
        ),
    )
