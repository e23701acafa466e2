"""Pack and unpack: every conversion bit by bit, strides, parts, bounds, workers."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from speckv_pynq.block import NUMPY_DTYPES
from speckv_pynq.errors import ShapeError
from speckv_pynq.native import SlotLayout, Workers, pack_blocks, unpack_blocks
from speckv_pynq.spec import DTYPE_BYTES, DType
from speckv_pynq.tiers import StridedKV

pytestmark = pytest.mark.requires("libspeckv")
WORD = {DType.FP16: np.uint16, DType.BF16: np.uint16, DType.FP32: np.uint32}
SENTINEL = 0xA5


def fp32_cases() -> np.ndarray:
    """fp32 bit patterns: every fp16 and bf16 value, midpoints, neighbours, NaNs, noise."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    middles = (halves[:-1].astype(np.uint64) + halves[1:]) // 2
    brains = np.arange(0x7F81, dtype=np.uint64) << 16
    edges = np.concatenate([halves.astype(np.uint64), middles, brains, brains + 0x8000])
    nans = np.array([0x7F800001, 0x7F801FFF, 0x7F802000, 0x7FC00000, 0x7FFFFFFF, 0x7FBFFFFF])
    overflow = np.array([0x477FEFFF, 0x477FF000, 0x477FF001])
    noise = np.random.default_rng(3).integers(0, 1 << 31, 20000)
    magnitudes = np.concatenate([edges - (edges > 0), edges, edges + 1, nans, overflow, noise])
    words = magnitudes.astype(np.uint32)
    return np.concatenate([words, words | np.uint32(0x80000000)])


def cases(dtype: DType) -> np.ndarray:
    if dtype is DType.FP32:
        return fp32_cases()
    return np.arange(1 << 16, dtype=np.uint16)


def widen(bits: np.ndarray, dtype: DType) -> np.ndarray:
    """What fp32 bits a word stands for: NaNs quiet when they come from fp16."""
    if dtype is DType.FP32:
        return bits
    if dtype is DType.BF16:
        return bits.astype(np.uint32) << 16
    with np.errstate(invalid="ignore"):
        wide = bits.view(np.float16).astype(np.float32).view(np.uint32)
    nan = (bits & 0x7FFF) > 0x7C00
    payload = (bits & 0x8000).astype(np.uint32) << 16 | (bits & 0x3FF).astype(np.uint32) << 13
    return np.where(nan, payload | 0x7FC00000, wide)


def narrow(bits: np.ndarray, dtype: DType) -> tuple[np.ndarray, int]:
    """fp32 bits to words, and how many finite ones became infinite."""
    if dtype is DType.FP32:
        return bits, 0
    magnitude = bits & 0x7FFFFFFF
    nan = magnitude > 0x7F800000
    sign = (bits >> 16 & 0x8000).astype(np.uint16)
    if dtype is DType.FP16:
        with np.errstate(over="ignore", invalid="ignore"):
            words = bits.view(np.float32).astype(np.float16).view(np.uint16)
        words = np.where(nan, sign | 0x7E00 | (magnitude >> 13 & 0x3FF), words).astype(np.uint16)
        infinite = (words & 0x7FFF) == 0x7C00
    else:
        wide = bits.astype(np.uint64)
        words = ((wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)
        words = np.where(nan, bits >> 16 | 0x40, words).astype(np.uint16)
        infinite = (words & 0x7FFF) == 0x7F80
    return words, int(np.count_nonzero(infinite & (magnitude < 0x7F800000)))


def convert(bits: np.ndarray, source: DType, target: DType) -> tuple[np.ndarray, int]:
    return (bits, 0) if source is target else narrow(widen(bits, source), target)


@pytest.mark.parametrize("portable", [False, True], ids=["best", "portable"])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(DType, DType)))
def test_every_conversion_is_exact(source: DType, target: DType, portable: bool) -> None:
    layout = SlotLayout(16, 1, 64, target)
    per_block = 16 * 64
    bits = cases(source)
    bits = np.concatenate([bits, np.zeros(-len(bits) % per_block, bits.dtype)])
    count = len(bits) // per_block
    want, overflows = convert(bits, source, target)
    tensor = bits.view(NUMPY_DTYPES[source]).reshape(1, 1, -1, 64)
    rows, tokens = np.zeros(count, np.uint32), np.arange(count, dtype=np.uint32) * 16

    slots = np.zeros(want.nbytes, np.uint8)
    offsets = np.arange(count, dtype=np.uint64) * np.uint64(per_block * DTYPE_BYTES[target])
    key = StridedKV.of(tensor, None, dtype=source).key
    packed = pack_blocks(slots, offsets, layout, key, None, rows, tokens, portable=portable)
    assert slots.tobytes() == want.tobytes()
    assert packed == overflows

    out = np.zeros(tensor.shape, NUMPY_DTYPES[target])
    offsets = np.arange(count, dtype=np.uint64) * np.uint64(per_block * DTYPE_BYTES[source])
    key = StridedKV.of(out, None, dtype=target).key
    back = SlotLayout(16, 1, 64, source)
    unpacked = unpack_blocks(
        bits.view(np.uint8), offsets, back, key, None, rows, tokens, portable=portable
    )
    assert out.tobytes() == want.tobytes()
    assert unpacked == overflows


def strided(axes: tuple[int, int, int], sizes: tuple[int, int, int, int]) -> np.ndarray:
    """A float32 tensor of these sizes whose first three axes lie in memory in the order `axes`."""
    rng = np.random.default_rng(5)
    memory = rng.standard_normal((*(sizes[a] for a in axes), sizes[3] + 8)).astype(np.float32)
    return memory[..., : sizes[3]].transpose(*np.argsort(axes), 3)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("threads", [1, 3])
