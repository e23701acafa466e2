"""Scheme klt through the codec: the codebook on the device, slots of layers, records against the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from speckv_pynq import reference, spec
from speckv_pynq.block import NUMPY_DTYPES
from speckv_pynq.codebook import Codebook
from speckv_pynq.codec import BlockId, BlockShape, Codec, LoadedCodebook, block_ids
from speckv_pynq.device import library
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import (
    CodebookError,
    ConfigError,
    DeviceBufferError,
    DeviceError,
    RecordError,
    ShapeError,
)
from speckv_pynq.spec import DType, Kind, Scheme, Status
from tests.codebooks import Shape, random_codebook
from tests.runtime.kernels import Gate, device_with, large_table, table_at

pytestmark = [pytest.mark.requires("libspeckv"), pytest.mark.timeout(60)]
HEADS, HEAD_DIM = 2, 64
SHAPE = BlockShape(16, HEADS, HEAD_DIM, DType.FP16)
BOOK = random_codebook(0, Shape(HEADS, HEAD_DIM), units=3, first_layer=4)


@pytest.fixture
def device() -> Iterator[CsimDevice]:
    with CsimDevice(2) as opened:
        yield opened
        assert opened.live_buffers == 0


def block_arrays(shape: BlockShape, n: int, spread: float = 1.0) -> list[np.ndarray | None]:
    """Normal values in the shape's dtype, (n, tokens, heads, head_dim) a kind; None for a missing kind."""
    rng = np.random.default_rng(7)
    size = (n, shape.tokens, shape.heads, shape.head_dim)
    out: list[np.ndarray | None] = []
    for kind in (Kind.KEY, Kind.VALUE):
        values = (spread * rng.standard_normal(size)).astype(np.float32)
        if shape.dtype == DType.BF16:
            bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        else:
            bits = values.astype(np.float16)
        out.append(bits if shape.kinds & kind else None)
    return out


def expected(codec: Codec, book: Codebook, k, v, i: int, layer: int, position: int) -> bytes:
    return reference.encode_record(
        None if k is None else k[i],
        None if v is None else v[i],
        codec.scheme,
        dtype=codec.shape.dtype,
        codebook=book,
        first_layer=layer,
        layer_count=book.layer_count,
        first_position=position,
        layout_fingerprint=codec.layout_fingerprint,
        codebook_fingerprint=book.fingerprint,
    )


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16])
@pytest.mark.parametrize(
    "made",
    [
        Shape(HEADS, HEAD_DIM),
        Shape(HEADS, HEAD_DIM, transforms=2),
        Shape(HEADS, HEAD_DIM, transforms=2, apart=True, interleaved=True),
        Shape(HEADS, HEAD_DIM, kinds=Kind.VALUE),
        Shape(HEADS, HEAD_DIM, kinds=Kind.KEY, pairs=16),
        Shape(3 * HEADS, HEAD_DIM, layer_count=3),
    ],
)
def test_records_equal_the_reference(device: CsimDevice, dtype: DType, made: Shape) -> None:
    book = random_codebook(1, made, units=2)
    shape = BlockShape(16, made.heads, HEAD_DIM, dtype, made.kinds)
    k, v = block_arrays(shape, 4)
    layers = np.array([0, made.layer_count, 0, made.layer_count])
    positions = np.array([0, 16, 32, 70000])
    ids = block_ids(layers, positions)
    with LoadedCodebook(device, book) as loaded:
        codec = Codec(device, shape, Scheme.KLT, 99, loaded)
        records = codec.encode_arrays(k, v, ids)
        for i, record in enumerate(records):
            assert record == expected(codec, book, k, v, i, int(layers[i]), int(positions[i]))
        got = codec.decode_arrays(records, ids)
        info = reference.BlockInfo(
            *(16, made.heads, HEAD_DIM, dtype, made.kinds),
            first_layer=made.layer_count,
            layer_count=made.layer_count,
            first_position=16,
            layout_fingerprint=99,
            codebook_fingerprint=book.fingerprint,
        )
        for mine, theirs in zip(got, reference.decode_record(records[1], info, book), strict=True):
            assert (mine is None) == (theirs is None)
            assert mine is None or mine[1].tobytes() == theirs.tobytes()
        headers = [np.frombuffer(r, spec.RECORD_HEADER, 1)[0] for r in records]
        assert Scheme.KLT in {int(h["scheme"]) for h in headers}
        codec.self_test()


