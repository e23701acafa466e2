"""cxl_speckv_top: a hint becomes blocks in L2, through page table, translation unit, DMA engine and decoder."""

from typing import Any

import cocotb
import numpy as np

from speckv_pynq import spec
from speckv_pynq.address import pack_address
from speckv_pynq.driver.commands import command
from speckv_pynq.reference.page_table import PageTable, key_mask
from speckv_pynq.spec import Invalidate, Move, Opcode
from tests.rtl import scenario
from tests.rtl.bench import Receiver, Sender, report, rng, setting
from tests.rtl.host import BASE, Host
from tests.rtl.scenario import KIND_BYTES, SLOT, block, table

BLOCKS, TOKENS, REQUEST = 3, 16, 5
WALK = "m_axi_walk"


def key_of(position: int) -> int:
    high, low = pack_address(REQUEST, 1, 0, position, 0)
    return (high << 64 | low) & key_mask(TOKENS)


@cocotb.test()
async def hints_bring_blocks_up(dut: Any) -> None:
    host = Host(
        dut, rng(), size=1 << 18, prefixes=("m_axi_control", "m_axi_data", WALK), latency=setting("latency", 20)
    )  # fmt: skip
    for port in dut:
        if port._name.endswith("_i") and port._name != "clk_i":
            port.value = 0
    slot_bytes = setting("slot_bytes", 16384)
    blocks = b"".join(block("real", i) for i in range(BLOCKS))
    rows, pages = table(BLOCKS), PageTable(4)
    places = [blocks, bytes(BLOCKS * SLOT), rows.tobytes(), bytes(64), bytes(4 * slot_bytes)]
    source, records, descriptors, results, slots = map(host.register, places)
    walked, scratch = host.register(pages.entries.tobytes()), host.register(bytes(64))
    hints = Sender(
        (dut.hint_tag_i, dut.hint_req_id_i, dut.hint_position_i, dut.hint_depth_i, dut.hint_dense_i),
        dut.hint_valid_i, dut.hint_ready_o, [],
    )  # fmt: skip
    free = Sender(dut.slot_i, dut.slot_valid_i, dut.slot_ready_o, [2, 0, 3, 1])
    outcome = (dut.result_tag_o, dut.result_status_o, dut.result_issued_o)
    ended = Receiver(outcome, dut.result_valid_o, dut.result_ready_i)
    filled = Receiver((dut.filled_slot_o, dut.filled_key_o), dut.filled_valid_o, dut.filled_ready_i)
    back = Receiver(dut.returned_slot_o, dut.returned_valid_o, dut.returned_ready_i)
    host.ends += [hints, free, ended, filled, back]
    await host.start()

    # Records of all blocks but the last, and a page table that knows them.
    count = BLOCKS - 1
    await host.submit(
        command(
            Opcode.DMA_BATCH, tag=1, move=Move.COMPRESS, source=source, target=records, descriptors=descriptors,
            count=count, results=results,
        )
    )  # fmt: skip
    await host.completions(1)
    sizes = np.frombuffer(host.view(results)[: 16 * count], spec.COMPLETION)["record_bytes"]
    shared = (
        "record_offset",
        "first_position",
        "tokens",
        "heads",
        "head_dim",
        "dtype",
        "kinds",
        "layer_count",
    )
    for i in range(count):
        fields = {name: int(rows[name][i]) for name in (*shared, "layout_fingerprint")}
        pages.map(key_of(16 * i), record_bytes=int(sizes[i]), **fields)
    host.view(walked)[:] = pages.entries.view(np.uint8)

    at = {number: BASE + offset for number, (offset, _) in host.places.items()}
    for name, value in (
        ("key_mask_low", key_mask(TOKENS) & (1 << 64) - 1), ("key_mask_high", key_mask(TOKENS) >> 64),
        ("page_table_base", at[walked]), ("page_table_log2", 4), ("prefetch_records_base", at[records]),
        ("prefetch_records_bytes", BLOCKS * SLOT), ("prefetch_blocks_base", at[slots]),
        ("prefetch_blocks_bytes", 4 * slot_bytes), ("prefetch_table", at[scratch]),
        ("prefetch_moves", 4 << spec.REGISTERS["prefetch_moves"].fields["block_shift"].low | 4),
        ("prefetch_layers", 1 << 16 | 2), ("forget", Invalidate.EVERYTHING),
    ):  # fmt: skip
        if name == "forget":
            assert await host.registers.write_word(spec.REGISTERS[name].offset, value) == 0
        else:
            await host.registers.write(name, value)
    await host.wait(600)  # the residency filter is cleared after reset
    assert not await host.registers.read("translation_status") & 1

    assert isinstance(hints.items, list)
    begun = filled.cycle
    hints.items += [(7, REQUEST, BLOCKS * TOKENS, 8, 1)]
    for _ in range(200):
        if ended.items and len(filled.items) == count:
            break
        await host.wait(50)
    assert [item[0] for item in ended.items] == [7]
    assert {key: slot for slot, key in filled.items}.keys() == {
        key_of(16 * i) for i in range(count)
    }
    for slot, key in filled.items:
        i = [key_of(16 * n) for n in range(count)].index(key)
        got = host.view(slots)[slot * slot_bytes :].tobytes()
        half = slot_bytes // 2
        want = scenario.decoded(block("real", i))
        assert got[:KIND_BYTES] == want[:KIND_BYTES]
        assert got[half : half + KIND_BYTES] == want[KIND_BYTES:]
    assert await host.registers.read("count_prefetch_issued") == count
    # The last block of layer 1, and all of layer 0, are not mapped.
    assert await host.registers.read("count_prefetch_faults") == 1 + BLOCKS
    assert await host.registers.read("count_tlb_misses") == 2 * BLOCKS
    report(filled=len(filled.items), hint_to_last_block_cycles=filled.cycles[-1] - begun)
