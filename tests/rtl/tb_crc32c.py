"""crc32c and crc32c_shift: every length of the last beat, messages back to back and with gaps, headers of 60 bytes."""

from typing import Any

import cocotb
from cocotb.triggers import FallingEdge

from speckv_pynq.reference.crc32c import crc32c
from tests.rtl.bench import begin, report, rng

ONES = 0xFFFFFFFF
SEED_OF_HEADER = 0x641F6454  # four zero bytes lead from here to ONES


def beats_of(message: bytes) -> list[tuple[int, int]]:
    """(beat, bytes in it); a message of no bytes is one empty beat."""
    parts = [message[i : i + 64] for i in range(0, len(message), 64)] or [b""]
    return [(int.from_bytes(part, "little"), len(part)) for part in parts]


@cocotb.test()
async def messages(dut: Any) -> None:
    chance = rng()
    await begin(dut, ["valid_i", "first_i", "last_i", "bytes_i", "seed_i", "data_i"])
    lengths = [*range(130), *(chance.randrange(2000) for _ in range(60))]
    chance.shuffle(lengths)
    want: list[int] = []
    got: list[int] = []
    ends: list[int] = []
    seen: list[int] = []
    cycle = 0

    async def clock() -> None:
        nonlocal cycle
        await FallingEdge(dut.clk_i)
        cycle += 1
        if dut.valid_o.value:
            got.append(int(dut.state_o.value))
            seen.append(cycle)

    for number, length in enumerate(lengths):
        header = chance.randbytes(60) if number % 3 == 0 else b""
        message = chance.randbytes(length)
        beats = beats_of(message)
        if header:
            beats.insert(0, (int.from_bytes(header, "little") << 32, 64))
        for i, (beat, count) in enumerate(beats):
            while number > 100 and chance.random() < 0.3:
                dut.valid_i.value = 0
                await clock()
            noise = chance.getrandbits(512) >> (8 * count) << (8 * count)
            dut.data_i.value = beat | noise  # what stands past the end does not count
            dut.bytes_i.value = count if i == len(beats) - 1 else chance.randrange(128)
            dut.seed_i.value = SEED_OF_HEADER if header else ONES
            dut.first_i.value = i == 0
            dut.last_i.value = i == len(beats) - 1
            dut.valid_i.value = 1
            await clock()
        ends.append(cycle)
        want.append(crc32c(header + message))
    dut.valid_i.value = 0
    for _ in range(12):
        await clock()
    assert [state ^ ONES for state in got] == want
    latency = {s - e for s, e in zip(seen, ends, strict=True)}
    assert len(latency) == 1
    report(messages=len(want), latency_cycles=latency.pop() + 1)


@cocotb.test()
async def parts_join(dut: Any) -> None:
    """On crc32c_shift: the state of a || b from the states of a and of b begun at 0."""
    chance = rng()
    await begin(dut, ["valid_i", "state_i", "bytes_i"])
    most = (1 << len(dut.bytes_i)) - 1
    want, got = [], []
    for length in [0, 1, most, *(chance.randrange(5000) for _ in range(20))]:
        a, b = chance.randbytes(chance.randrange(1, 200)), chance.randbytes(length)
        dut.state_i.value = crc32c(a) ^ ONES
        dut.bytes_i.value = length
        dut.valid_i.value = 1
        await FallingEdge(dut.clk_i)
        # A CRC begun at 0 is one begun at ones, less that of as many zeros.
        own = crc32c(b) ^ crc32c(bytes(length))
        want.append(crc32c(a + b) ^ ONES ^ own)
        if dut.valid_o.value:
            got.append(int(dut.state_o.value))
    dut.valid_i.value = 0
    for _ in range(len(dut.bytes_i)):
        await FallingEdge(dut.clk_i)
        if dut.valid_o.value:
            got.append(int(dut.state_o.value))
    assert got == want
    report(parts=len(got))
