"""The codec: shapes and their split, descriptors, records against the reference, errors that name blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq import reference, spec
from speckv_pynq.block import NUMPY_DTYPES
from speckv_pynq.codec import BLOCK_ID, BlockId, BlockShape, Codec, block_ids
from speckv_pynq.device import library
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.errors import AbiMismatch, DeviceError, RecordError, ShapeError
from speckv_pynq.selftest import sample_block
from speckv_pynq.spec import DType, Kind, Scheme, Status
from tests.blocks import make_bits
from tests.records import HEADER_BYTES
from tests.runtime.kernels import table_at

pytestmark = [pytest.mark.requires("libspeckv"), pytest.mark.timeout(60)]
SMALL = BlockShape(16, 2, 64, DType.FP16)
LARGE = BlockShape(64, 67, 128, DType.BF16)  # over 2 MiB: three parts


@pytest.fixture
def device() -> Iterator[CsimDevice]:
    with CsimDevice(2) as opened:
        yield opened
        assert opened.live_buffers == 0


shapes = st.builds(
    BlockShape,
    tokens=st.sampled_from(spec.BLOCK_TOKENS_ALLOWED),
    heads=st.integers(1, 300),
    head_dim=st.sampled_from(spec.HEAD_DIM_ALLOWED),
    dtype=st.sampled_from(DType),
    kinds=st.sampled_from((Kind.KEY, Kind.VALUE, Kind.BOTH)),
)


@given(shapes)
def test_sizes_are_whole_lines(shape: BlockShape) -> None:
    values = shape.tokens * shape.heads * shape.head_dim
    assert shape.kind_bytes == values * NUMPY_DTYPES[shape.dtype].itemsize
    assert shape.block_bytes == shape.kind_bytes * (2 if shape.kinds == Kind.BOTH else 1)
    assert shape.slot_bytes >= shape.block_bytes + HEADER_BYTES
    assert shape.kind_bytes % spec.LINE_BYTES == shape.slot_bytes % spec.LINE_BYTES == 0


@given(shapes, st.integers(4096, spec.MAX_BLOCK_BYTES))
def test_split_covers_all_heads_evenly_in_the_fewest_parts(shape: BlockShape, limit: int) -> None:
    one_head = shape.part(1).block_bytes
    if one_head > limit:
        with pytest.raises(ShapeError, match=f"{one_head} bytes .* limit is {limit}"):
            shape.split(limit)
        return
    parts = shape.split(limit)
    assert [head for first, n in parts for head in range(first, first + n)] == list(
        range(shape.heads)
    )
    sizes = [heads for _, heads in parts]
    assert max(sizes) - min(sizes) <= 1
    assert shape.part(max(sizes)).block_bytes <= limit
    assert len(parts) == 1 or shape.part(-(-shape.heads // (len(parts) - 1))).block_bytes > limit


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tokens": 31}, "tokens 31 is not one of"),
        ({"head_dim": 63}, "head_dim 63 is not one of"),
        ({"heads": 0}, "heads 0 is not within 1..65535"),
        ({"heads": 65536}, "heads 65536"),
        ({"kinds": 0}, "kinds"),
        ({"kinds": 4}, "kinds"),
        ({"dtype": 3}, "dtype 3"),
    ],
)
def test_shapes_that_kernels_refuse(changes: dict[str, int], text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        dataclasses.replace(SMALL, **changes)


def test_a_shape_takes_plain_numbers() -> None:
    shape = BlockShape(16, 2, 64, 1, 3)
    assert (shape.dtype, shape.kinds) == (DType.BF16, Kind.BOTH)


def test_identities_out_of_range_are_refused_not_cut() -> None:
    with pytest.raises(ShapeError, match=r"layer 65536 is not within 0\.\.65535"):
        block_ids(65536, 0)
    with pytest.raises(ShapeError, match="first_position 4294967296"):
        block_ids(0, [0, 1 << 32])
    with pytest.raises(ShapeError, match="layer -1"):
        BlockId(-1, 0)
    assert len(block_ids(0, [])) == 0
    assert block_ids([1, 2], 7)["first_position"].tolist() == [7, 7]


identities = st.lists(
    st.builds(
        BlockId,
        layer=st.integers(0, 65535),
        first_position=st.integers(0, (1 << 32) - 1),
        first_head=st.integers(0, 65535),
        heads=st.integers(0, 200),
    ),
    max_size=5,
)


class NoDevice:
    """Descriptors need none."""

    name = "none"


@given(
    shapes,
    identities,
    st.data(),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([s for s in Scheme if s != Scheme.KLT]),
)
def test_descriptors_say_what_was_asked(
    shape: BlockShape, ids: list[BlockId], data: st.DataObject, layout: int, scheme: Scheme
) -> None:
    if shape.dtype == DType.FP32:
        scheme = Scheme.RAW
    lines = st.lists(st.integers(0, 1 << 40), min_size=len(ids), max_size=len(ids))
    blocks, records = (np.array(data.draw(lines), np.int64) * spec.LINE_BYTES for _ in range(2))
    rows = Codec(NoDevice(), shape, scheme, layout).describe(ids, blocks, records, 4096)
    assert rows.dtype == spec.DESCRIPTOR
    for row, block, at, record in zip(rows, ids, blocks, records, strict=True):
        heads = block.heads or shape.heads
        kind_bytes = shape.part(heads).kind_bytes
        want = {
            "record_offset": record,
            "key_offset": at if shape.kinds & Kind.KEY else 0,
            "value_offset": {Kind.BOTH: at + kind_bytes, Kind.VALUE: at, Kind.KEY: 0}[shape.kinds],
            "record_capacity": 4096,
            "first_position": block.first_position,
            "layout_fingerprint": layout,
            "codebook_fingerprint": 0,
            "tokens": shape.tokens,
            "heads": heads,
            "head_dim": shape.head_dim,
            "first_layer": block.layer,
            "first_head": block.first_head,
            "scheme": scheme,
            "dtype": shape.dtype,
            "kinds": shape.kinds,
            "layer_count": 1,
            "codebook_slot": 0,
        }
        assert {name: int(row[name]) for name in spec.DESCRIPTOR.names} == want


def arrays_of(shape: BlockShape, n: int, case: str) -> list[np.ndarray | None]:
    """K and V, (n, tokens, heads, head_dim) in the shape's NumPy dtype; None for a missing kind."""
    size = (shape.tokens, shape.heads, shape.head_dim)
    out: list[np.ndarray | None] = []
    for seed, kind in ((1, Kind.KEY), (2, Kind.VALUE)):
        if not shape.kinds & kind:
            out.append(None)
        elif shape.dtype == DType.FP32:
            rng = np.random.default_rng(seed)
            out.append(rng.standard_normal((n, *size), np.float32))
        else:
            bits = np.stack([make_bits(case, seed * 100 + i, size, shape.dtype) for i in range(n)])
            out.append(bits.view(NUMPY_DTYPES[shape.dtype]))
    return out


