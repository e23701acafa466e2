"""Devices: csim (the kernels compiled natively) and pynq (an overlay on a board)."""

from __future__ import annotations

import importlib
import os

from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, Device, DeviceBuffer, Run
from speckv_pynq.errors import ConfigError, DependencyMissing

__all__ = ["DEFAULT_TIMEOUT_S", "DEVICE_NAMES", "Device", "DeviceBuffer", "Run", "open_device"]

ENVIRONMENT = "SPECKV_DEVICE"
DEVICE_NAMES = ("csim", "pynq")


def open_device(name: str | None = None, num_engines: int | None = None) -> Device:
    """Opens `name`, else what SPECKV_DEVICE says, else csim.

    num_engines: tables, or parts of one, that run at once; None: all of the device (csim: 1 or 2).
    """
    chosen = name or os.environ.get(ENVIRONMENT) or "csim"
    if chosen not in DEVICE_NAMES:
        raise ConfigError(f"device {chosen!r} is not one of {', '.join(DEVICE_NAMES)}")
    if num_engines is not None and num_engines < 1:
        raise ConfigError(f"num_engines {num_engines} < 1")
    if chosen == "csim":
        from speckv_pynq.device.csim import CsimDevice

        return CsimDevice(num_engines)
    try:
        overlay = importlib.import_module("speckv_pynq.device.pynq_overlay")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "speckv_pynq":
            raise
        raise DependencyMissing(
            f"device pynq needs the package {error.name!r}: pip install 'speckv-pynq[pynq]'"
        ) from error
    device: Device = overlay.PynqDevice.open(num_engines=num_engines)
    return device
