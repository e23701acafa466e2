"""The overlay as a SpecKV device, and user code in a process that only sets SPECKV_DEVICE."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.block import BlockShape, block_ids
from speckv_pynq.codec import Codec
from speckv_pynq.config import TierConfig
from speckv_pynq.device.csim import CsimDevice as NativeDevice
from speckv_pynq.errors import ConfigError, DeviceBufferError, DeviceError, DeviceTimeout
from speckv_pynq.tiers import StridedKV, TierManager

pytest.importorskip("pynq")

from speckv_pynq.device.pynq_device import PynqDevice
from tests.runtime import boards
from tests.runtime.kernels import Echo, Gate

ROOT = Path(__file__).resolve().parents[2]
SHAPE = BlockShape(boards.TOKENS, boards.HEADS, boards.HEAD_DIM, spec.DType.FP16)


def _opened(tmp_path, engines=2, kernel=None, num_engines=None):
    with boards.board(tmp_path, engines, kernel) as overlay:
        with PynqDevice(overlay, num_engines) as device:
            yield device
        assert overlay.device.dram.live_buffers == 0


@pytest.fixture
def device(tmp_path):
    yield from _opened(tmp_path)


@pytest.fixture
def echo(tmp_path):
    yield from _opened(tmp_path, kernel=Echo())


@pytest.fixture
def gate(tmp_path):
    kernel = Gate()
    for device in _opened(tmp_path, engines=1, kernel=kernel):
        yield device, kernel
        kernel.opened.set()


def _blocks(n, seed=0):
    shape = (n, boards.TOKENS, boards.HEADS, boards.HEAD_DIM)
    return np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float16)


@pytest.mark.parametrize("scheme", [spec.Scheme.RAW, spec.Scheme.INT8_DELTA_RLE])
def test_the_codec_gives_the_same_bytes_as_on_the_native_device(device, scheme):
    k, v = _blocks(7)
    ids = block_ids(3, np.arange(7) * boards.TOKENS)
    codec = Codec(device, SHAPE, scheme)
    records = codec.encode_arrays(k, v, ids)
    with NativeDevice(1) as native:
        assert records == Codec(native, SHAPE, scheme).encode_arrays(k, v, ids)
        wanted = Codec(native, SHAPE, scheme).decode_arrays(records, ids)
    for got, want in zip(codec.decode_arrays(records, ids), wanted, strict=True):
        assert got.tobytes() == want.tobytes()
    codec.self_test()


def test_tiers_sync_what_they_move(device):
    """The tiers' blocks come back as on the native device, though this one's memory has two sides."""
    k, v = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in _blocks(6))  # (batch, heads, tokens, …)
    every = np.arange(6)
    got = []
    for place in (device, NativeDevice(1)):
        config = TierConfig(2 * SHAPE.block_bytes, 4 * SHAPE.slot_bytes, 1 << 20, "dense")
        with TierManager(place, SHAPE, spec.Scheme.INT4, config, layers=1) as tiers:
            handles = tiers.put(0, every * boards.TOKENS, every, every * 0, StridedKV.of(k, v))
            for _ in range(3):
                out = np.zeros_like(k), np.zeros_like(v)
                tiers.get(handles, every, every * 0, StridedKV.of(*out))
                got.append(out[0].tobytes() + out[1].tobytes())
            assert tiers.stats().misses > 0
    assert len(set(got)) == 1


def test_engines_are_the_compute_units_found(tmp_path):
    with boards.board(tmp_path, engines=3) as overlay:
        assert PynqDevice(overlay).num_engines == 3
        assert PynqDevice(overlay, 2).num_engines == 2
        with pytest.raises(ConfigError, match="num_engines 4: the overlay has 3 compute units"):
            PynqDevice(overlay, 4)
        assert PynqDevice(overlay).abi_id == spec.ABI_ID


def test_completions_keep_the_order_of_descriptors_over_engines(echo):
    with echo.allocate(64) as blocks, echo.allocate(64) as records:
        for count in (0, 1, 2, 5, 33):
            table = np.zeros(count, spec.DESCRIPTOR)
            table["record_offset"] = np.arange(count) * 64
            done = echo.start_compress(blocks, records, table).wait()
            assert done["value"].tolist() == table["record_offset"].tolist()


def test_a_table_over_the_batch_limit_is_cut(echo):
    count = 2 * spec.MAX_BATCH + 3
    table = np.zeros(count, spec.DESCRIPTOR)
    table["record_offset"] = np.arange(count)
    with echo.allocate(64) as blocks, echo.allocate(64) as records:
        done = echo.start_decompress(records, blocks, table).wait()
    assert (done["value"] == np.arange(count)).all()


def test_runs_may_be_waited_for_in_any_order(echo):
    with echo.allocate(64) as blocks, echo.allocate(64) as records:
        runs = []
        for value in range(4):
            table = np.zeros(3, spec.DESCRIPTOR)
            table["record_offset"] = value
            runs.append(echo.start_compress(blocks, records, table))
            table["record_offset"] = 99  # the table was copied
        for value in (2, 0, 3, 1):
            assert runs[value].wait()["value"].tolist() == [value] * 3
            assert runs[value].done()


def test_a_wait_ends_and_may_be_repeated(gate):
    device, kernel = gate
    with device.allocate(64) as blocks, device.allocate(64) as records:
        run = device.start_compress(blocks, records, np.zeros(2, spec.DESCRIPTOR))
    with pytest.raises(DeviceTimeout, match="kv_compress_0: not idle after"):
        run.wait(0.02)
    assert not run.done()
    kernel.opened.set()
    assert len(run.wait()) == 2


def test_buffers_freed_during_a_run_live_until_its_end(gate):
    device, kernel = gate
    blocks, records = device.allocate(64), device.allocate(64)
    run = device.start_compress(blocks, records, np.zeros(1, spec.DESCRIPTOR))
    dram = device.overlay.device.dram
    blocks.free()
    records.free()
    assert dram.live_buffers == 4, "two, and the engine's tables"
    kernel.opened.set()
    run.wait()
    assert dram.live_buffers == 2


def test_syncs_move_their_range_only(device):
    with device.allocate(256) as buffer:
        buffer.array[:] = 1
        buffer.sync_to_device(64, 64)
        buffer.array[:] = 2
        buffer.sync_from_device(0, 192)
        assert [int(buffer.array[i]) for i in (0, 64, 128, 192)] == [0, 1, 0, 2]
        for offset, nbytes in ((-1, 2), (0, 257), (256, 1)):
            with pytest.raises(DeviceBufferError, match="leaves the buffer of 256 bytes"):
                buffer.sync_to_device(offset, nbytes)


def test_the_host_view_is_plain_aligned_and_zero(device):
    with device.allocate(1000) as buffer:
        assert type(buffer.array) is np.ndarray
        assert buffer.array.shape == (1000,)
        assert buffer.array.ctypes.data % spec.LINE_BYTES == 0
        assert not buffer.array.any()
    with pytest.raises(DeviceBufferError, match="used after free"):
        buffer.array  # noqa: B018


def test_a_reserved_pool_of_128_gib_is_cheap(device):
    with device.allocate(128 << 30, reserve=True) as pool:
        pool.array[100 << 30] = 1
        pool.sync_to_device(100 << 30, 64)


def test_foreign_memory_tables_and_closed_devices_are_refused(device):
    table = np.zeros(2, spec.DESCRIPTOR)
    with NativeDevice(1) as native, native.allocate(64) as other, device.allocate(64) as own:
        with pytest.raises(DeviceBufferError, match="not memory of this pynq device"):
            device.start_compress(other, own, table)
        for wrong, text in (
            (np.zeros(2, np.uint8), "not 1-D spec.DESCRIPTOR"),
            (np.zeros((1, 2), spec.DESCRIPTOR), "2-D"),
            (np.zeros(4, spec.DESCRIPTOR)[::2], "not C-contiguous"),
        ):
            with pytest.raises(DeviceError, match=text):
                device.start_compress(own, own, wrong)
    with pytest.raises(DeviceBufferError, match="a buffer of 0 bytes"):
        device.allocate(0)
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.allocate(64)


USER_CODE = """
import numpy as np
from pynq import Device, allocate
from speckv_pynq import spec
from speckv_pynq.device.pynq_overlay import SpeckvOverlay
from tests.runtime.boards import BLOCK_BYTES, SLOT_BYTES, describe

