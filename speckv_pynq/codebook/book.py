"""A codebook as a whole, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from speckv_pynq import spec, tensor_file
from speckv_pynq.codebook.checks import check
from speckv_pynq.codebook.image import image_of
from speckv_pynq.codebook.parts import UNIT_SCALARS, Tables, Unit, unit_arrays
from speckv_pynq.codebook.rows import pack_rows, unpack_rows
from speckv_pynq.errors import CodebookError

FILE_FORMAT: Final = "speckv-codebook-1"
_ROWS_OF_COMPONENTS, _COLUMNS_OF_COMPONENTS = ".analysis", ".synthesis"


@dataclass(frozen=True, eq=False)
class Codebook:
    """The units of a model, in the order of their slots. metadata: strings: what it was made of and for."""

    units: tuple[Unit, ...]
    tables: Tables
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self.units, self.tables)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits of SHA-256 over everything but the metadata; never 0."""
        scalars = json.dumps([_scalars(u) for u in self.units])
        return tensor_file.fingerprint(FILE_FORMAT, self._arrays(), scalars)

    @cached_property
    def slots(self) -> dict[int, int]:
        """First layer -> slot."""
        return {unit.first_layer: slot for slot, unit in enumerate(self.units)}

    @property
    def layer_count(self) -> int:
        """Layers of a record, the same in all units."""
        return self.units[0].layer_count

    def save(self, path: Path | str) -> None:
        """Writes a safetensors file."""
        metadata = {
            **self.metadata,
            "format": FILE_FORMAT,
            "fingerprint": f"{self.fingerprint:016x}",
            "units": json.dumps([_scalars(u) for u in self.units]),
        }
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, array in self._arrays().items():
            if name.endswith(_ROWS_OF_COMPONENTS):
                arrays |= {f"{name}.{part}": a for part, a in pack_rows(array).items()}
            elif name.endswith(_COLUMNS_OF_COMPONENTS):
                arrays |= {f"{name}.{part}": a for part, a in pack_rows(array.T).items()}
            else:
                arrays[name] = array
        tensor_file.save(path, arrays, metadata)

    @staticmethod
    def load(path: Path | str) -> Codebook:
        """Reads and checks a file that `save` wrote; CodebookError names what is wrong with it."""
        try:
            metadata, arrays = tensor_file.read(path, CodebookError)
            if metadata.get("format") != FILE_FORMAT:
                raise CodebookError(f"format {metadata.get('format')!r}, not {FILE_FORMAT!r}")
            units = tuple(
                Unit(**_typed(scalars), **_unit_of_file(arrays, i))
                for i, scalars in enumerate(json.loads(metadata["units"]))
            )
            tables = Tables(**{f.name: arrays[f"tables.{f.name}"] for f in fields(Tables)})
            found = Codebook(units, tables, metadata)
            if f"{found.fingerprint:016x}" != metadata.get("fingerprint"):
                raise CodebookError(
                    f"fingerprint {metadata.get('fingerprint')} stated, {found.fingerprint:016x} found"
                )
        except CodebookError as error:
            raise CodebookError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise CodebookError(f"{path}: damaged: {error!r}") from error
        return found

    @cached_property
    def image(self) -> bytes:
        """What kernels read: headers, one a line; the shared sections; the sections of each unit, each whole lines."""
        return image_of(self.units, self.tables, self.fingerprint)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        named = {f"tables.{f.name}": getattr(self.tables, f.name) for f in fields(Tables)}
        for i, unit in enumerate(self.units):
            named |= {f"{i}.{name}": getattr(unit, name) for name in unit_arrays()}
        return named


def _unit_of_file(arrays: Mapping[str, npt.NDArray[Any]], slot: int) -> dict[str, Any]:
    return {name: _stored(arrays, f"{slot}.{name}") for name in unit_arrays()}


def _stored(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    def parts() -> npt.NDArray[np.int16]:
        return unpack_rows(
            {p: arrays[f"{name}.{p}"] for p in ("is_wide", "shift", "narrow", "wide")}
        )

    if name.endswith(_ROWS_OF_COMPONENTS):
        return parts()
    if name.endswith(_COLUMNS_OF_COMPONENTS):
        return np.ascontiguousarray(parts().T)
    return arrays[name]


def _scalars(unit: Unit) -> dict[str, int]:
    return {name: int(getattr(unit, name)) for name in UNIT_SCALARS}


def _typed(scalars: dict[str, int]) -> dict[str, Any]:
    flags = {name: bool(scalars[name]) for name in ("apart", "interleaved")}
    return {**scalars, "kinds": spec.Kind(scalars["kinds"]), **flags}
