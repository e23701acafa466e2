"""A folder for stores whose syncs cost nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pool.records import FAST


@pytest.fixture
def folder() -> Iterator[Path]:
    """Empty, in RAM where the system has such a place."""
    with tempfile.TemporaryDirectory(dir=FAST) as path:
        yield Path(path)