@pytest.mark.parametrize("scheme", [Scheme.RAW, Scheme.INT8_DELTA_RLE, Scheme.INT4])
@pytest.mark.parametrize("kinds", [Kind.KEY, Kind.VALUE, Kind.BOTH])
@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("case", ["runs", "normal"])
def test_records_equal_the_reference(
    device: CsimDevice, scheme: Scheme, kinds: Kind, dtype: DType, case: str
) -> None:
    shape = dataclasses.replace(SMALL, kinds=kinds, dtype=dtype)
    if dtype == DType.FP32 and scheme != Scheme.RAW:
        with pytest.raises(ShapeError, match="not fp32"):
            Codec(device, shape, scheme)
        return
    k, v = arrays_of(shape, 3, case)
    ids = block_ids(7, [0, 16, 4096], 5)
    codec = Codec(device, shape, scheme, 99)
    records = codec.encode_arrays(k, v, ids)
    for i, record in enumerate(records):
        assert record == reference.encode_record(
            None if k is None else k[i],
            None if v is None else v[i],
            scheme,
            dtype=dtype,
            first_layer=7,
            first_head=5,
            first_position=int(ids["first_position"][i]),
            layout_fingerprint=99,
        )
    for sent, got in zip((k, v), codec.decode_arrays(records, ids), strict=True):
        assert (sent is None) == (got is None)
        if sent is not None and got is not None and scheme == Scheme.RAW:
            assert got.tobytes() == sent.tobytes()


def test_a_large_block_is_several_records_and_one_again(device: CsimDevice) -> None:
    codec = Codec(device, LARGE, Scheme.RAW)
    assert codec.parts == [(0, 22), (22, 22), (44, 23)]
    k, v = arrays_of(LARGE, 2, "any_finite")
    ids = [BlockId(0, 0, 20), BlockId(0, 64, 20)]
    records = codec.encode_arrays(k, v, ids)
    want = b"".join(
        reference.encode_record(
            np.ascontiguousarray(k[1, :, first : first + heads]),
            np.ascontiguousarray(v[1, :, first : first + heads]),
            Scheme.RAW,
            dtype=LARGE.dtype,
            first_position=64,
            first_head=20 + first,
        )
        for first, heads in codec.parts
    )
    assert records[1] == want
    back_k, back_v = codec.decode_arrays(records, ids)
    assert back_k.tobytes() == k.tobytes()
    assert back_v.tobytes() == v.tobytes()


