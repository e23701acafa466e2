"""The same kernel sources built otherwise make the same bytes: the branches that synthesis sees, on
the open ap_int headers; another compiler; no function clones (the baseline of the architecture).
"""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from speckv_pynq.reference import BlockInfo
from speckv_pynq.reference.record import SCHEMES
from speckv_pynq.spec import DType, Kind, Scheme
from tests.blocks import FINITE_CASES, LOSSY_DTYPES, make_bits
from tests.codebooks import random_codebook
from tests.hls.kernels import Kernels, same
from tests.hls.predictions import Prefetch
from tests.hls.test_every_code import INT4_EXPONENTS, INT4_INFO, int4_corner_record
from tests.hls.test_klt import FORMS, LAYER, info_of, normal_block
from tests.records import flipped, with_fields
from tests.reference.predictors import random_predictor

HLS = Path(__file__).resolve().parents[2] / "hls"
# Kernels have pragmas and labels for Vitis HLS only.
FLAGS = ["-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-w"]
SYNTHESIS = ("-O0", "-D__SYNTHESIS__")
BUILDS = {
    "synthesis-gcc": ("g++", SYNTHESIS),
    "synthesis-clang": ("clang++", SYNTHESIS),
    "clang": ("clang++", ("-O1",)),
    "no-clones": ("g++", ("-O1", "-DSPECKV_NO_DISPATCH")),
}
SHAPES = [(16, 1, 64), (32, 3, 80), (64, 2, 96), (16, 2, 128), (32, 1, 256)]
CASES = (*FINITE_CASES, "any")


def ap_int_folder() -> Path:
    """Where the da4ml wheel keeps the open ap_int headers; da4ml itself is not imported."""
    found = importlib.util.find_spec("da4ml")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0]) / "codegen/hls/source/ap_types/include"
    assert (folder / "ap_int.h").is_file()
    return folder


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            name,
            marks=pytest.mark.requires(compiler, *(["da4ml"] if options is SYNTHESIS else [])),
        )
        for name, (compiler, options) in BUILDS.items()
    ],
)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    compiler, options = BUILDS[request.param]
    ap_int = ap_int_folder() if options is SYNTHESIS else HLS / "csim/shim"
    folders = [
        f"-I{folder}" for folder in (HLS / "include", HLS / "csim", HLS / "generated", ap_int)
    ]
    folder = tmp_path_factory.mktemp(request.param)
    # One translation unit: the ap_int headers take longer to read than the kernels to compile.
    sources = [*(HLS / "csim").glob("*.cpp"), *(HLS / "generated").glob("*.cpp")]
    whole = folder / "whole.cpp"
    whole.write_text("".join(f'#include "{source}"\n' for source in sources))
    library = folder / "libspeckv.so"
    command = [compiler, *FLAGS, *options, *folders, whole, "-o", library]
    subprocess.run([str(part) for part in command], check=True)
    return Kernels(library)


def test_build_is_the_one_asked_for(build: Kernels, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["build"]
    assert ("synthesis" in build.build_info) == name.startswith("synthesis")
    assert build.build_info.startswith("clang" if name.endswith("clang") else "gcc")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_records_and_blocks_are_the_same(build: Kernels, kernels: Kernels, scheme: Scheme) -> None:
    for i, case in enumerate(CASES):
        dtype = (DType.FP16, DType.BF16)[i % 2]
        kinds = (Kind.BOTH, Kind.BOTH, Kind.KEY, Kind.VALUE)[i % 4]
        info = BlockInfo(*SHAPES[i % len(SHAPES)], dtype=dtype, kinds=kinds, first_position=i)
        k, v = (make_bits(case, seed, info.shape, dtype) for seed in (i, i + 1))
        k, v = k if Kind.KEY in kinds else None, v if Kind.VALUE in kinds else None
        want_done, want = kernels.encode(info, k, v, scheme)
        done, record = build.encode(info, k, v, scheme)
        assert record == want
        assert done == want_done
        for got, expected in zip(build.decode(want, info), kernels.decode(want, info), strict=True):
            if isinstance(got, type(done)):
                assert got == expected
            else:
                assert same(got, expected)


@pytest.mark.parametrize("number", range(len(FORMS)))
def test_klt_is_the_same(build: Kernels, kernels: Kernels, number: int) -> None:
    shape, dtype = FORMS[number], LOSSY_DTYPES[number % 2]
    codebook = random_codebook(number, shape, units=2, first_layer=LAYER)
    info = info_of(shape, codebook, (16, 32, 64)[number % 3], dtype, 1000 + number)
    for spread in (0.3, 6.0):  # the second is handed to int4
        block = normal_block(info, number, spread)
        want_done, want = kernels.encode(info, *block, Scheme.KLT, codebook, 1)
        done, record = build.encode(info, *block, Scheme.KLT, codebook, 1)
        assert (done, record) == (want_done, want)
        got, expected = (b.decode(want, info, codebook, 1) for b in (build, kernels))
        assert got[0] == expected[0]
        assert same(got[1], expected[1])
        assert same(got[2], expected[2])


def test_faults_are_the_same(build: Kernels, kernels: Kernels) -> None:
    info = BlockInfo(16, 1, 64)
    k, v = (make_bits("runs", seed, info.shape, info.dtype) for seed in (1, 2))
    damaged = []
    for scheme in SCHEMES:
        _, record = kernels.encode(info, k, v, scheme)
        damaged += [flipped(record, bit) for bit in range(0, 8 * 80, 7)]
        damaged += [with_fields(record, scheme_params=[9] * 8), with_fields(record, scheme=3)]
    for got, want in zip(
        build.decode_many(damaged, info), kernels.decode_many(damaged, info), strict=True
    ):
        assert got[0] == want[0]


@pytest.mark.parametrize("dtype", LOSSY_DTYPES)
def test_int4_rounds_alike_at_every_exponent(build: Kernels, dtype: DType) -> None:
    """In hardware by shifts and adds, natively by float32 arithmetic that is exact."""
    for u in INT4_EXPONENTS[dtype][::3]:
        record, want = int4_corner_record(dtype, u)
        _, got, _ = build.decode(record, INT4_INFO[dtype])
        assert same(got, want), f"U = {u}"


def test_predictions_are_the_same(build: Kernels) -> None:
    model = random_predictor(700, 11, 3, always=100)
    native, other = Prefetch(model), Prefetch(model, path=build.path)
    for token in (3, 699, 3, 699, 8):
        assert other.step(0, token) == native.step(0, token)
    assert other.states.tobytes() == native.states.tobytes()


def test_crc32c_is_the_same(build: Kernels, kernels: Kernels) -> None:
    data = bytes(range(256)) * 3
    for size in (0, 1, 63, 64, 65, 700):
        assert build.crc32c(data[:size], 5) == kernels.crc32c(data[:size], 5)
