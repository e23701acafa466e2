"""Native kernels use float32 where it is exact: a thread that flushes subnormals, as PyTorch's
set_flush_denormal makes it do, gets the same bytes.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from speckv_pynq.reference import BlockInfo
from speckv_pynq.reference.record import SCHEMES
from speckv_pynq.spec import DType, Scheme
from tests.blocks import FINITE_CASES, LOSSY_DTYPES, make_bits
from tests.hls.kernels import Kernels
from tests.hls.test_agrees_with_reference import assert_agrees

SOURCE = """
#include <xmmintrin.h>
unsigned get(void) { return _mm_getcsr(); }
void set(unsigned v) { _mm_setcsr(v); }
"""
FLUSH_TO_ZERO, SUBNORMALS_ARE_ZERO = 0x8000, 0x0040

pytestmark = [
    pytest.mark.requires("gcc"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="MXCSR is x86's"),
]


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("mxcsr")
    (folder / "mxcsr.c").write_text(SOURCE)
    command = ["gcc", "-shared", "-fPIC", "mxcsr.c", "-o", "mxcsr.so"]
    subprocess.run(command, cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "mxcsr.so"))


@contextmanager
def flushing(control: ctypes.CDLL) -> Iterator[None]:
    before = control.get()
    control.set(before | FLUSH_TO_ZERO | SUBNORMALS_ARE_ZERO)
    try:
        yield
    finally:
        control.set(before)


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != Scheme.RAW])
def test_flushing_subnormals_changes_nothing(
    kernels: Kernels, control: ctypes.CDLL, scheme: Scheme, dtype: DType
) -> None:
    info = BlockInfo(16, 2, 64, dtype=dtype)
    for case in FINITE_CASES:
        k, v = (make_bits(case, seed, info.shape, dtype) for seed in (1, 2))
        with flushing(control):  # the reference computes on integers
            assert_agrees(kernels, info, k, v, scheme)
