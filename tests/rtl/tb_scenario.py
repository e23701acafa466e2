"""The driver's scenario on the RTL engine, compared with the same scenario through SpeckvDriver on csim."""

from typing import Any

import cocotb
import numpy as np

from speckv_pynq import spec
from speckv_pynq.driver.commands import command
from speckv_pynq.spec import CommandStatus, Move, Opcode
from tests.rtl import scenario
from tests.rtl.bench import report, rng, setting
from tests.rtl.host import Host

PREFIXES = ("m_axi_control", "m_axi_data")


class RtlEngine(Host):
    async def completions(self, count: int, most_cycles: int = 200_000) -> list[np.void]:
        return await super().completions(count, most_cycles)


async def start(dut: Any, stall: float = 0.0) -> RtlEngine:
    engine = RtlEngine(
        dut, rng(), size=1 << 19, slots_log2=5, prefixes=PREFIXES, latency=setting("latency", 20), stall=stall
    )  # fmt: skip
    for port in dut:  # of parts that have nothing to do here
        if port._name.endswith("_i") and port._name != "clk_i":
            port.value = 0
    await engine.start()
    return engine


@cocotb.test()
async def the_driver_and_the_engine_agree(dut: Any) -> None:
    engine = await start(dut, setting("stall", 0.0))
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


@cocotb.test()
async def a_run_that_memory_does_not_answer_ends_at_its_deadline(dut: Any) -> None:
    engine = await start(dut)
    contents = scenario.block("real", 0)
    buffers = [contents, bytes(scenario.SLOT), scenario.table(1).tobytes(), bytes(scenario.SLOT)]
    source, target, table, other = map(engine.register, buffers)

    def move(tag: int, target: int, timeout_us: int = 0) -> np.ndarray:
        return command(
            Opcode.DMA_BATCH, tag=tag, move=Move.COMPRESS, source=source, target=target, descriptors=table, count=1,
            timeout_us=timeout_us,
        )  # fmt: skip

    async def end(commands: np.ndarray, status: CommandStatus) -> None:
        await engine.submit(commands)
        (done,) = await engine.completions(1)
        assert CommandStatus(int(done["status"])) == status

    late = spec.REGISTERS["status"].fields["late"].low
    memory, latency = engine.memories[1], engine.memories[1].latency
    memory.latency = 1 << 40
    await end(move(1, target, timeout_us=5), CommandStatus.DEVICE_TIMEOUT)
    assert await engine.registers.read("status") >> late & 1
    await end(move(2, target), CommandStatus.FENCED)
    await end(move(3, other, timeout_us=5), CommandStatus.DEVICE_TIMEOUT)
    memory.latency = latency
    for burst in (*memory._reading, *memory._responding):
        burst.due = memory.cycle + latency
    for _ in range(200):
        if not await engine.registers.read("status") >> late & 1:
            break
    for tag, buffer in ((4, target), (5, other)):
        await end(move(tag, buffer), CommandStatus.OK)
    assert engine.view(target).tobytes() == engine.view(other).tobytes()
    assert engine.view(target).any()
