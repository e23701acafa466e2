"""The overlay's drivers: calls, deadlines, refusals, and buffers that do not leak."""

from __future__ import annotations

import gc
import json
import threading
import time

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.errors import AbiMismatch, DeviceBufferError, DeviceError, DeviceTimeout
from speckv_pynq.predictor.image import image_of, state_bytes
from speckv_pynq.reference import encode_record
from speckv_pynq.reference.predictor import History, State, step

pynq = pytest.importorskip("pynq")

from speckv_pynq.device import hwh  # noqa: E402
from speckv_pynq.device.pynq_csim import CsimDevice  # noqa: E402
from speckv_pynq.device.pynq_overlay import (  # noqa: E402
    KvCompress,
    KvDecompress,
    SpeckvOverlay,
)
from tests.reference.predictors import random_predictor  # noqa: E402
from tests.runtime import boards  # noqa: E402
from tests.runtime.kernels import Echo, Gate, table_at  # noqa: E402


@pytest.fixture
def overlay(tmp_path):
    with boards.board(tmp_path) as loaded:
        yield loaded


@pytest.fixture
def batch(overlay):
    return boards.Batch(overlay)


def _change(batch, **named):
    return {**batch.arguments, **named}


# Calls


def test_predictions_are_those_of_the_oracle(overlay):
    model, state = random_predictor(), State(History(16))
    image = np.frombuffer(image_of(model), np.uint8)
    sizes = {"predictor": len(image), "states": state_bytes(16, 300), "candidates": 8 * 32}
    buffers = {name: overlay.device.allocate(size, np.uint8) for name, size in sizes.items()}
    buffers["descriptors"] = overlay.device.allocate(1, spec.PREDICTION)
    buffers["completions"] = overlay.device.allocate(1, spec.COMPLETION)
    buffers["predictor"][:], buffers["states"][:] = image, 0
    for token in (3, 4, 3):
        row = buffers["descriptors"]
        row[:] = np.zeros(1, spec.PREDICTION)
        row["fingerprint"], row["token"], row["capacity"] = model.fingerprint, token, 16
        row["top"] = 8
        for name in ("predictor", "descriptors"):
            buffers[name].sync_to_device()
        if not state.history.tokens:
            buffers["states"].sync_to_device()
        done = overlay.kv_prefetch.call(**buffers, count=1, abi_id=spec.ABI_ID)
        assert not done["status"].any()
        buffers["candidates"].sync_from_device()
        found = np.asarray(buffers["candidates"]).view(spec.CANDIDATE)["token"].tolist()
        assert found == [c.token for c in step(model, state, token)]


def test_records_are_those_of_the_reference(overlay, batch):
    done = overlay.kv_compress.call(*batch.arguments.values())
    assert done.dtype == spec.COMPLETION
    assert not done["status"].any()
    batch.records.sync_from_device()
    for i, (k, v) in enumerate(batch.values):
        position = i * boards.TOKENS
        wanted = encode_record(k, v, spec.Scheme.INT8_DELTA_RLE, first_position=position)
        assert batch.record(i, done) == wanted


def test_blocks_come_back_through_kv_decompress(overlay, batch):
    done = overlay.kv_compress.call(**batch.arguments)
    batch.descriptors["record_capacity"] = done["record_bytes"]
    batch.descriptors.sync_to_device()
    back = overlay.device.allocate(batch.values.shape, np.float16)
    again = overlay.kv_decompress.call(**_change(batch, blocks=back))
    assert not again["status"].any()
    back.sync_from_device()
    assert np.abs(back.astype(float) - batch.values).max() < 0.02


def test_arguments_by_name_in_any_order(overlay, batch):
    named = dict(reversed(batch.arguments.items()))
    assert not overlay.kv_compress.call(timeout_s=5, **named)["status"].any()


def test_a_slice_of_a_buffer_is_device_memory(overlay, batch):
    arguments = _change(batch, blocks=batch.blocks[1:], records=batch.records[boards.SLOT_BYTES :])
    assert not overlay.kv_compress.call(**{**arguments, "count": 2})["status"].any()


