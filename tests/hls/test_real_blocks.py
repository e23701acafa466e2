"""Real cache blocks (SmolLM2, six layers): what each scheme makes of them, in bytes and in error."""

from __future__ import annotations

import numpy as np
import pytest

from speckv_pynq import spec
from speckv_pynq.reference import BlockInfo
from speckv_pynq.spec import DType, Scheme
from tests.blocks import REAL_BLOCKS, to_bits, to_floats
from tests.hls.kernels import Kernels
from tests.hls.test_agrees_with_reference import assert_agrees

with np.load(REAL_BLOCKS) as file:
    LAYERS, KEY, VALUE = (file[name] for name in ("layers", "key", "value"))
INFO = BlockInfo(*KEY.shape[1:])


def block(row: int, dtype: DType) -> tuple[BlockInfo, np.ndarray, np.ndarray]:
    info = BlockInfo(*INFO.shape, dtype=dtype, first_layer=int(LAYERS[row]))
    k, v = (to_bits(a[row].astype(np.float64), dtype) for a in (KEY, VALUE))
    return info, k, v


def relative_error(bits: np.ndarray, got: np.ndarray, dtype: DType) -> float:
    x, y = to_floats(bits, dtype), to_floats(got, dtype)
    return float(np.linalg.norm(x - y) / np.linalg.norm(x))


@pytest.mark.parametrize("dtype", [DType.FP16, DType.BF16])
@pytest.mark.parametrize("row", range(len(LAYERS)))
def test_int4_takes_112_lines_and_keeps_its_error(kernels: Kernels, row: int, dtype: DType) -> None:
    info, k, v = block(row, dtype)
    record = assert_agrees(kernels, info, k, v, Scheme.INT4)
    assert len(record) == 112 * spec.LINE_BYTES
    assert info.block_bytes / len(record) > 3.42
    _, got_k, got_v = kernels.decode(record, info)
    assert relative_error(k, got_k, dtype) < 0.06
    assert relative_error(v, got_v, dtype) < 0.11


@pytest.mark.parametrize("row", range(len(LAYERS)))
def test_int8_delta_rle_hardly_shrinks_real_blocks(kernels: Kernels, row: int) -> None:
    info, k, v = block(row, DType.FP16)
    record = assert_agrees(kernels, info, k, v, Scheme.INT8_DELTA_RLE)
    assert 1.0 < info.block_bytes / len(record) < 1.05
    _, got_k, got_v = kernels.decode(record, info)
    assert relative_error(k, got_k, DType.FP16) < 0.04
    assert relative_error(v, got_v, DType.FP16) < 0.04
