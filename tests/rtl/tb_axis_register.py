"""axis_register: order kept, nothing lost or doubled, full throughput without stalls."""

from typing import Any

import cocotb

from tests.rtl.bench import Receiver, Sender, begin, report, rng, run_streams, setting


@cocotb.test()
async def stream(dut: Any) -> None:
    chance = rng()
    await begin(dut, ["valid_i", "data_i", "ready_i"])
    width = len(dut.data_i)
    items = [chance.getrandbits(width) for _ in range(setting("items", 2000))]
    sender = Sender(dut.data_i, dut.valid_i, dut.ready_o, items, stall=setting("stall", 0.0))
    receiver = Receiver(dut.data_o, dut.valid_o, dut.ready_i, stall=setting("pressure", 0.0))
    cycles = await run_streams(
        dut,
        chance,
        [sender, receiver],
        until=lambda: len(receiver.items) == len(items),
        most_cycles=20 * len(items),
    )
    assert receiver.items == items
    report(cycles=cycles, items=len(items))