def test_the_parent_of_a_slice_may_be_gone(overlay, batch):
    part = overlay.device.allocate(batch.values.shape, np.float16)[0:]
    gc.collect()
    part[:] = batch.values
    part.sync_to_device()
    assert not overlay.kv_compress.call(**_change(batch, blocks=part))["status"].any()


def test_a_refused_descriptor_is_a_status_not_an_exception(overlay, batch):
    batch.descriptors[1]["head_dim"] = 65
    batch.descriptors.sync_to_device()
    done = overlay.kv_compress.call(**batch.arguments)
    assert done["status"].tolist() == [0, spec.Status.BAD_SHAPE, 0]
    assert done["value"][1] == 65


def test_a_missing_sync_shows(overlay, batch):
    overlay.kv_compress.call(**batch.arguments)
    batch.records.sync_from_device()
    first = batch.records.tobytes()
    batch.blocks[:] = -batch.blocks
    overlay.kv_compress.call(**batch.arguments)
    assert batch.records.tobytes() == first
    batch.records.sync_from_device()
    assert batch.records.tobytes() == first, "the device still had the old blocks"
    batch.blocks.sync_to_device()
    overlay.kv_compress.call(**batch.arguments)
    batch.records.sync_from_device()
    assert batch.records.tobytes() != first


def test_no_descriptors_no_completions(overlay, batch):
    assert len(overlay.kv_compress.call(**_change(batch, count=0))) == 0


def test_registers_as_pynq_sees_them(overlay, batch):
    unit = overlay.kv_compress
    assert "AP_IDLE=1" in repr(unit.register_map)
    words = {a.name: batch.arguments[a.name] for a in unit.arguments}
    for name in ("blocks", "records", "descriptors", "completions"):
        setattr(unit.register_map, f"{name}_1", words[name].device_address & 0xFFFF_FFFF)
        setattr(unit.register_map, f"{name}_2", words[name].device_address >> 32)
    unit.register_map.count = batch.count
    unit.register_map.abi_id_1 = spec.ABI_ID & 0xFFFF_FFFF
    unit.register_map.abi_id_2 = spec.ABI_ID >> 32
    unit.register_map.CTRL.AP_START = 1
    pynq.overlay.WaitHandle(unit).wait()
    batch.completions.sync_from_device()
    assert (batch.completions["record_bytes"] > 0).all()


