"""From a pool's name to its memory."""

from __future__ import annotations

from pathlib import Path

from speckv_pynq.config import PoolName
from speckv_pynq.device.protocol import Device
from speckv_pynq.errors import ConfigError
from speckv_pynq.pool.dax import open_dax
from speckv_pynq.pool.device_memory import DevicePool
from speckv_pynq.pool.memory import open_huge, open_small, open_transparent
from speckv_pynq.pool.numa import open_numa
from speckv_pynq.pool.protocol import PoolMemory
from speckv_pynq.pool.spill import open_spill

_MEMORY = {"": open_small, "thp": open_transparent, "huge": open_huge}


def open_pool(name: str | PoolName, nbytes: int, device: Device | None = None) -> PoolMemory:
    """Opens `device`, `memory[:thp|:huge]`, `numa:NODE`, `dax:DEVICE`, `file:DIRECTORY` or `fpga:BANK`.

    At most nbytes, rounded down to whole pages of that memory. device: whose memory it is, for
    device and fpga. ConfigError for a name, node, device, bank or size that cannot be; PoolError
    when the system refuses or has not enough.
    """
    pool = PoolName.parse(name) if isinstance(name, str) else name
    if pool.kind == "memory":
        return _MEMORY[pool.place](nbytes)
    if pool.kind == "numa":
        return open_numa(int(pool.place), nbytes)
    if pool.kind == "dax":
        return open_dax(Path(pool.place), nbytes)
    if pool.kind == "file":
        return open_spill(Path(pool.place), nbytes)
    if device is None:
        raise ConfigError(f"pool {pool}: needs the device whose memory it is")
    return DevicePool(device, nbytes, pool.place or None)