def test_many_blocks_go_in_chunks(device: CsimDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec(device, SMALL, Scheme.INT8_DELTA_RLE)
    k, v = arrays_of(SMALL, 7, "runs")
    ids = block_ids(0, np.arange(7) * 16)
    want = codec.encode_arrays(k, v, ids)
    monkeypatch.setattr("speckv_pynq.codec._CHUNK_BYTES", 3 * SMALL.block_bytes)
    assert codec.encode_arrays(k, v, ids) == want
    codec.decode_arrays(want, ids)


def test_no_blocks_at_all(device: CsimDevice) -> None:
    codec = Codec(device, SMALL, Scheme.RAW)
    k, v = arrays_of(SMALL, 1, "zeros")
    assert codec.encode_arrays(k[:0], v[:0], []) == []
    assert codec.decode_arrays([], np.zeros(0, BLOCK_ID))[0].shape == (0, 16, 2, 64)


def test_arrays_that_do_not_fit_the_shape(device: CsimDevice) -> None:
    codec = Codec(device, SMALL, Scheme.RAW)
    k, v = arrays_of(SMALL, 1, "zeros")
    with pytest.raises(ShapeError, match=r"k: \(1, 16, 2, 64\) uint16, not .* float16"):
        codec.encode_arrays(k.view(np.uint16), v, [BlockId(0, 0)])
    with pytest.raises(ShapeError, match=r"v: \(1, 16, 1, 64\)"):
        codec.encode_arrays(k, v[:, :, :1], [BlockId(0, 0)])
    with pytest.raises(ShapeError, match="v: missing"):
        codec.encode_arrays(k, None, [BlockId(0, 0)])
    with pytest.raises(ShapeError, match="2 records for 1"):
        codec.decode_arrays([b"", b""], [BlockId(0, 0)])


def test_asynchronous_calls_and_offsets(device: CsimDevice) -> None:
    codec = Codec(device, SMALL, Scheme.INT8_DELTA_RLE)
    ids = block_ids([3, 4], 32)
    with device.allocate(1 << 20) as blocks, device.allocate(1 << 20) as records:
        k, v = sample_block(SMALL, 0)
        packed = np.concatenate([k, v]).view(np.uint8).reshape(-1)
        for at in (64, 65536):
            blocks.array[at : at + packed.size] = packed
        run = codec.start_encode(blocks, ids, [64, 65536], records, [128, 131072])
        sizes = codec.check(run.wait(), ids, decoding=False)["record_bytes"]
        assert (sizes % spec.LINE_BYTES == 0).all()
        run = codec.start_decode(records, ids, [128, 131072], sizes, blocks, [0, 1 << 19])
        codec.check(run.wait(), ids)
        size = SMALL.block_bytes
        assert blocks.array[:size].tobytes() == blocks.array[1 << 19 :][:size].tobytes()


def test_a_damaged_record_names_its_block(device: CsimDevice) -> None:
    codec = Codec(device, SMALL, Scheme.RAW)
    k, v = arrays_of(SMALL, 3, "normal")
    ids = block_ids(9, [0, 16, 32], 4)
    records = codec.encode_arrays(k, v, ids)
    bad = bytearray(records[1])
    bad[500] ^= 16
    with pytest.raises(RecordError) as caught:
        codec.decode_arrays([records[0], bytes(bad), records[2]], ids)
    text = str(caught.value)
    assert text.startswith("block of layer 9, positions 16..31, heads 4..5: bad_crc 0x")
    assert "record damaged; refetch the block" in text
    assert caught.value.status == Status.BAD_CRC
    assert caught.value.value != caught.value.limit


@pytest.mark.parametrize(
    ("ids", "layout", "status"),
    [
        (block_ids(0, [16, 0]), 0, Status.IDENTITY_MISMATCH),
        (block_ids(1, [0, 16]), 0, Status.IDENTITY_MISMATCH),
        (block_ids(0, [0, 16], 1), 0, Status.IDENTITY_MISMATCH),
        (block_ids(0, [0, 16]), 1, Status.LAYOUT_MISMATCH),
    ],
)
def test_another_blocks_record_is_refused(
    device: CsimDevice, ids: np.ndarray, layout: int, status: Status
) -> None:
    k, v = arrays_of(SMALL, 2, "normal")
    records = Codec(device, SMALL, Scheme.RAW).encode_arrays(k, v, block_ids(0, [0, 16]))
    with pytest.raises(RecordError, match=rf"and 1 more of 2.*{status.name.lower()}") as caught:
        Codec(device, SMALL, Scheme.RAW, layout).decode_arrays(records, ids)
    assert caught.value.status == status


@pytest.mark.parametrize("cut", [0, 1, 63, 64, 65, 4096])
def test_a_record_cut_short_or_too_long(device: CsimDevice, cut: int) -> None:
    codec = Codec(device, SMALL, Scheme.RAW)
    k, v = arrays_of(SMALL, 1, "normal")
    record = codec.encode_arrays(k, v, [BlockId(0, 0)])[0]
    for damaged in (record[:cut], record + bytes(64)):
        with pytest.raises(RecordError):
            codec.decode_arrays([damaged], [BlockId(0, 0)])


@settings(max_examples=30)
@given(st.data())
def test_any_header_damage_is_an_error_never_a_block(data: st.DataObject) -> None:
    with CsimDevice(1) as device:
        codec = Codec(device, LARGE if data.draw(st.booleans()) else SMALL, Scheme.RAW)
        k, v = sample_block(codec.shape, 0)
        record = bytearray(codec.encode_arrays(k, v, [BlockId(0, 0)])[0])
        record[data.draw(st.integers(0, HEADER_BYTES - 1))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(RecordError):
            codec.decode_arrays([bytes(record)], [BlockId(0, 0)])
        assert device.live_buffers == 0


@pytest.mark.parametrize(
    ("status", "decoding", "error", "text"),
    [
        (Status.ABI_MISMATCH, True, AbiMismatch, "rebuild"),
        (Status.MISALIGNED, False, DeviceError, "multiples of 64"),
        (Status.OUT_OF_RANGE, True, DeviceError, "leaves its buffer"),
        (Status.BAD_SCHEME, False, DeviceError, "does not have the scheme"),
        (Status.BAD_SCHEME, True, RecordError, "not one of this device"),
        (Status.BAD_SHAPE, True, ShapeError, "shape that kernels accept"),
        (Status.BLOCK_TOO_LARGE, False, ShapeError, "split"),
        (Status.RECORD_TOO_SMALL, False, DeviceError, "slot needs 8256 bytes"),
        (Status.RECORD_TOO_SMALL, True, RecordError, "refetch"),
        (Status.BAD_CRC, False, DeviceError, "device and package differ"),
        (Status.CODEBOOK_MISMATCH, True, RecordError, "0x2a, limit 0x2b.*codebook"),
        (Status.BUS_ERROR, True, DeviceError, "memory answered"),
        (77, True, DeviceError, "unknown status 77"),
    ],
)
def test_each_status_has_its_error(
    status: int, decoding: bool, error: type[Exception], text: str
) -> None:
    codec = Codec(NoDevice(), SMALL, Scheme.RAW)
    done = np.zeros(3, spec.COMPLETION)
    done[2] = (status, 0, 0, 42, 43)
    with pytest.raises(error, match=rf"^block of layer 2, positions 32\.\.47.*{text}"):
        codec.check(done, block_ids([0, 1, 2], [0, 16, 32]), decoding=decoding)
    assert codec.check(done[:2], block_ids([0, 1], 0), decoding=decoding) is not None


@pytest.mark.parametrize("status", [s for s in Status if s])
@pytest.mark.parametrize("decoding", [False, True])
def test_every_status_is_an_error(status: Status, decoding: bool) -> None:
    done = np.zeros(1, spec.COMPLETION)
    done["status"] = status
    with pytest.raises((DeviceError, RecordError, ShapeError, AbiMismatch), match="block of"):
        Codec(NoDevice(), SMALL, Scheme.RAW).check(done, [BlockId(0, 0)], decoding=decoding)


@pytest.mark.parametrize("scheme", [Scheme.RAW, Scheme.INT8_DELTA_RLE, Scheme.INT4])
@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16])
def test_self_test_passes(device: CsimDevice, scheme: Scheme, dtype: DType) -> None:
    for shape in (SMALL, LARGE, dataclasses.replace(SMALL, kinds=Kind.VALUE)):
        Codec(device, dataclasses.replace(shape, dtype=dtype), scheme).self_test()


def test_self_test_finds_a_kernel_that_does_nothing() -> None:
    broken = dataclasses.replace(library.load(), kv_decompress=lambda *_: 0)
    with CsimDevice(1, broken) as device:
        with pytest.raises(DeviceError, match=r"self-test of csim, scheme raw.*same bytes"):
            Codec(device, SMALL, Scheme.RAW).self_test()
        with pytest.raises(DeviceError, match="relative error"):
            Codec(device, SMALL, Scheme.INT8_DELTA_RLE).self_test()


def test_self_test_finds_a_checksum_that_is_not_checked() -> None:
    native = library.load()

    def trusting(*arguments: int) -> int:
        """Decodes as always, but calls a wrong checksum ok."""
        status = native.kv_decompress(*arguments)
        done = table_at(arguments[7], arguments[8], spec.COMPLETION)
        done["status"][done["status"] == Status.BAD_CRC] = Status.OK
        return status

    with CsimDevice(1, dataclasses.replace(native, kv_decompress=trusting)) as device:
        codec = Codec(device, SMALL, Scheme.RAW)
        with pytest.raises(DeviceError, match="a wrong bit was decoded"):
            codec.self_test()