def test_a_call_writes_both_words_of_an_address(overlay, batch):
    overlay.kv_compress.call(**batch.arguments)
    words = overlay.kv_compress.mmio.array
    for argument in overlay.kv_compress.arguments[:4]:
        address = int(words[argument.offset // 4 + 1]) << 32 | int(words[argument.offset // 4])
        assert address == batch.arguments[argument.name].device_address > 1 << 32


# Refusals


def made_up(batch):
    yield "sum", batch.blocks + 1
    yield "copy", batch.blocks.copy()
    yield "fancy index", batch.blocks[[0, 2]]
    yield "fancy index, in place of one", batch.blocks[[0]][0]
    yield "conversion", batch.blocks.astype(np.uint8)
    yield "comparison", batch.blocks > 0


def test_arrays_computed_from_a_buffer_are_refused(overlay, batch):
    for name, array in made_up(batch):
        with pytest.raises(DeviceBufferError, match="blocks is an array computed from a buffer"):
            overlay.kv_compress.call(**_change(batch, blocks=array))
        assert array.shape is not None, name


def test_stock_buffers_with_made_up_addresses_are_refused_too(overlay, batch):
    """On a board every PynqBuffer carries an address, also where it means nothing."""

    class StockBuffer(pynq.buffer.PynqBuffer):
        def freebuffer(self):
            pass

    stock = StockBuffer(4096, np.uint8, device=overlay.device, device_address=0x8_0000_0000)
    stock.memory = "PSDDR"
    copied = stock + 1
    assert copied.device_address is not None
    with pytest.raises(DeviceBufferError, match="made up"):
        overlay.kv_compress.call(**_change(batch, blocks=copied))


@pytest.mark.parametrize("value", [0x8_0000_0000, None, np.zeros(64, np.uint8), b"bytes"])
def test_what_is_no_buffer_is_refused(overlay, batch, value):
    with pytest.raises(DeviceBufferError, match=r"not a buffer of pynq\.allocate"):
        overlay.kv_compress.call(**_change(batch, records=value))


def test_freed_buffers_are_refused(overlay, batch):
    part = batch.blocks[1:]
    batch.blocks.freebuffer()
    for blocks in (batch.blocks, part):
        with pytest.raises(DeviceBufferError, match="blocks: the buffer was freed"):
            overlay.kv_compress.call(**_change(batch, blocks=blocks))
    with pytest.raises(DeviceBufferError, match="is freed"):
        batch.blocks.sync_to_device()


def test_strided_misaligned_and_small_buffers_are_refused(overlay, batch):
    for text, named in (
        ("blocks: strides", {"blocks": batch.blocks[::2]}),
        ("records: device address 0x.*1 is not a multiple of 64", {"records": batch.records[1:]}),
        ("completions: 32 bytes, 48 needed", {"completions": batch.completions[:2]}),
        ("descriptors: 128 bytes, 192 needed", {"descriptors": batch.descriptors[:2]}),
    ):
        with pytest.raises(DeviceBufferError, match=text):
            overlay.kv_compress.call(**_change(batch, **named))


def test_codebooks_are_optional_and_checked(overlay, batch):
    named = _change(batch)
    del named["codebooks"], named["codebook_lines"]
    assert not overlay.kv_compress.call(**named)["status"].any()
    image = overlay.device.allocate(64, np.uint8)
    assert not overlay.kv_compress.call(**named, codebooks=image)["status"].any()
    with pytest.raises(DeviceBufferError, match="codebooks: 64 bytes, 128 needed"):
        overlay.kv_compress.call(**named, codebooks=image, codebook_lines=2)
    with pytest.raises(TypeError, match="codebook_lines 1 without codebooks"):
        overlay.kv_compress.call(**named, codebook_lines=1)


def test_argument_names_are_checked(overlay, batch):
    call, values = overlay.kv_compress.call, tuple(batch.arguments.values())
    for text, args, named in (
        ("has no argument 'block'", (), _change(batch, block=batch.blocks)),
        (r"kv_compress_0\(blocks, .*\) lacks count, abi_id", values[:4], {}),
        ("got 'blocks' twice", values, {"blocks": batch.blocks}),
        ("takes 8 arguments, got 9", (*values, 1), {}),
    ):
        with pytest.raises(TypeError, match=text):
            call(*args, **named)


@pytest.mark.parametrize("count", [-1, spec.MAX_BATCH + 1])
def test_count_has_a_range(overlay, batch, count):
    with pytest.raises(DeviceError, match=rf"count {count} is not within 0\.\.65536"):
        overlay.kv_compress.call(**_change(batch, count=count))


def test_another_abi_id_is_refused_by_the_kernel(overlay, batch):
    with pytest.raises(AbiMismatch, match="kv_compress_0: called with abi_id 0x0000000000000bad"):
        overlay.kv_compress.call(**_change(batch, abi_id=0xBAD))


def test_a_kernel_that_only_writes_statuses_is_an_abi_mismatch_too(tmp_path):
    """A board's kernel has no return value: its completions say it."""

    def kernel(*arguments):
        completions = table_at(arguments[7], arguments[8], spec.COMPLETION)
        completions["status"] = spec.Status.ABI_MISMATCH
        return 0

    with boards.board(tmp_path, kernel=kernel) as overlay:
        run = overlay.kv_compress.start(**boards.Batch(overlay).arguments)
        for _ in range(2):
            with pytest.raises(AbiMismatch, match="built from another spec"):
                run.wait()


# Deadlines and errors


def test_a_wait_ends_at_its_deadline_and_names_the_registers(tmp_path):
    gate = Gate()
    with boards.board(tmp_path, kernel=gate) as overlay:
        run = overlay.kv_compress.start(**boards.Batch(overlay).arguments)
        began = time.monotonic()
        with pytest.raises(
            DeviceTimeout, match=r"kv_compress_0: not idle after 0.05 s, CTRL=0x01 \(AP_START\)"
        ):
            run.wait(0.05)
        assert time.monotonic() - began < 2
        assert not run.done()
        gate.opened.set()
        assert len(run.wait()) == 3
        assert run.done()


def test_a_busy_unit_takes_no_second_call(tmp_path):
    gate = Gate()
    with boards.board(tmp_path, kernel=gate) as overlay:
        batch = boards.Batch(overlay)
        run = overlay.kv_compress.start(**batch.arguments)
        assert gate.entered.wait(5)
        with pytest.raises(DeviceError, match="kv_compress_0 is busy, CTRL=0x01"):
            overlay.kv_compress.start(**batch.arguments)
        overlay.kv_decompress  # another unit is not  # noqa: B018
        gate.opened.set()
        run.wait()
        assert len(overlay.kv_compress.call(**batch.arguments)) == 3


def test_an_error_of_the_worker_reaches_wait_and_pins_no_buffer(tmp_path):
    def kernel(*_):
        raise ZeroDivisionError("in the worker")

    with boards.board(tmp_path, kernel=kernel) as overlay:
        batch = boards.Batch(overlay)
        run = overlay.kv_compress.start(**batch.arguments)
        for _ in range(2):
            with pytest.raises(DeviceError, match="ZeroDivisionError"):
                run.wait()
        del batch
        assert overlay.device.dram.live_buffers == 0


def test_a_status_of_the_call_as_a_whole_is_an_error(tmp_path):
    with (
        boards.board(tmp_path, kernel=lambda *_: int(spec.Status.BAD_SHAPE)) as overlay,
        pytest.raises(DeviceError, match=r"as a whole failed: status bad_shape \(6\)"),
    ):
        overlay.kv_compress.call(**boards.Batch(overlay).arguments)


def test_buffers_live_while_a_run_needs_them_and_no_longer(tmp_path):
    gate = Gate()
    with boards.board(tmp_path, kernel=gate) as overlay:
        dram, batch = overlay.device.dram, boards.Batch(overlay)
        run = overlay.kv_compress.start(**batch.arguments)
        assert dram.live_buffers == 4
        del batch
        assert dram.live_buffers == 4
        gate.opened.set()
        run.wait()
        assert dram.live_buffers == 0


def test_a_buffer_freed_during_a_run_is_an_error_at_most(tmp_path):
    gate = Gate()
    with boards.board(tmp_path, kernel=gate) as overlay:
        batch = boards.Batch(overlay)
        run = overlay.kv_compress.start(**batch.arguments)
        assert gate.entered.wait(5)
        batch.completions.freebuffer()
        gate.opened.set()
        with pytest.raises(DeviceBufferError, match="freed"):
            run.wait()


def test_no_buffer_is_left_after_calls_errors_and_del(overlay):
    dram = overlay.device.dram
    for _ in range(3):
        batch = boards.Batch(overlay)
        overlay.kv_compress.call(**batch.arguments)
        for bad in ({"abi_id": 1}, {"blocks": batch.blocks + 1}, {"count": -1}):
            with pytest.raises((AbiMismatch, DeviceError)):
                overlay.kv_compress.call(**_change(batch, **bad))
        with overlay.device.allocate(16, "u1") as short:
            assert dram.live_buffers == 5
        del short, batch
        assert dram.live_buffers == dram.live_bytes == 0


def test_threads_share_units(tmp_path):
    with boards.board(tmp_path, engines=2, kernel=Echo()) as overlay:
        failed = []

        def work(unit):
            batch = boards.Batch(overlay)
            for _ in range(20):
                done = unit.call(**batch.arguments)
                if done["value"].tolist() != batch.descriptors["record_offset"].tolist():
                    failed.append(done)

        threads = [threading.Thread(target=work, args=(u,)) for u in overlay.compress_units]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not failed
        assert overlay.device.dram.live_buffers == 0


# Loading


def test_drivers_are_bound_by_vlnv_in_any_overlay(tmp_path):
    device = CsimDevice("plain")
    plain = pynq.Overlay(str(hwh.write_overlay(tmp_path, 2)), device=device)
    assert isinstance(plain.kv_compress_1, KvCompress)
    assert isinstance(plain.kv_decompress_0, KvDecompress)
    device.close()


def test_units_are_found_in_the_order_of_their_names(tmp_path):
    with boards.board(tmp_path, engines=12) as overlay:
        names = [unit.fullpath for unit in overlay.compress_units]
        assert names == [f"kv_compress_{i}" for i in range(12)]
        assert overlay.kv_compress is overlay.compress_units[0] is overlay.kv_compress_0
        assert len(overlay.decompress_units) == 12


def test_the_class_docstring_stays_and_the_content_follows(overlay):
    assert overlay.__doc__.startswith("SpecKV's kernels")
    assert "kv_compress_0" in overlay.__doc__


def test_a_manifest_of_another_spec_is_refused_before_the_download(tmp_path):
    device, bitfile = CsimDevice("other"), hwh.write_overlay(tmp_path)
    manifest = bitfile.with_suffix(".json")
    written = json.loads(manifest.read_text())
    for key, value, text in (
        ("abi_id", "0x1", "abi_id 0x0000000000000001, this package has"),
        ("format_version", 99, "record format 99, this package has 1"),
        ("abi_id", None, "no readable manifest"),
    ):
        manifest.write_text(json.dumps({**written, key: value}))
        with pytest.raises(AbiMismatch, match=text):
            SpeckvOverlay(bitfile, device=device)
    manifest.unlink()
    with pytest.raises(AbiMismatch, match="no readable manifest"):
        SpeckvOverlay(bitfile, device=device)
    with pytest.raises(DeviceError, match="AXI decode error"):
        device.mmap(hwh.CONTROL_BASE, 4)


def test_a_register_map_of_another_spec_is_refused(tmp_path):
    bitfile = hwh.write_overlay(tmp_path)
    boards.redescribe(bitfile, hwh.render_hwh(2).replace("records_1", "records_x"))
    device = CsimDevice("moved")
    overlay = SpeckvOverlay(bitfile, device=device)
    with pytest.raises(AbiMismatch, match="kv_compress_0: register records_1 is at None"):
        overlay.kv_compress  # noqa: B018
    device.close()


def test_a_replaced_overlay_says_so(tmp_path):
    with boards.board(tmp_path / "one", engines=2) as first:
        batch, second_unit = boards.Batch(first), first.decompress_units[1]
        SpeckvOverlay(hwh.write_overlay(tmp_path / "other", 1), device=first.device)
        with pytest.raises(DeviceError, match="is not loaded"):
            first.kv_compress  # noqa: B018
        with pytest.raises(DeviceError, match="kv_decompress_1: its overlay was replaced"):
            second_unit.call(**batch.arguments)
        first.download()
        assert not first.kv_compress.call(**batch.arguments)["status"].any()


def test_loading_the_overlay_afresh_frees_a_hung_unit(tmp_path):
    gate = Gate()
    with boards.board(tmp_path, kernel=gate) as overlay:
        batch = boards.Batch(overlay)
        overlay.kv_compress.start(**batch.arguments)
        assert gate.entered.wait(5)
        overlay.download()
        assert overlay.kv_compress.idle
        gate.opened.set()
        assert len(overlay.kv_compress.call(**batch.arguments)) == 3


def test_without_download_nothing_is_loaded(tmp_path):
    overlay = SpeckvOverlay(hwh.write_overlay(tmp_path), device=CsimDevice("idle"), download=False)
    with pytest.raises(DeviceError, match=r"no register at 0xa0000000.*is the overlay loaded"):
        overlay.kv_compress  # noqa: B018
    overlay.download()
    assert overlay.kv_compress.idle
    overlay.device.close()


def test_a_device_without_an_overlay_is_told_how_to_get_one():
    device = CsimDevice("nameless")
    device.name = "zcu999"
    with pytest.raises(DeviceError, match=r"no overlay for device 'zcu999' .*overlay/build\.py"):
        SpeckvOverlay(device=device)
