"""The SpecKV overlay for PYNQ: kernels found by VLNV, arguments checked, every wait with an end."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pynq
from pynq.bitstream import Bitstream

from speckv_pynq import spec
from speckv_pynq.device import hwh, manifest, pynq_csim
from speckv_pynq.device.ap_ctrl import AP_IDLE, AP_START, CTRL, describe_ctrl
from speckv_pynq.device.protocol import DEFAULT_TIMEOUT_S, Completions
from speckv_pynq.device.pynq_calls import KernelRun, check_buffer
from speckv_pynq.device.pynq_device import PynqDevice
from speckv_pynq.errors import AbiMismatch, DeviceError

__all__ = [
    "KernelRun",
    "KvCompress",
    "KvDecompress",
    "KvPrefetch",
    "PynqDevice",
    "SpeckvKernel",
    "SpeckvOverlay",
]

BIT_SUFFIXES = (".bit", ".pdi", ".xclbin")


class SpeckvKernel(pynq.DefaultIP):
    """Driver of one compute unit: call(), start(), and pynq's own register_map below them.

    The arguments are those of the kernel's top, by position or by name: five buffers from
    pynq.allocate, then count, the image's lines and abi_id. `codebooks` may be None, or left out: no
    calibrated scheme then; codebook_lines left out: all of `codebooks`. Data buffers must be synced
    to the device by the caller. No interrupt is needed: waits poll, ever more slowly, up to a
    deadline.
    """

    kernel: ClassVar[str] = ""
    image: ClassVar[str] = "codebooks"  # a port that may be without memory

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__(description)
        self.fullpath = str(description["fullpath"])
        self.arguments = spec.KERNELS[self.kernel]
        self._offsets = _argument_offsets(self.fullpath, self.kernel, description["registers"])
        self._start_lock = threading.Lock()

    @property
    def idle(self) -> bool:
        # AP_IDLE may still be set in the cycle after a start; AP_START then is not cleared yet.
        return self.read(CTRL) & (AP_START | AP_IDLE) == AP_IDLE

    def call(self, *args: Any, timeout_s: float = DEFAULT_TIMEOUT_S, **named: Any) -> Completions:
        """start() and wait(): the completions, (count,) spec.COMPLETION."""
        return self.start(*args, **named).wait(timeout_s)

    def start(self, *args: Any, **named: Any) -> KernelRun:
        """Checks the arguments, writes them, sets AP_START.

        DeviceBufferError for a buffer that is not device memory, is freed, is not aligned to a
        line, or is too small for `count`; DeviceError when the unit is busy.
        """
        values = self._bind(args, named)
        count = int(values["count"])
        if not 0 <= count <= spec.MAX_BATCH:
            raise DeviceError(
                f"{self.fullpath}: count {count} is not within 0..{spec.MAX_BATCH}; split the table"
            )
        needed = {
            "descriptors": count * spec.LINE_BYTES,
            "completions": count * spec.COMPLETION.itemsize,
            self.image: int(values[pynq_csim.IMAGE_LINES[self.image]]) * spec.LINE_BYTES,
        }
        buffers = []
        for argument in self.arguments:
            if argument.name == self.image and values[self.image] is None:
                values[self.image] = 0  # an address that the kernel does not use: no lines
            elif argument.is_pointer:
                what, least = f"{self.fullpath}: {argument.name}", needed.get(argument.name, 1)
                buffers.append(check_buffer(what, values[argument.name], least))
                values[argument.name] = int(values[argument.name].device_address)
        with self._start_lock:
            if not self.idle:
                raise DeviceError(f"{self.fullpath} is busy, {self.describe()}; wait for its run")
            for argument in self.arguments:
                for i, offset in enumerate(self._offsets[argument.name]):
                    self.write(offset, int(values[argument.name]) >> 32 * i & 0xFFFF_FFFF)
            self.write(CTRL, AP_START)
        return KernelRun(self, buffers, count)

    def describe(self) -> str:
        """The control register in words. The read clears AP_DONE, as every read of it does."""
        return describe_ctrl(self.read(CTRL))

    def take_error(self) -> BaseException | None:
        """What csim's worker raised in the last run, once; a board reports by status alone."""
        take = getattr(self.mmio.array, "take_error", None)
        return take() if take else None

    def _bind(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        names = [argument.name for argument in self.arguments]
        usage = f"{self.fullpath}({', '.join(names)})"
        if len(args) > len(names):
            raise TypeError(f"{usage} takes {len(names)} arguments, got {len(args)}")
        values = dict(zip(names, args, strict=False))
        for name, value in named.items():
            if name not in names:
                raise TypeError(f"{usage} has no argument {name!r}")
            if name in values:
                raise TypeError(f"{usage} got {name!r} twice")
            values[name] = value
        image, lines = values.setdefault(self.image, None), pynq_csim.IMAGE_LINES[self.image]
        values.setdefault(lines, getattr(image, "nbytes", 0) // spec.LINE_BYTES)
        missing = [name for name in names if name not in values]
        if missing:
            raise TypeError(f"{usage} lacks {', '.join(missing)}")
        if image is None and values[lines]:
            raise TypeError(f"{usage}: {lines} {values[lines]} without {self.image}")
        return values


class KvCompress(SpeckvKernel):
    """kv_compress(blocks, records, descriptors, completions, codebooks, count, codebook_lines, abi_id): codes."""

    kernel = "kv_compress"
    bindto: ClassVar = [hwh.vlnv("kv_compress")]


class KvDecompress(SpeckvKernel):
    """kv_decompress(records, blocks, descriptors, completions, codebooks, count, codebook_lines, abi_id): decodes."""

    kernel = "kv_decompress"
    bindto: ClassVar = [hwh.vlnv("kv_decompress")]


class KvPrefetch(SpeckvKernel):
    """kv_prefetch(predictor, states, descriptors, completions, candidates, count, predictor_lines, abi_id)."""

    kernel = "kv_prefetch"
    image = "predictor"
    bindto: ClassVar = [hwh.vlnv("kv_prefetch")]


Kernel = TypeVar("Kernel", bound=SpeckvKernel)


class SpeckvOverlay(pynq.Overlay):
    """SpecKV's kernels on a PYNQ board, or on csim with SPECKV_DEVICE=csim.

        from pynq import allocate
        from speckv_pynq import spec
        from speckv_pynq.device.pynq_overlay import SpeckvOverlay

        ol = SpeckvOverlay()
        blocks = allocate(n * block_bytes, "u1")       # K then V of each block, fp16 or bf16
        records = allocate(n * (block_bytes + 64), "u1")
        descriptors = allocate(n, spec.DESCRIPTOR)     # one row a block: where, what shape, which scheme
        completions = allocate(n, spec.COMPLETION)
        ...                                            # fill blocks and descriptors
        blocks.sync_to_device(); descriptors.sync_to_device()
        done = ol.kv_compress.call(
            blocks, records, descriptors, completions, count=n, abi_id=spec.ABI_ID)
        records.sync_from_device()

    `done` is an (n,) array of spec.COMPLETION; status 0 is good. `ol.kv_decompress.call(records,
    blocks, ...)` is the way back. call() raises DeviceTimeout at its deadline (timeout_s, 10 s);
    start() returns a run to wait for.

    Attributes
    ----------
    kv_compress, kv_decompress, kv_prefetch : KvCompress, KvDecompress, KvPrefetch
        The first compute unit of each kernel.
    compress_units, decompress_units, prefetch_units : tuples of the same
        All of them, in the order of their names. They run side by side.
    manifest : dict
        What the overlay was built from (speckv_pynq.device.manifest); its abi_id equals
        spec.ABI_ID, or loading raised AbiMismatch. Files that are not those that were built,
        or another board's, raised OverlayMismatch.

    Without an argument the overlay file is the one shipped for the active device:
    speckv.<device>.bit in speckv.bit.d/, or speckv.bit (.pdi on Versal) beside it. A bitstream
    needs its .hwh and its .json, the manifest that overlay builds write, next to it.
    """

    def __init__(
        self,
        bitfile_name: str | Path | None = None,
        *,
        device: pynq.Device | None = None,
        **options: Any,
    ) -> None:
        pynq_csim.activate()
        device = device or _active_device()
        name = str(bitfile_name) if bitfile_name is not None else _shipped_bitfile(device)
        path = Bitstream(name, device=device).bitfile_name
        image = Path(path)
        self.manifest = manifest.read(image)
        manifest.check_place(self.manifest, image, _place(device))
        download = options.pop("download", True)
        super().__init__(path, device=device, download=False, **options)
        manifest.check_units(self.manifest, image, self._count_units())
        self.__doc__ = f"{type(self).__doc__}\n\n{self.__doc__}"
        self._units: dict[str, tuple[SpeckvKernel, ...]] = {}
        if download:
            self.download()

    def download(self, *args: Any, **options: Any) -> None:
        super().download(*args, **options)
        self._units = {}

    @property
    def kv_compress(self) -> KvCompress:
        return self.compress_units[0]

    @property
    def kv_decompress(self) -> KvDecompress:
        return self.decompress_units[0]

    @property
    def kv_prefetch(self) -> KvPrefetch:
        return self.prefetch_units[0]

    @property
    def compress_units(self) -> tuple[KvCompress, ...]:
        return self._find(KvCompress)

    @property
    def decompress_units(self) -> tuple[KvDecompress, ...]:
        return self._find(KvDecompress)

    @property
    def prefetch_units(self) -> tuple[KvPrefetch, ...]:
        return self._find(KvPrefetch)

    def _count_units(self) -> dict[str, int]:
        """Kernel -> compute units in the hardware description."""
        types = [ip.get("type") for ip in self.ip_dict.values()]
        counts = {kernel: types.count(hwh.vlnv(kernel)) for kernel in spec.KERNELS}
        return {kernel: count for kernel, count in counts.items() if count}

    def _find(self, driver: type[Kernel]) -> tuple[Kernel, ...]:
        """All units of a kernel. Never an AttributeError: it would end in Overlay.__getattr__."""
        if not self.is_loaded():
            raise DeviceError(f"{self.bitfile_name} is not loaded: call download()")
        if driver.kernel not in self._units:
            paths = [p for p, ip in self.ip_dict.items() if ip["type"] in driver.bindto]
            if not paths:
                raise DeviceError(f"{self.bitfile_name} has no {driver.bindto[0]}")
            self._units[driver.kernel] = tuple(self._driver(p) for p in sorted(paths, key=_natural))
        return self._units[driver.kernel]  # type: ignore[return-value]

    def _driver(self, path: str) -> Any:
        first, *rest = path.split("/")
        # Not getattr(self, ...): an instance may be called kv_compress like the property above.
        driver = super().__getattr__(first)
        for name in rest:
            driver = getattr(driver, name)
        return driver


def _argument_offsets(
    fullpath: str, kernel: str, registers: dict[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Argument -> offsets of its words, low first; AbiMismatch where .hwh and spec differ."""
    offsets = {}
    for argument in spec.KERNELS[kernel]:
        wanted = hwh.argument_registers(argument)
        found = [registers.get(r.name, {}).get("address_offset") for r in wanted]
        if found != [r.offset for r in wanted]:
            raise AbiMismatch(
                f"{fullpath}: register {wanted[0].name} is at {found[0]}, the spec says "
                f"{wanted[0].offset}: the overlay was built from another spec"
            )
        offsets[argument.name] = tuple(r.offset for r in wanted)
    return offsets


def _active_device() -> pynq.Device:
    try:
        return pynq.Device.active_device
    except RuntimeError as error:
        raise DeviceError(
            "no PYNQ device found: run on a board, or set SPECKV_DEVICE=csim for the kernels "
            "compiled natively"
        ) from error


def _shipped_bitfile(device: pynq.Device) -> str:
    """This device's file in speckv_pynq/overlays: one made for its name, else the common one."""
    name = getattr(device, "name", None)
    for suffix in BIT_SUFFIXES:
        common = hwh.OVERLAY_DIR / f"{hwh.STEM}{suffix}"
        own = common.with_name(f"{common.name}.d") / f"{hwh.STEM}.{name}{suffix}"
        for path in (own, common):
            if path.is_file():
                return str(path)
    raise DeviceError(
        f"no overlay for device {name!r} in {hwh.OVERLAY_DIR}: build one (overlay/build.py), "
        "or give its path"
    )


def _place(device: pynq.Device) -> str | None:
    """What a manifest calls this device; None where nothing says."""
    if isinstance(device, pynq_csim.CsimDevice):
        return hwh.CSIM_NAME
    return os.environ.get("BOARD")


def _natural(path: str) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]
