"""A board made of software: csim as a pynq.Device, so that overlay code runs with no FPGA.

`SPECKV_DEVICE=csim` opts in; PYNQ then finds this device as it would find a board. Overlays load,
drivers bind by VLNV, registers behave as ap_ctrl_hs, `pynq.allocate` gives buffers with 64-bit
device addresses. Two things are stricter than hardware, to find bugs early: each buffer has a
device copy apart from the host's (a missing sync shows), and an address outside live buffers is a
DeviceError (an AXI decode error may hang a board).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pynq
from pynq.buffer import PynqBuffer
from pynqmetadata.frontends import Metadata

from speckv_pynq import spec
from speckv_pynq.device import hwh
from speckv_pynq.device.ap_ctrl import ComputeUnit, Registers
from speckv_pynq.device.csim_dram import Dram
from speckv_pynq.device.library import Library, NativeKernel, load
from speckv_pynq.errors import AbiMismatch, DeviceError

try:  # pynq 4
    from pynqmetadata.views.runtime import RuntimeMetadataParser
except ImportError:  # pynq 3.1
    from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser

ENVIRONMENT = "SPECKV_DEVICE"
STOP_TIMEOUT_S = 10.0
# Images: their port -> the argument that says how many lines they have.
IMAGE_LINES = {"codebooks": "codebook_lines", "predictor": "predictor_lines"}
_KERNELS = {hwh.vlnv(kernel): kernel for kernel in spec.KERNELS}
# What pynq knows of the DDR behind the PS; base_address 0 makes it the default memory on a board.
_PSDDR = {
    "idx": 0,
    "tag": "PSDDR",
    "base_address": 0,
    "size": 1 << 40,
    "used": 1,
    "streaming": False,
    "type": "MEM_DDR4",
    "raw_type": 2,
    "mem_id": "PSDDR",
}


class CsimBuffer(PynqBuffer):
    """A PynqBuffer whose device side is `Dram`; arrays computed from it have no device address."""

    freed: bool

    def __array_finalize__(self, origin: object) -> None:
        super().__array_finalize__(origin)
        self._span = getattr(origin, "_span", (0, 1 << 64))
        if not self._span[0] <= self.virtual_address < self._span[1]:
            # copy(), a + 1, fancy indexing: stock PynqBuffer computes an address without meaning.
            self.device_address = self.coherent = None

    def freebuffer(self) -> None:
        if getattr(self, "memory", None) is not None and not self.freed:  # views own nothing
            self.freed = True
            self.device.dram.release(self.bo)


class CsimMemory:
    """What pynq calls a memory: `ol.PSDDR`, or allocate(target=...)."""

    def __init__(self, device: CsimDevice, description: dict[str, Any]) -> None:
        self.device, self.desc, self.idx = device, description, description["idx"]
        self.base_address, self.size = description["base_address"], description["size"]

    def allocate(self, shape: Any, dtype: Any, **_: Any) -> CsimBuffer:
        shape = (shape,) if np.isscalar(shape) else tuple(shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        address, host = self.device.dram.allocate(nbytes)
        buffer = CsimBuffer(
            shape,
            dtype,
            buffer=host,
            device=self.device,
            bo=address,
            device_address=address,
            coherent=False,
        )
        buffer.memory = self
        buffer._span = (buffer.virtual_address, buffer.virtual_address + nbytes)
        return buffer


class CsimDevice(pynq.Device):
    """libspeckv.so in the place of a board.

    `dram` counts buffers and their bytes; close() stops the workers. Overlays that are loaded one
    after another replace each other, as bitstreams do; loading one resets its compute units, hung
    ones included.
    """

    _probe_priority_ = 10  # before any board: whoever sets SPECKV_DEVICE=csim wants csim

    @classmethod
    def _probe_(cls) -> list[CsimDevice]:
        return [cls()] if os.environ.get(ENVIRONMENT) == hwh.CSIM_NAME else []

    def __init__(self, tag: str = "csim0", library: Library | None = None) -> None:
        super().__init__(tag)
        self.name, self.arch = hwh.CSIM_NAME, "csim"
        # As a Zynq has it. REGISTER_RW would make pynq swap NumPy for a stand-in.
        self.capabilities = {"MEMORY_MAPPED": True}
        self.dram = Dram()
        self._library = library
        self._units: dict[int, ComputeUnit] = {}  # by base address
        self._stop = weakref.finalize(self, _stop_units, self._units)

    def get_bitfile_metadata(
        self, bitfile_name: str, partial: bool = False
    ) -> RuntimeMetadataParser:
        path = Path(bitfile_name).with_suffix(".hwh")
        if not path.is_file():
            raise DeviceError(f"{bitfile_name}: no hardware description {path.name} beside it")
        parser = RuntimeMetadataParser(Metadata(input=str(path)))
        parser.clock_dict = {}  # or pynq would program the clocks of a PS that is not there
        parser.mem_dict["PSDDR"] = dict(_PSDDR)
        for ip in parser.ip_dict.values():
            ip["interrupts"] = {}  # pynq's Interrupt needs a UIO file
        return parser

    def gen_cache(self, bitstream: Any, parser: Any = None) -> None:
        """Nothing: what pynq caches on disk goes stale (PYNQ issues 1409, 1651)."""

    def download(self, bitstream: Any, parser: Any = None) -> None:
        library, before = self._library or load(), dict(self._units)
        self._units.clear()
        for name, ip in parser.ip_dict.items():
            kernel = _KERNELS.get(ip["type"])
            if kernel is None:
                continue
            base = ip["phys_addr"]
            unit = before.get(base)
            if unit is not None and (unit.name, unit.words.nbytes) == (name, ip["addr_range"]):
                unit.reset()  # kept, so that drivers' memory maps stay good, as on a board
                self._units[base] = before.pop(base)
            else:
                self._units[base] = _compute_unit(
                    name, kernel, ip["addr_range"], library, self.dram
                )
        _stop_units(before)
        self.post_download(bitstream, parser, self.name)

    def mmap(self, base_addr: int, length: int) -> Registers:
        for base, unit in self._units.items():
            if base <= base_addr and base_addr + length <= base + unit.words.nbytes:
                return unit.view(base_addr - base, length)
        raise DeviceError(
            f"AXI decode error: no register at {base_addr:#x}, {length} bytes; "
            "is the overlay loaded?"
        )

    def get_memory(self, description: dict[str, Any]) -> CsimMemory:
        return CsimMemory(self, description)

    @property
    def default_memory(self) -> CsimMemory:
        return CsimMemory(self, _PSDDR)

    def flush(self, bo: int, offset: int, ptr: int, size: int) -> None:
        host, device = self.dram.sides(bo)
        device[offset : offset + size] = host[offset : offset + size]

    def invalidate(self, bo: int, offset: int, ptr: int, size: int) -> None:
        host, device = self.dram.sides(bo)
        host[offset : offset + size] = device[offset : offset + size]

    def close(self) -> None:
        """Stops the compute units; buffers live on until they are deleted."""
        _stop_units(self._units)


def activate() -> None:
    """Makes csim the active device when SPECKV_DEVICE asks for it, even after pynq has probed."""
    if os.environ.get(ENVIRONMENT) != hwh.CSIM_NAME:
        return
    devices = pynq.Device.devices
    if not any(isinstance(device, CsimDevice) for device in devices):
        devices.append(CsimDevice())
        pynq.Device.active_device = devices[-1]


def _compute_unit(name: str, kernel: str, nbytes: int, library: Library, dram: Dram) -> ComputeUnit:
    """A unit around a native kernel; its registers are where the spec, not the .hwh, puts them."""
    arguments = spec.KERNELS[kernel]
    native: NativeKernel = getattr(library, kernel)

    def execute(values: dict[str, int]) -> None:
        _call(name, native, arguments, values, dram)

    return ComputeUnit(name, arguments, nbytes, execute)


def _call(
    name: str,
    native: Callable[..., int],
    arguments: tuple[spec.KernelArgument, ...],
    values: dict[str, int],
    dram: Dram,
) -> None:
    """Resolves device addresses, calls the kernel within its buffers, types its refusal."""
    count, abi_id = values["count"], values["abi_id"]
    tables = {"descriptors": spec.LINE_BYTES, "completions": spec.COMPLETION.itemsize}
    held = []  # buffers live for as long as their ranges
    memories: list[int] = []
    for port in (a.name for a in arguments if a.is_pointer and a.name not in tables):
        lines = values.get(IMAGE_LINES.get(port, ""))
        if lines == 0:  # without lines the kernel does not use the port
            memories += [0, 0]
            continue
        needed = 1 if lines is None else lines * spec.LINE_BYTES
        held.append(dram.resolve(values[port], needed, f"{name}: {port}"))
        memories += [held[-1].address, held[-1].nbytes if lines is None else needed]
    for table, each in tables.items():
        held.append(dram.resolve(values[table], count * each, f"{name}: {table}"))
    status = native(*memories, held[-2].address, held[-1].address, count, abi_id)
    if status == spec.Status.ABI_MISMATCH:
        raise AbiMismatch(f"{name}: called with abi_id {abi_id:#018x}, built for {spec.ABI_ID:#x}")
    if status:
        known = {int(s): s.name.lower() for s in spec.Status}
        raise DeviceError(
            f"{name}: the call as a whole failed: status {known.get(status, '?')} ({status}), "
            f"count {count}, limit {spec.MAX_BATCH}"
        )


def _stop_units(units: dict[int, ComputeUnit]) -> None:
    for unit in units.values():
        unit.stop(STOP_TIMEOUT_S)
    units.clear()
