"""Makes codebooks for scheme `klt`: statistics of a model's cache, transform, tables, and the step for a target."""

from __future__ import annotations

from speckv_pynq.calibration.search import Calibration, calibrate
from speckv_pynq.calibration.settings import Layout, Settings
from speckv_pynq.calibration.simulate import Judged

__all__ = ["Calibration", "calibrate", "Judged", "Layout", "Settings"]