ol = SpeckvOverlay()
blocks, records = allocate(2 * BLOCK_BYTES, "u1"), allocate(2 * SLOT_BYTES, "u1")
descriptors, completions = allocate(2, spec.DESCRIPTOR), allocate(2, spec.COMPLETION)
blocks[:] = 1
descriptors[:] = describe(2)
blocks.sync_to_device(), descriptors.sync_to_device()
done = ol.kv_compress.call(blocks, records, descriptors, completions, count=2, abi_id=spec.ABI_ID)
print(Device.active_device.name, done["status"].tolist(), int(done["record_bytes"][0]) < 1024)
"""


def _python(code, **environment):
    env = {k: v for k, v in os.environ.items() if k != "SPECKV_DEVICE"}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_user_code_for_a_board_runs_unchanged():
    result = _python(USER_CODE, SPECKV_DEVICE="csim")
    assert result.stdout.splitlines() == ["csim [0, 0] True"], result.stderr


def test_csim_is_found_even_when_pynq_probed_first():
    code = "import pynq; assert not pynq.Device.devices" + USER_CODE
    result = _python(code, SPECKV_DEVICE="csim")
    assert result.stdout.splitlines() == ["csim [0, 0] True"], result.stderr


@pytest.mark.skipif(Path("/sys/class/fpga_manager/fpga0").exists(), reason="this is a board")
def test_nothing_is_hijacked_without_the_variable():
    result = _python(USER_CODE)
    assert result.returncode == 1
    assert "no PYNQ device found: run on a board, or set SPECKV_DEVICE=csim" in result.stderr


@pytest.mark.skipif(
    not [e for e in entry_points(group="pynq.overlays") if e.name == "speckv"],
    reason="speckv-pynq is not installed: no entry points",
)
def test_pynq_finds_overlay_and_drivers_by_entry_point():
    code = (
        "import pynq; from speckv_pynq.device import pynq_csim; ol = pynq.Overlay('speckv.bit'); "
    )
    code += "print(type(ol.kv_compress_0).__name__, ol.bitfile_name.rpartition('/')[2])"
    result = _python(code, SPECKV_DEVICE="csim")
    assert result.stdout.splitlines() == ["KvCompress speckv.csim.bit"], result.stderr


def test_memory_of_a_bank_by_its_name(device):
    assert "PSDDR" in device.banks
    with device.allocate(4096, bank="PSDDR") as buffer:
        assert buffer.nbytes == 4096
        assert buffer.belongs_to(device)
    with pytest.raises(ConfigError, match=r"bank 'HBM0': device pynq has .*PSDDR"):
        device.allocate(4096, bank="HBM0")
