"""The parameters of a board, compiled natively: a build with fewer schemes and smaller blocks makes the same
records, and refuses what it was built without.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from overlay import board as boards
from overlay.estimate import Asked, derive
from overlay.files import defines
from speckv_pynq.device import library
from speckv_pynq.reference import BlockInfo
from speckv_pynq.spec import Scheme, Status
from tests.blocks import make_bits
from tests.hls.kernels import Kernels

HLS = Path(__file__).resolve().parents[2] / "hls"
PARAMETERS = derive(boards.load("pynq-z2"), Asked(schemes=("raw", "int4")))
INFO = BlockInfo(32, 2, 64)

pytestmark = pytest.mark.requires("g++", "libspeckv")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """The kernels with what overlay/build.py gives PYNQ-Z2's."""
    folder = tmp_path_factory.mktemp("pynq-z2")
    whole = folder / "whole.cpp"
    sources = [*(HLS / "csim").glob("*.cpp"), *(HLS / "generated").glob("*.cpp")]
    whole.write_text("".join(f'#include "{source}"\n' for source in sources))
    options = [
        "-std=c++17",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-ffp-contract=off",
        "-w",
        "-O0",
    ]
    options += ["-DSPECKV_NO_DISPATCH", *(f"-D{n}={v}" for n, v in defines(PARAMETERS).items())]
    options += [f"-I{HLS / folder}" for folder in ("include", "csim", "csim/shim", "generated")]
    subprocess.run(["g++", *options, whole, "-o", folder / "libspeckv.so"], check=True)
    return Kernels(folder / "libspeckv.so")


@pytest.fixture(scope="module")
def full() -> Kernels:
    return Kernels(library.find())


def block(info: BlockInfo) -> tuple[np.ndarray, np.ndarray]:
    k, v = (make_bits("normal", seed, info.shape, info.dtype) for seed in (1, 2))
    return k, v


@pytest.mark.parametrize("scheme", [Scheme.RAW, Scheme.INT4])
def test_records_are_those_of_the_full_build(small: Kernels, full: Kernels, scheme: Scheme) -> None:
    done, record = small.encode(INFO, *block(INFO), scheme)
    assert (done, record) == full.encode(INFO, *block(INFO), scheme)
    assert not done["status"]
    got, want = (kernels.decode(record, INFO) for kernels in (small, full))
    assert got[0] == want[0]
    assert got[1].tobytes() == want[1].tobytes()


@pytest.mark.parametrize("scheme", [Scheme.INT8_DELTA_RLE, Scheme.LOSSLESS, Scheme.KLT])
def test_a_scheme_left_out_is_refused(small: Kernels, scheme: Scheme) -> None:
    done, _ = small.encode(INFO, *block(INFO), scheme)
    assert done["status"] == Status.BAD_SCHEME
    assert (done["value"], done["limit"]) == (scheme, Scheme.INT4)


def test_a_record_of_a_scheme_left_out_is_refused(small: Kernels, full: Kernels) -> None:
    _, record = full.encode(INFO, *block(INFO), Scheme.LOSSLESS)
    assert small.decode(record, INFO)[0]["status"] == Status.BAD_SCHEME


def test_a_larger_block_is_refused_with_the_limit(small: Kernels) -> None:
    heads = PARAMETERS.max_block_bytes // (32 * 64 * 2 * 2)
    largest, larger = BlockInfo(32, heads, 64), BlockInfo(32, heads + 1, 64)
    assert not small.encode(largest, *block(largest), Scheme.INT4)[0]["status"]
    done, _ = small.encode(larger, *block(larger), Scheme.INT4)
    assert done["status"] == Status.BLOCK_TOO_LARGE
    assert done["limit"] == PARAMETERS.max_block_bytes