def test_strides_rows_and_parts(axes: tuple[int, int, int], threads: int) -> None:
    tokens, heads, head_dim = 32, 5, 80
    k, v = strided(axes, (3, heads, 200, head_dim)), strided(axes, (3, heads, 200, head_dim)) + 1
    rows, first = np.array([2, 0, 1, 2, 0]), np.array([0, 168, 7, 33, 100])
    first_head, part_heads = 1, 3
    layout = SlotLayout(tokens, part_heads, head_dim, DType.FP16, first_head)
    block = 2 * tokens * part_heads * head_dim * 2
    offsets = np.array([3, 0, 5, 1, 2]) * (block + 128) + 64
    slots = np.full(6 * (block + 128), SENTINEL, np.uint8)
    source, workers = StridedKV.of(k, v), Workers(threads)
    pack_blocks(slots, offsets, layout, source.key, source.value, rows, first, workers)

    want = np.full_like(slots, SENTINEL)
    out_k, out_v = np.zeros_like(k), np.zeros_like(v)
    want_k, want_v = np.zeros_like(k), np.zeros_like(v)
    for offset, row, token in zip(offsets, rows, first, strict=True):
        where = (row, slice(first_head, first_head + part_heads), slice(token, token + tokens))
        halves = [x[where].astype(np.float16) for x in (k, v)]
        data = b"".join(np.ascontiguousarray(x.transpose(1, 0, 2)).tobytes() for x in halves)
        want[offset : offset + block] = np.frombuffer(data, np.uint8)
        want_k[where], want_v[where] = halves
    assert slots.tobytes() == want.tobytes()

    target = StridedKV.of(out_k, out_v)
    unpack_blocks(slots, offsets, layout, target.key, target.value, rows, first, workers)
    assert out_k.tobytes() == want_k.tobytes()
    assert out_v.tobytes() == want_v.tobytes()
    workers.close()


@pytest.mark.parametrize(
    ("row", "token", "offset", "what"),
    [
        (2, 0, 0, "element 1: 2 against the limit 2"),
        (0, 33, 0, "element 1: 65 against the limit 64"),
        (0, 0, 8192, "element 1: 8192 against"),
        (0, 0, 32, "element 1: 32 against the limit 64"),
        (0, 0, 1 << 63, "element 1"),
    ],
)
def test_outside_is_refused_and_nothing_written(
    row: int, token: int, offset: int, what: str
) -> None:
    tensor = np.ones((2, 1, 64, 64), np.float32)
    slots = np.zeros(2 * 8192 - 64, np.uint8)
    kv = StridedKV.of(tensor, tensor.copy())
    layout = SlotLayout(32, 1, 64, DType.FP16)
    rows, tokens = np.array([0, row]), np.array([0, token])
    offsets = np.array([0, offset], np.uint64)
    for move in (pack_blocks, unpack_blocks):
        with pytest.raises(ValueError, match=what):
            move(slots, offsets, layout, kv.key, kv.value, rows, tokens)
    assert not slots.any()
    assert (tensor == 1).all()


def test_workers_are_shared_by_callers_without_harm() -> None:
    layout = SlotLayout(32, 4, 128, DType.FP16)
    n, block = 40, 2 * 32 * 4 * 128 * 2
    slots = np.random.default_rng(1).standard_normal(n * block // 2).astype(np.float16)
    offsets = np.arange(n) * block
    rows, tokens = np.zeros(n, np.uint32), np.arange(n) * 32
    workers = Workers(2)

    def unpack(_: int) -> bytes:
        out = np.empty((2, 1, 4, n * 32, 128), np.float32)
        kv = StridedKV.of(out[0], out[1])
        memory = slots.view(np.uint8)
        unpack_blocks(memory, offsets, layout, kv.key, kv.value, rows, tokens, workers)
        return out.tobytes()

    with ThreadPoolExecutor(3) as callers:
        results = set(callers.map(unpack, range(12)))
    want = slots.reshape(n, 2, 32, 4, 128).transpose(1, 3, 0, 2, 4).astype(np.float32)
    assert results == {np.ascontiguousarray(want).tobytes()}


def test_strided_kv_takes_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    wide = torch.zeros(2, 10, 3, 64, dtype=torch.bfloat16).transpose(1, 2)
    kv = StridedKV.of(wide, wide.clone())
    assert kv.shape == (2, 3, 10, 64)
    assert kv.key is not None
    assert list(kv.key.strides) == list(wide.stride()[:3])
    assert (kv.key.data, kv.key.dtype) == (wide.data_ptr(), DType.BF16)


def test_strided_kv_refuses_what_it_cannot_read() -> None:
    good = np.zeros((1, 2, 3, 64), np.float32)
    bad = {
        "float64": good.astype(np.float64),
        "not 1": good.transpose(0, 1, 3, 2),
        "batch, heads": good[0],
        "bf16 bits": good.astype(np.uint16),
    }
    for what, array in bad.items():
        with pytest.raises(ShapeError, match=what):
            StridedKV.of(array, array)
    with pytest.raises(ShapeError, match="differ in shape"):
        StridedKV.of(good, good[:, :1])
    with pytest.raises(ShapeError, match="neither"):
        StridedKV.of(None, None)
    with pytest.raises(ShapeError, match="stated"):
        StridedKV.of(good, good, dtype=DType.FP16)
