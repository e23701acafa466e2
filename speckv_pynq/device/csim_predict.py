"""A call of the native kv_prefetch over csim memory."""

from __future__ import annotations

from collections.abc import Sequence

from speckv_pynq import spec
from speckv_pynq.device.csim_memory import Pages
from speckv_pynq.device.library import NativeKernel
from speckv_pynq.errors import DeviceBufferError


def call_predict(kernel: NativeKernel, memories: Sequence[Pages], count: int) -> int:
    """memories: predictor, states, candidates, descriptors, completions. -> status of the call.

    DeviceBufferError where a table does not hold `count` entries.
    """
    predictor, states, candidates, descriptors, completions = memories
    for name, memory, each in (
        ("descriptors", descriptors, spec.PREDICTION.itemsize),
        ("completions", completions, spec.COMPLETION.itemsize),
    ):
        if not 0 <= count * each <= memory.nbytes:
            raise DeviceBufferError(
                f"csim: {count} {name} of {each} bytes, the buffer has {memory.nbytes}"
            )
    return kernel(
        predictor.address,
        predictor.nbytes,
        states.address,
        states.nbytes,
        candidates.address,
        candidates.nbytes,
        descriptors.address,
        completions.address,
        count,
        spec.ABI_ID,
    )
