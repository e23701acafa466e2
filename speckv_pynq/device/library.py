"""Finds and loads libspeckv.so once: the kernels compiled natively, and the core beside them."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import speckv_pynq
from speckv_pynq import spec
from speckv_pynq.errors import AbiMismatch, DependencyMissing

LIBRARY_NAME = "libspeckv.so"
ENVIRONMENT = "SPECKV_LIBRARY"
_HOW_TO_BUILD = (
    "build it with `pip install -e .` in the source tree, or set SPECKV_LIBRARY to its path"
)

NativeKernel = Callable[[int, int, int, int, int, int, int, int, int, int], int]


@dataclass(frozen=True)
class Library:
    """libspeckv.so, checked against the spec of this package.

    kv_compress, kv_decompress: (source address, source bytes, target address, target bytes, address of the
    codebook image, its bytes, address of descriptors, address of completions, count, abi_id) -> spec.Status of
    the whole call; no codebook: 0, 0. They run without the GIL.
    kv_prefetch: the same with image of a predictor, states and candidates for source, target and codebook.
    """

    path: Path
    cdll: ctypes.CDLL
    abi_id: int
    build_info: str
    kv_compress: NativeKernel
    kv_decompress: NativeKernel
    kv_prefetch: NativeKernel


def load(path: Path | None = None) -> Library:
    """This library; None: the one that SPECKV_LIBRARY names, else the one beside the package. Loaded once."""
    return _load(find() if path is None else path.resolve())


def find() -> Path:
    """Where the library is; DependencyMissing when nowhere."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        path = Path(named)
        if not path.is_file():
            raise DependencyMissing(f"{ENVIRONMENT}={named}: no such file; {_HOW_TO_BUILD}")
        return path.resolve()
    # An editable install has two package directories: the sources, and where the build put it.
    places = [Path(place) / LIBRARY_NAME for place in speckv_pynq.__path__]
    for path in places:
        if path.is_file():
            return path.resolve()
    looked = ", ".join(str(path) for path in places)
    raise DependencyMissing(f"{LIBRARY_NAME} not found (looked for {looked}); {_HOW_TO_BUILD}")


@functools.cache
def _load(path: Path) -> Library:
    try:
        cdll = ctypes.CDLL(str(path))
        cdll.speckv_csim_abi_id.argtypes = []
        cdll.speckv_csim_abi_id.restype = ctypes.c_uint64
        abi_id = int(cdll.speckv_csim_abi_id())
        if abi_id != spec.ABI_ID:  # before any other symbol: an older library may lack them
            raise AbiMismatch(
                f"{path}: abi_id {abi_id:#018x}, this package has {spec.ABI_ID:#018x}: built from "
                f"different specs; {_HOW_TO_BUILD}"
            )
        return Library(
            path=path,
            cdll=cdll,
            abi_id=abi_id,
            build_info=_build_info(path, cdll),
            kv_compress=_kernel(cdll, "speckv_csim_kv_compress"),
            kv_decompress=_kernel(cdll, "speckv_csim_kv_decompress"),
            kv_prefetch=_kernel(cdll, "speckv_csim_kv_prefetch"),
        )
    except OSError as error:
        raise DependencyMissing(f"{path} does not load: {error}; {_HOW_TO_BUILD}") from error
    except AttributeError as error:
        raise DependencyMissing(
            f"{path} is not {LIBRARY_NAME}: {error}; {_HOW_TO_BUILD}"
        ) from error


def _build_info(path: Path, cdll: ctypes.CDLL) -> str:
    cdll.speckv_csim_format_version.argtypes = []
    cdll.speckv_csim_format_version.restype = ctypes.c_uint32
    version = int(cdll.speckv_csim_format_version())
    if version != spec.FORMAT_VERSION:
        raise AbiMismatch(
            f"{path}: record format {version}, this package has {spec.FORMAT_VERSION}; "
            f"{_HOW_TO_BUILD}"
        )
    cdll.speckv_csim_build_info.argtypes = []
    cdll.speckv_csim_build_info.restype = ctypes.c_char_p
    return bytes(cdll.speckv_csim_build_info() or b"").decode()


def _kernel(cdll: ctypes.CDLL, name: str) -> NativeKernel:
    function = getattr(cdll, name)
    pointer, size = ctypes.c_void_p, ctypes.c_uint64
    memory = [pointer, size]
    tables = [pointer, pointer, ctypes.c_uint32]
    function.argtypes = [*memory, *memory, *memory, *tables, size]
    function.restype = ctypes.c_int32
    return function  # type: ignore[no-any-return]