@pytest.mark.parametrize(("spread", "scheme"), [(1.0, Scheme.KLT), (1e3, Scheme.INT4)])
def test_a_block_beyond_the_calibrated_range_is_int4(
    device: CsimDevice, spread: float, scheme: Scheme
) -> None:
    k, v = block_arrays(SHAPE, 1, spread)
    with LoadedCodebook(device, BOOK) as loaded:
        codec = Codec(device, SHAPE, Scheme.KLT, 0, loaded)
        (record,) = codec.encode_arrays(k, v, [BlockId(4, 0)])
        assert np.frombuffer(record, spec.RECORD_HEADER, 1)["scheme"][0] == scheme
        assert record == expected(codec, BOOK, k, v, 0, 4, 0)
        codec.decode_arrays([record], [BlockId(4, 0)])


def test_a_block_that_is_not_finite_is_raw(device: CsimDevice) -> None:
    k, v = block_arrays(SHAPE, 1)
    k[0, 3, 1, 5] = np.inf
    with LoadedCodebook(device, BOOK) as loaded:
        codec = Codec(device, SHAPE, Scheme.KLT, 0, loaded)
        records = codec.encode_arrays(k, v, [BlockId(4, 0)])
        back = codec.decode_arrays(records, [BlockId(4, 0)])
    assert back[0].tobytes() == k.tobytes()
    assert back[1].tobytes() == v.tobytes()


def test_descriptors_name_slot_layers_and_codebook(device: CsimDevice) -> None:
    book = random_codebook(2, Shape(2 * HEADS, HEAD_DIM, layer_count=2), units=3)
    with LoadedCodebook(device, book) as loaded:
        codec = Codec(device, SHAPE.part(2 * HEADS), Scheme.KLT, 5, loaded)
        rows = codec.describe(block_ids([4, 0, 2], 16), [0, 64, 128], 0, 4096)
    assert rows["codebook_slot"].tolist() == [2, 0, 1]
    assert rows["first_layer"].tolist() == [4, 0, 2]
    assert set(rows["layer_count"].tolist()) == {2}
    assert set(rows["heads"].tolist()) == {2 * HEADS}
    assert set(rows["codebook_fingerprint"].tolist()) == {book.fingerprint}


@pytest.mark.parametrize("layer", [0, 3, 7, 65535])
def test_a_layer_without_a_unit(device: CsimDevice, layer: int) -> None:
    k, v = block_arrays(SHAPE, 2)
    with LoadedCodebook(device, BOOK) as loaded:
        codec = Codec(device, SHAPE, Scheme.KLT, 0, loaded)
        with pytest.raises(CodebookError, match=f"begin with layer {layer}; .* layers 4, 5, 6"):
            codec.encode_arrays(k, v, block_ids([4, layer], 0))


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (SHAPE.part(3), "has heads 2 for records of 1 layers from 4 on, blocks have 3"),
        (dataclasses.replace(SHAPE, head_dim=128), "has head_dim 64 .* have 128"),
        (dataclasses.replace(SHAPE, kinds=Kind.KEY), "has kinds 3 .* have 1"),
    ],
)
def test_a_codebook_of_another_shape(device: CsimDevice, shape: BlockShape, text: str) -> None:
    with LoadedCodebook(device, BOOK) as loaded, pytest.raises(CodebookError, match=text):
        Codec(device, shape, Scheme.KLT, 0, loaded)


def test_klt_without_a_codebook_says_how_to_get_one(device: CsimDevice) -> None:
    with pytest.raises(ConfigError, match="`speckv calibrate"):
        Codec(device, SHAPE, Scheme.KLT)


def test_klt_blocks_are_not_split(device: CsimDevice) -> None:
    with LoadedCodebook(device, BOOK) as loaded:
        with pytest.raises(ShapeError, match=r"2228224 bytes.*1048576.*not split"):
            Codec(device, BlockShape(64, 136, 64, DType.FP16), Scheme.KLT, 0, loaded)
        with pytest.raises(ShapeError, match="not fp32"):
            Codec(device, dataclasses.replace(SHAPE, dtype=DType.FP32), Scheme.KLT, 0, loaded)


def test_records_of_another_codebook_are_refused(device: CsimDevice) -> None:
    other = random_codebook(3, Shape(HEADS, HEAD_DIM), units=3, first_layer=4)
    k, v = block_arrays(SHAPE, 1)
    ids = [BlockId(5, 32)]
    with LoadedCodebook(device, BOOK) as mine, LoadedCodebook(device, other) as theirs:
        records = Codec(device, SHAPE, Scheme.KLT, 0, theirs).encode_arrays(k, v, ids)
        for codec in (
            Codec(device, SHAPE, Scheme.KLT, 0, mine),
            Codec(device, SHAPE, Scheme.INT4),
        ):
            with pytest.raises(
                RecordError, match=r"layer 5, positions 32\.\.47.*made with another codebook"
            ) as caught:
                codec.decode_arrays(records, ids)
            assert caught.value.status == Status.CODEBOOK_MISMATCH


