"""The library under test: the one that the package would load."""

from __future__ import annotations

import pytest

from speckv_pynq.device import library
from speckv_pynq.errors import DependencyMissing
from tests.hls.kernels import Kernels


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    try:
        return Kernels(library.find())
    except DependencyMissing as missing:
        pytest.skip(f"needs libspeckv (make native): {missing}")
