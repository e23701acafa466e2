"""What `speckv doctor` looks at. A check never raises."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from speckv_pynq import spec
from speckv_pynq.block import EXACT_SCHEMES, BlockShape
from speckv_pynq.cli.options import SCHEMES
from speckv_pynq.codec import Codec, LoadedCodebook
from speckv_pynq.device import Device, library, open_device
from speckv_pynq.errors import SpeckvError
from speckv_pynq.pool import survey
from speckv_pynq.pool.survey import FoundPool
from speckv_pynq.selftest import sample_codebook

OK, ABSENT, BAD = "ok", "absent", "bad"
PACKAGES = (  # distribution, extra that brings it, what needs it
    ("torch", "hf", "generate, eval, demo"),
    ("transformers", "hf", "generate, eval, demo"),
    ("gguf", "demo", "converting SmolLM2"),
    ("matplotlib", "demo", "the demo's picture"),
    ("zstandard", "bench", "bench codec"),
    ("lz4", "bench", "bench codec"),
    ("blosc2", "bench", "bench codec"),
    ("pynq", "pynq", "boards, and csim as a pynq device"),
)
XILINX_PCI_VENDOR = "0x10ee"


@dataclass(frozen=True)
class Check:
    """One finding; advice is empty where nothing is to be done."""

    name: str
    state: str
    detail: str
    advice: str = ""


def run_all(*, board: bool) -> list[Check]:
    """All checks, in the order in which they are shown."""
    found = [_python(), _package("numpy", "", "everything")]
    found += [_package(*package) for package in PACKAGES]
    found += [_smollm2(), _compiler(), _csim(), *_self_tests("csim", open_csim)]
    found += [_boards(), _gpu(), _hugepages()]
    if board:
        found += _self_tests("board", lambda: open_device("pynq"))
    return found


def pools(*, board: bool) -> list[FoundPool]:
    """Memory that L3 may live in; the banks of csim, and of a board where it is asked for."""
    found = survey.survey()
    for name in ("csim", "pynq") if board else ("csim",):
        try:
            with open_device(name, num_engines=1) as device:
                found += survey.banks(device)
        except Exception as error:  # whatever a driver raises is the finding
            found.append(FoundPool("fpga", False, 0, f"device {name}: {_message(error)}"))
    return found


def open_csim() -> Device:
    """A csim device of one engine."""
    return open_device("csim", num_engines=1)


def _python() -> Check:
    detail = f"{platform.python_version()}, {sys.executable}"
    if (3, 10) <= sys.version_info < (3, 14):
        return Check("python", OK, detail)
    return Check("python", BAD, detail, "Python 3.10 to 3.13 are tested")


def _package(name: str, extra: str, needed_by: str) -> Check:
    try:
        return Check(name, OK, metadata.version(name))
    except metadata.PackageNotFoundError:
        if name == "pynq" and sys.version_info >= (3, 13):
            return Check(
                name, ABSENT, "has no release for this Python", "boards need Python 3.10 to 3.12"
            )
        advice = f"pip install 'speckv-pynq[{extra}]'  ({needed_by})"
        return Check(name, ABSENT if extra else BAD, "not installed", advice)


def _smollm2() -> Check:
    from speckv_pynq.integrations import smollm2

    try:
        path = smollm2.find_gguf()
    except SpeckvError:
        return Check("smollm2", ABSENT, "not installed", f"{smollm2.INSTALL}  (demo, eval)")
    return Check("smollm2", OK, f"{path.name}, {path.stat().st_size / 1e6:.0f} MB")


def _compiler() -> Check:
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return Check("compiler", OK, path)
    return Check("compiler", ABSENT, "none found", "apt install g++  (building from source)")


def _csim() -> Check:
    try:
        found = library.load()
    except SpeckvError as error:
        return Check("csim library", BAD, str(error), "make native")
    return Check(
        "csim library",
        OK,
        f"{found.path}, abi {found.abi_id:#018x}, format {spec.FORMAT_VERSION}; {found.build_info}",
    )


def _self_tests(name: str, open_it: Callable[[], Device]) -> list[Check]:
    """A block of each scheme and dtype, written, read back and compared."""
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # pynq warns when it finds no device; the error says it too
            device = open_it()
    except Exception as error:  # whatever a driver raises is the finding
        return [Check(f"{name} kernels", BAD, _message(error))]
    with device:
        for scheme in (spec.Scheme[name.upper()] for name in SCHEMES):
            title = f"{name} {scheme.name.lower()}"
            try:
                dtypes = [_round_trip(device, scheme, dtype) for dtype in spec.DType]
            except Exception as error:
                found.append(
                    Check(title, BAD, _message(error), "make native, then speckv doctor again")
                )
            else:
                done = ", ".join(dtype for dtype in dtypes if dtype)
                found.append(Check(title, OK, f"{done} blocks came back; damage was noticed"))
    return found


def _round_trip(device: Device, scheme: spec.Scheme, dtype: spec.DType) -> str:
    """Name of the dtype, empty where the scheme does not take it."""
    if dtype == spec.DType.FP32 and scheme not in EXACT_SCHEMES:
        return ""
    shape = BlockShape(spec.BLOCK_TOKENS, 3, 64, dtype)
    if scheme == spec.Scheme.KLT:
        with LoadedCodebook(device, sample_codebook(shape)) as codebook:
            Codec(device, shape, scheme, 0, codebook).self_test()
    else:
        Codec(device, shape, scheme).self_test()
    return dtype.name.lower()


def _boards() -> Check:
    """Where a board would show: PYNQ's environment, the device tree, PCI Express."""
    found = [os.environ["BOARD"]] if os.environ.get("BOARD") else []
    model = Path("/proc/device-tree/model")
    if model.is_file() and any(
        word in model.read_text() for word in ("Zynq", "Xilinx", "Versal", "ZCU", "PYNQ")
    ):
        found.append(model.read_text().strip("\0\n"))
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        if vendor.read_text().strip() == XILINX_PCI_VENDOR:
            found.append(f"PCI {vendor.parent.name}")
    if found:
        return Check(
            "boards", OK, ", ".join(found), "speckv doctor --board loads the overlay and tests it"
        )
    return Check("boards", ABSENT, "none found; csim does their work")


def _gpu() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("gpu", ABSENT, "not looked for: needs torch")
    import torch

    if not torch.cuda.is_available():
        return Check("gpu", ABSENT, "torch sees none; models run on the CPU")
    return Check(
        "gpu",
        OK,
        ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
    )


def _hugepages() -> Check:
    """Transparent huge pages make large pools cheaper to touch; nothing depends on them."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    mode = path.read_text().partition("[")[2].partition("]")[0] if path.is_file() else "not known"
    return Check(
        "hugepages", OK if mode in ("always", "madvise") else ABSENT, f"transparent: {mode}"
    )


def _message(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
