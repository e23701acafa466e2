"""Where the K and V of one layer lie on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from speckv_pynq.errors import ShapeError
from speckv_pynq.native.layout import Tensor
from speckv_pynq.spec import DType, Kind

_DTYPES = {
    "float16": DType.FP16,
    "bfloat16": DType.BF16,
    "float32": DType.FP32,
}


@dataclass(frozen=True)
class StridedKV:
    """K and V, (batch, heads, tokens, head_dim) each; only the last dimension need be contiguous.

    Made by `of`; keeps the arrays alive. Absent kinds are None.
    """

    shape: tuple[int, int, int, int]
    kinds: Kind
    key: Tensor | None
    value: Tensor | None
    writable: bool
    owners: tuple[Any, ...]

    @classmethod
    def of(cls, k: Any, v: Any, dtype: DType | None = None) -> StridedKV:
        """Of torch CPU tensors or NumPy arrays in fp32, fp16 or bf16; one of k and v may be None.

        dtype: needed where NumPy cannot say it: bf16 as a uint16 view.
        """
        given = [x for x in (k, v) if x is not None]
        if not given:
            raise ShapeError("neither k nor v given")
        shapes = {tuple(int(n) for n in x.shape) for x in given}
        if len(shapes) > 1:
            raise ShapeError(f"k and v differ in shape: {sorted(shapes)}")
        shape = shapes.pop()
        if len(shape) != 4:
            raise ShapeError(f"shape {shape} is not (batch, heads, tokens, head_dim)")
        key, value = (None if x is None else _tensor(x, dtype) for x in (k, v))
        writable = all(x.flags.writeable for x in given if isinstance(x, np.ndarray))
        kinds = Kind(Kind.KEY * (k is not None) + Kind.VALUE * (v is not None))
        return cls(shape, kinds, key, value, writable, tuple(given))


def _tensor(x: Any, dtype: DType | None) -> Tensor:
    """x: a NumPy array, or anything with torch's data_ptr, stride, device and dtype."""
    name = str(x.dtype).rpartition(".")[2]
    if dtype is DType.BF16 and name in ("uint16", "int16"):
        found = DType.BF16
    elif name in _DTYPES:
        found = _DTYPES[name]
    else:
        raise ShapeError(
            f"dtype {x.dtype} is not one of {', '.join(_DTYPES)} (bf16 bits need dtype=)"
        )
    if dtype is not None and dtype != found:
        raise ShapeError(f"dtype {x.dtype} is not the {dtype.name.lower()} that was stated")
    if isinstance(x, np.ndarray):
        pointer = x.__array_interface__["data"][0]
        if any(s % x.itemsize for s in x.strides):
            raise ShapeError(f"byte strides {x.strides} are not multiples of {x.itemsize}")
        strides = tuple(s // x.itemsize for s in x.strides)
    else:
        if x.device.type != "cpu":
            raise ShapeError(f"tensor is on {x.device}, not on the CPU")
        pointer, strides = x.data_ptr(), tuple(x.stride())
    if strides[3] != 1:
        raise ShapeError(f"the last dimension has stride {strides[3]}, not 1")
    tensor = Tensor()
    tensor.data = pointer or None
    tensor.strides[:] = strides[:3]
    tensor.sizes[:] = tuple(x.shape[:3])
    tensor.dtype = int(found)
    return tensor