def test_a_damaged_record_names_its_layers(device: CsimDevice) -> None:
    book = random_codebook(4, Shape(2 * HEADS, HEAD_DIM, layer_count=2), units=2)
    shape = SHAPE.part(2 * HEADS)
    k, v = block_arrays(shape, 1)
    with LoadedCodebook(device, book) as loaded:
        codec = Codec(device, shape, Scheme.KLT, 0, loaded)
        damaged = bytearray(codec.encode_arrays(k, v, [BlockId(2, 16)])[0])
        damaged[100] ^= 4
        with pytest.raises(RecordError, match=r"layers 2\.\.3, positions 16\.\.31, .*bad_crc"):
            codec.decode_arrays([bytes(damaged)], [BlockId(2, 16)])


def test_codecs_share_a_codebook_and_it_ends_with_its_owner(device: CsimDevice) -> None:
    k, v = block_arrays(SHAPE, 1)
    with LoadedCodebook(device, BOOK) as loaded:
        codecs = [Codec(device, SHAPE, Scheme.KLT, 0, loaded) for _ in range(2)]
        records = codecs[0].encode_arrays(k, v, [BlockId(4, 0)])
        codecs[1].decode_arrays(records, [BlockId(4, 0)])
        assert device.live_bytes == len(BOOK.image)
    loaded.close()
    with pytest.raises(DeviceBufferError, match="after free"):
        codecs[0].decode_arrays(records, [BlockId(4, 0)])


def test_the_image_reaches_the_kernel_and_lives_until_the_run_ends() -> None:
    seen: list[tuple[bytes, bytes]] = []

    class Kernel(Gate):
        def __call__(self, *arguments: int) -> int:
            address, nbytes = arguments[4:6]
            status = super().__call__(*arguments)
            image = table_at(address, nbytes, np.dtype(np.uint8)).tobytes() if address else b""
            seen.append((image, b"" if address else bytes(nbytes)))
            return status

    gate = Kernel()
    with device_with(gate) as device, device.allocate(64) as buffer:
        loaded = LoadedCodebook(device, BOOK)
        run = device.start_compress(buffer, buffer, large_table(2), loaded.buffer)
        assert gate.entered.wait(10)
        loaded.close()
        assert device.live_buffers == 2
        gate.opened.set()
        run.wait()
        assert device.live_buffers == 1
        device.start_decompress(buffer, buffer, large_table(1)).wait()
    assert seen == [(BOOK.image, b""), (b"", b"")]


def test_self_test_finds_a_wrong_decoder() -> None:
    native = library.load()

    def wrong(*arguments: int) -> int:
        """Decodes as always, then changes a value."""
        status = native.kv_decompress(*arguments)
        table = table_at(arguments[6], arguments[8], spec.DESCRIPTOR)
        at = arguments[2] + int(table["value_offset"][0])
        table_at(at, 1, np.dtype(np.uint16))[:] ^= 1
        return status

    with CsimDevice(1, dataclasses.replace(native, kv_decompress=wrong)) as device:
        loaded = LoadedCodebook(device, BOOK)
        with pytest.raises(DeviceError, match="klt: v is not what the reference decodes"):
            Codec(device, SHAPE, Scheme.KLT, 0, loaded).self_test()


def test_on_a_board(tmp_path: Path) -> None:
    pytest.importorskip("pynq")
    from speckv_pynq.device.pynq_device import PynqDevice
    from tests.runtime import boards

    k, v = block_arrays(SHAPE, 5)
    ids = block_ids([4, 5, 6, 4, 5], np.arange(5) * 16)
    with boards.board(tmp_path, engines=2) as overlay, PynqDevice(overlay) as device:
        loaded = LoadedCodebook(device, BOOK)
        codec = Codec(device, SHAPE, Scheme.KLT, 3, loaded)
        records = codec.encode_arrays(k, v, ids)
        for i, row in enumerate(ids):
            want = expected(codec, BOOK, k, v, i, int(row["layer"]), int(row["first_position"]))
            assert records[i] == want
        got = codec.decode_arrays(records, ids)
        assert got[0].dtype == NUMPY_DTYPES[DType.FP16]
        codec.self_test()
