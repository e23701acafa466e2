"""What a step of the token predictor takes on one core: the whole C call, and through Python."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec
from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.device.library import load
from speckv_pynq.errors import DeviceError
from speckv_pynq.predictor import Predictor
from speckv_pynq.predictor.image import image_of, state_bytes
from speckv_pynq.prefetch.tokens import TokenPredictor

CAPACITY = 4096
ZIPF = 1.3  # exponent of the tokens' frequencies where none are given
PASSES = 7  # over the same tokens
PEAK_ROUNDS = 1 << 20
PEAK_REPEATS = 5

Tokens = npt.NDArray[np.integer]


@dataclass(frozen=True)
class StepSpeed:
    """Times in microseconds. The C call is timed in C, each step alone, by the monotonic clock.

    p50, p99: over the steps of a sequence, of each the median of PASSES passes: what a step takes, slow steps included,
    without what else the machine did. single_p99: of all calls one by one. advance: the same without candidates, as for
    a prompt. python: TokenPredictor.step of one sequence. multiply_adds: the most of a step. peak_share: of the 16-bit
    multiply-accumulates that one core can do (its vector instruction alone, no memory), at the median; NaN where the
    library has no such loop.
    """

    steps: int
    p50_us: float
    p99_us: float
    single_p99_us: float
    advance_p50_us: float
    advance_p99_us: float
    python_p50_us: float
    python_p99_us: float
    multiply_adds: int
    peak_share: float
    image_bytes: int
    state_bytes: int
    build_info: str


def zipf_tokens(count: int, vocabulary: int, seed: int = 0) -> npt.NDArray[np.uint32]:
    """(count,) tokens whose frequencies fall as rank ** -1.3: low ones are frequent."""
    drawn = np.random.default_rng(seed).zipf(ZIPF, count) - 1
    return (drawn % vocabulary).astype(np.uint32)


def measure(
    predictor: Predictor,
    steps: int = 100_000,
    tokens: Tokens | None = None,
    capacity: int = CAPACITY,
    python_steps: int = 5000,
) -> StepSpeed:
    """Steps one sequence through `tokens` (None: zipf_tokens), again from the front where they are too few."""
    if tokens is None:
        tokens = zipf_tokens(steps, predictor.vocabulary)
    run = np.resize(np.asarray(tokens), steps)
    single_us, advancing_us = (
        np.stack([_call_times(predictor, run, capacity, flags) for _ in range(PASSES)])
        for flags in (0, spec.PredictionFlag.ADVANCE_ONLY)
    )
    step_us, advance_us = np.median(single_us, 0), np.median(advancing_us, 0)
    python_us = _python_times(predictor, run[:python_steps], capacity)
    p50_us = float(np.median(step_us))
    peak = _peak_per_us()
    return StepSpeed(
        steps=steps,
        p50_us=p50_us,
        p99_us=float(np.percentile(step_us, 99)),
        single_p99_us=float(np.percentile(single_us, 99)),
        advance_p50_us=float(np.median(advance_us)),
        advance_p99_us=float(np.percentile(advance_us, 99)),
        python_p50_us=float(np.median(python_us)),
        python_p99_us=float(np.percentile(python_us, 99)),
        multiply_adds=predictor.multiply_adds,
        peak_share=predictor.multiply_adds / p50_us / peak if peak else float("nan"),
        image_bytes=len(image_of(predictor)),
        state_bytes=state_bytes(capacity, predictor.vocabulary),
        build_info=load().build_info,
    )


def _call_times(
    predictor: Predictor, tokens: Tokens, capacity: int, flags: int
) -> npt.NDArray[np.float64]:
    """Microseconds of each step of a fresh sequence."""
    times: Any = load().cdll.speckv_csim_prefetch_times
    pointer, u64 = ctypes.c_void_p, ctypes.c_uint64
    memory, tables = [pointer, u64], [pointer, pointer, ctypes.c_uint32]
    times.argtypes = [*memory, *memory, *memory, *tables, u64, pointer]
    times.restype = ctypes.c_int32
    image = image_of(predictor)
    table = np.zeros(len(tokens), spec.PREDICTION)
    table["fingerprint"], table["token"] = predictor.fingerprint, tokens
    table["capacity"], table["top"], table["flags"] = capacity, spec.PREDICTOR_TOP, flags
    done = np.zeros(len(table), spec.COMPLETION)
    nanoseconds = np.zeros(len(table), np.uint64)
    with CsimDevice(1) as device:
        sizes = len(image), state_bytes(capacity, predictor.vocabulary), _candidates_bytes()
        buffers = [device.allocate(size) for size in sizes]
        buffers[0].array[:] = np.frombuffer(image, np.uint8)
        memories = [word for b in buffers for word in (b.array.ctypes.data, b.nbytes)]
        status = times(
            *memories,
            table.ctypes.data,
            done.ctypes.data,
            len(table),
            spec.ABI_ID,
            nanoseconds.ctypes.data,
        )
    if status or done["status"].any():
        raise DeviceError(
            f"kv_prefetch failed: call {status}, steps {set(done['status'].tolist())}"
        )
    return nanoseconds / 1e3


def _python_times(predictor: Predictor, tokens: Tokens, capacity: int) -> npt.NDArray[np.float64]:
    with CsimDevice(1) as device, TokenPredictor(device, predictor, capacity, 1) as run:
        run.open(0)
        marks = [time.perf_counter()]
        for token in tokens.tolist():
            run.step(0, token)
            marks.append(time.perf_counter())
    return np.diff(marks) * 1e6


def _candidates_bytes() -> int:
    return spec.PREDICTOR_TOP * spec.CANDIDATE.itemsize


def _peak_per_us() -> float:
    """16-bit multiply-accumulates of one core in a microsecond; 0 where there is no such loop."""
    multiply = load().cdll.speckv_csim_multiply_adds
    multiply.argtypes, multiply.restype = [ctypes.c_uint64], ctypes.c_uint64
    best = 0.0
    for _ in range(PEAK_REPEATS):
        started = time.perf_counter()
        done = multiply(PEAK_ROUNDS)
        best = max(best, done / ((time.perf_counter() - started) * 1e6))
    return best
