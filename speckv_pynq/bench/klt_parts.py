"""How far scheme klt is from this machine's limits: the range coder alone, and the share of its multipliers used."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from speckv_pynq import spec
from speckv_pynq.codebook import Codebook
from speckv_pynq.device import library
from speckv_pynq.device.protocol import Descriptors, DeviceBuffer
from speckv_pynq.errors import DeviceError

PEAK_ROUNDS = 4_000_000  # some 20 ms


@dataclass(frozen=True)
class Parts:
    """Of one core.

    entropy_decode_gb_s: FP16 bytes that the decoded symbols stand for. macs_per_byte: multiply-accumulates a byte of
    FP16, all components counted, also zero ones that the kernels skip; the same for coding and decoding.
    peak_gmac_s: 16-bit multiply-accumulates of nothing but multiplying, in 1e9; 0 where this build cannot tell.
    """

    entropy_decode_gb_s: float
    macs_per_byte: float
    peak_gmac_s: float

    def peak_share(self, gb_s: float) -> float:
        """Of the multipliers, at so many GB/s of FP16; 0 where the peak is not known."""
        return gb_s * self.macs_per_byte / self.peak_gmac_s if self.peak_gmac_s else 0.0


def measure(
    codebook: Codebook,
    records: DeviceBuffer,
    codebooks: DeviceBuffer,
    descriptors: Descriptors,
    fp16_bytes: int,
    repeats: int,
) -> Parts:
    """Medians of `repeats`, in csim's memory. descriptors: (n,), what decodes all records."""
    cdll = library.load().cdll
    symbols, multiply = cdll.speckv_csim_klt_symbols, cdll.speckv_csim_multiply_adds
    pointer, size = ctypes.c_void_p, ctypes.c_uint64
    symbols.argtypes = [pointer, size, pointer, size, pointer, ctypes.c_uint32]
    symbols.restype = ctypes.c_int32
    multiply.argtypes, multiply.restype = [size], size

    def entropy() -> int:
        status = symbols(
            records.array.ctypes.data,
            records.nbytes,
            codebooks.array.ctypes.data,
            codebooks.nbytes,
            descriptors.ctypes.data,
            len(descriptors),
        )
        if status:
            raise DeviceError(f"range coder: {spec.Status(status).name.lower()}")
        return fp16_bytes

    return Parts(
        entropy_decode_gb_s=_rate(entropy, repeats),
        macs_per_byte=_macs_per_byte(codebook),
        peak_gmac_s=_rate(lambda: multiply(PEAK_ROUNDS), repeats),
    )


def _rate(work: Callable[[], int], repeats: int) -> float:
    """In 1e9 a second, of what `work` returns."""
    rates = []
    for _ in range(repeats + 1):  # the first touches memory and is not counted
        started = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - started) / 1e9)
    return statistics.median(rates[1:])


def _macs_per_byte(codebook: Codebook) -> float:
    macs = sum(int(u.ranks.sum()) * (u.inputs // u.transforms) for u in codebook.units)
    return macs / (2 * sum(u.inputs for u in codebook.units))
