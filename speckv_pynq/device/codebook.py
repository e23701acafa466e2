"""A codebook in a device's memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from speckv_pynq.block import BlockShape
from speckv_pynq.closing import Closing
from speckv_pynq.codebook import Codebook
from speckv_pynq.device.protocol import Device, DeviceBuffer
from speckv_pynq.errors import CodebookError


class LoadedCodebook(Closing):
    """A codebook's image, uploaded once for all codecs of a device; a context manager, which frees it.

    Codecs do not own it: close it after their last run.
    """

    def __init__(self, device: Device, codebook: Codebook) -> None:
        self.codebook = codebook
        self._buffer = device.allocate(len(codebook.image))
        self._buffer.array[:] = np.frombuffer(codebook.image, np.uint8)
        self._buffer.sync_to_device()
        self._slots = np.full(max(codebook.slots) + 1, -1, np.int32)
        for layer, slot in codebook.slots.items():
            self._slots[layer] = slot

    @property
    def buffer(self) -> DeviceBuffer:
        """What a kernel's `codebooks` port takes."""
        return self._buffer

    @property
    def nbytes(self) -> int:
        """Bytes of the image."""
        return self._buffer.nbytes

    @property
    def fingerprint(self) -> int:
        return self.codebook.fingerprint

    @property
    def layer_count(self) -> int:
        """Consecutive layers of a record."""
        return self.codebook.layer_count

    def slots_of(self, first_layers: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
        """(n,) the slots of records that begin with these layers; CodebookError where there is none."""
        inside = first_layers < len(self._slots)
        slots = np.where(inside, self._slots[np.where(inside, first_layers, 0)], -1)
        if len(slots) and slots.min() < 0:
            layer = int(first_layers[slots < 0][0])
            raise CodebookError(
                f"the codebook has no unit for records that begin with layer {layer}; "
                f"it has them for layers {_listed(sorted(self.codebook.slots))}"
            )
        return slots

    def check(self, shape: BlockShape, first_layers: Iterable[int] | None = None) -> None:
        """CodebookError unless it was made for blocks of this shape that begin with these layers (None: its own)."""
        layers = self.codebook.slots if first_layers is None else list(first_layers)
        for slot in self.slots_of(np.array(list(layers), np.uint16)).tolist():
            unit = self.codebook.units[slot]
            for name in ("heads", "head_dim", "kinds"):
                made, asked = getattr(unit, name), getattr(shape, name)
                if made != asked:
                    raise CodebookError(
                        f"codebook {self.fingerprint:#018x} has {name} {int(made)} for records of {unit.layer_count} "
                        f"layers from {unit.first_layer} on, blocks have {int(asked)}: made for another model or scope"
                    )

    def close(self) -> None:
        """Gives the memory back; harmless when repeated."""
        self._buffer.free()


def _listed(layers: list[int]) -> str:
    shown = ", ".join(str(layer) for layer in layers[:8])
    return f"{shown}, ... {layers[-1]}" if len(layers) > 8 else shown
