"""SpeckvDriver on csim and on the overlay: the same bytes as from the device itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.block import BlockShape, block_ids
from speckv_pynq.codec import Codec
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.device.protocol import Device
from speckv_pynq.driver import SpeckvDriver, command
from speckv_pynq.errors import DeviceError, RecordError
from speckv_pynq.spec import CommandFlag, CommandStatus, Move, Opcode, Parameter, Scheme

pytestmark = pytest.mark.timeout(60)
SHAPE = BlockShape(32, 2, 64, spec.DType.FP16)
BLOCK_BYTES, SLOT_BYTES = SHAPE.block_bytes, SHAPE.slot_bytes
COUNT = 5
REAL = [
    pytest.param("csim", marks=pytest.mark.requires("libspeckv")),
    pytest.param("pynq", marks=pytest.mark.requires("libspeckv", "pynq")),
]


@contextlib.contextmanager
def opened(kind: str, directory: Path) -> Iterator[Device]:
    if kind == "csim":
        with CsimDevice(2) as device:
            yield device
        return
    from speckv_pynq.device.pynq_device import PynqDevice
    from tests.runtime.boards import board

    with board(directory, engines=2) as overlay, PynqDevice(overlay) as device:
        yield device


class Blocks:
    """Random blocks, record slots, a way back, descriptors and results on a device."""

    def __init__(self, device: Device, driver: SpeckvDriver, seed: int = 3) -> None:
        sizes = [COUNT * BLOCK_BYTES, COUNT * SLOT_BYTES, COUNT * BLOCK_BYTES, COUNT * 64, 4096]
        self.buffers = [device.allocate(size) for size in sizes]
        self.blocks, self.records, self.back, self.table, self.results = self.buffers
        self.numbers = [driver.register(buffer) for buffer in self.buffers]
        values = np.random.default_rng(seed).integers(-9, 9, COUNT * BLOCK_BYTES // 2)
        self.blocks.array[:] = values.astype(np.float16).view(np.uint8)
        at = np.arange(COUNT)
        codec = Codec(device, SHAPE, Scheme.INT8_DELTA_RLE)
        self.rows = codec.describe(
            block_ids(0, at * SHAPE.tokens), at * BLOCK_BYTES, at * SLOT_BYTES, SLOT_BYTES
        )
        self.table.array[:] = self.rows.view(np.uint8)
        self.blocks.sync_to_device()

    @property
    def encode(self) -> dict[str, int]:
        source, target, _, table, results = self.numbers
        return {
            "move": Move.COMPRESS,
            "source": source,
            "target": target,
            "descriptors": table,
            "results": results,
            "count": COUNT,
        }

    @property
    def decode(self) -> dict[str, int]:
        _, source, target, _, _ = self.numbers
        return {**self.encode, "move": Move.DECOMPRESS, "source": source, "target": target}

    @property
    def done(self) -> np.ndarray:
        return self.results.array.view(spec.COMPLETION)[:COUNT]


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize("opcode", [Opcode.DMA_BATCH, Opcode.PREFETCH])
def test_blocks_there_and_back_equal_what_the_device_does_itself(
    kind: str, opcode: Opcode, tmp_path: Path
) -> None:
    with opened(kind, tmp_path) as device, SpeckvDriver(device) as driver:
        data = Blocks(device, driver)
        want = device.start_compress(data.blocks, data.records, data.rows).wait()
        data.records.sync_from_device()
        records = data.records.array.tobytes()
        device.start_decompress(data.records, data.back, data.rows).wait()
        data.back.sync_from_device()
        decoded = data.back.array.tobytes()
        data.records.array[:] = data.back.array[:] = 0
        data.records.sync_to_device()
        data.back.sync_to_device()
        driver.set_param(Parameter.PREFETCH_SLICE, 2)

        driver.submit(command(opcode, tag=7, **data.encode))
        done = driver.wait(7).check()
        assert (done.tag, done.opcode, done.bytes) == (7, opcode, want["record_bytes"].sum())
        assert data.done.tobytes() == want.tobytes()
        driver.submit(command(opcode, tag=8, **data.decode))
        assert driver.wait(8).check().row["blocks"] == COUNT
        data.records.sync_from_device()
        data.back.sync_from_device()
        assert data.records.array.tobytes() == records
        assert data.back.array.tobytes() == decoded


@pytest.mark.parametrize("kind", REAL)
def test_the_scheme_of_set_param_is_that_of_default_scheme(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as device, SpeckvDriver(device) as driver:
        data = Blocks(device, driver)
        sizes = {}
        for scheme in (Scheme.RAW, Scheme.INT4):
            driver.set_param(Parameter.COMPRESSION_SCHEME, scheme)
            tag = driver.dma_batch(flags=CommandFlag.DEFAULT_SCHEME, **data.encode)
            sizes[scheme] = driver.wait(tag).check().bytes
            data.records.sync_from_device()
            header = data.records.array[: spec.RECORD_HEADER.itemsize].view(spec.RECORD_HEADER)
            assert header["scheme"][0] == scheme
        assert sizes[Scheme.INT4] < sizes[Scheme.RAW] == COUNT * SLOT_BYTES
        assert data.table.array.tobytes() == data.rows.tobytes()


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.parametrize("slice_rows", [1, 2, 100])
def test_a_damaged_record_is_named_and_the_ring_goes_on(
    kind: str, slice_rows: int, tmp_path: Path
) -> None:
    with opened(kind, tmp_path) as device, SpeckvDriver(device) as driver:
        data = Blocks(device, driver)
        driver.set_param(Parameter.PREFETCH_SLICE, slice_rows)
        driver.wait(driver.dma_batch(**data.encode)).check()
        for bad in (2, 4):
            data.records.sync_from_device()
            data.records.array[bad * SLOT_BYTES + 100] ^= 1
            data.records.sync_to_device()
        done = driver.wait(driver.prefetch(**data.decode))
        assert done.status is CommandStatus.FAILED_BLOCKS
        assert (int(done.row["failed"]), int(done.row["first_failed"])) == (2, 2)
        assert np.flatnonzero(data.done["status"]).tolist() == [2, 4]
        with pytest.raises(RecordError, match="2 of 5 blocks failed, first 2: bad_crc") as caught:
            done.check()
        assert caught.value.status == spec.Status.BAD_CRC
        driver.wait(driver.dma_batch(**data.encode)).check()
        driver.wait(driver.dma_batch(**data.decode)).check()


@pytest.mark.parametrize("kind", REAL)
def test_threads_that_share_a_driver_get_their_own_bytes(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as device, SpeckvDriver(device) as driver:
        alone = []
        for seed in range(4):
            data = Blocks(device, driver, seed)
            done = device.start_compress(data.blocks, data.records, data.rows).wait()
            device.start_decompress(data.records, data.back, data.rows).wait()
            data.back.sync_from_device()
            alone.append((done.tobytes(), data.back.array.tobytes()))

        def there_and_back(owner: int) -> tuple[bytes, bytes]:
            data = Blocks(device, driver, owner)
            for _ in range(5):
                data.back.array[:] = 0
                data.back.sync_to_device()
                driver.wait(driver.dma_batch(owner=owner, **data.encode), owner=owner).check()
                coded = data.done.tobytes()
                driver.wait(driver.prefetch(owner=owner, **data.decode), owner=owner).check()
            data.back.sync_from_device()
            return coded, data.back.array.tobytes()

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(there_and_back, range(4))) == alone


@pytest.mark.parametrize("kind", REAL)
def test_a_device_closed_first_is_a_typed_end(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path) as device, SpeckvDriver(device) as driver:
        data = Blocks(device, driver)
        driver.wait(driver.dma_batch(**data.encode)).check()
        device.close()
        with pytest.raises(DeviceError):
            driver.wait(driver.dma_batch(**data.encode)).check()
