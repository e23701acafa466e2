"""A board: what overlay/boards/NAME.toml says, with every key checked."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speckv_pynq import spec
from speckv_pynq.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BOARDS = Path(__file__).resolve().parent / "boards"
FAMILIES = ("alveo", "zynqmp", "zynq7", "csim")
RESOURCES = ("lut", "dsp", "bram36", "uram", "lutram")
STORAGES = ("lutram", "bram", "uram")
LANES = (4, 8, 16, 32)  # what hls/include/speckv/config.hpp has a beat's cycles for

# Table of the file -> its keys and their types.
KEYS: dict[str, dict[str, Any]] = {
    "": {"title": str, "family": str, "kernels": list, "kernels_once": list},
    "kernel": {
        "lanes": int,
        "least_block_bytes": int,
        "most_engines": int,
        "axi_outstanding": int,
        "axi_burst_beats": int,
        "storage": list,
    },
    "device": {"part": str, "source": str},
    "clock": {"mhz": (int, float), "least_mhz": (int, float), "most_mhz": (int, float)},
    "fabric": {**dict.fromkeys(RESOURCES, int), "source": str},
    "limit": dict.fromkeys(RESOURCES, (int, float)),
    "memory": {"banks": list, "ports": int, "source": str},
    "place": {},
}
CSIM_KEYS: dict[str, dict[str, Any]] = {
    "": {"title": str, "family": str},
    "kernel": {"engines": int, "most_engines": int},
}
EXTRA = {  # of a family, over KEYS
    "alveo": {"device": {"platform": str}},
    "zynqmp": {"device": {"board_part": str, "pynq_board": str}, "memory": {"high_ddr": bool}},
    "zynq7": {"device": {"board_part": str, "pynq_board": str}},
}


@dataclass(frozen=True)
class Board:
    """A board file; tables stay dictionaries, `extra` of a family included.

    place: argument of a kernel -> its memory bank (Alveo) or port of the processing system (Zynq).
    """

    name: str
    title: str
    family: str
    kernels: tuple[str, ...]  # as many of each as there are engines
    kernels_once: tuple[str, ...]  # one of each
    kernel: dict[str, Any]
    device: dict[str, Any] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    fabric: dict[str, Any] = field(default_factory=dict)
    limit: dict[str, float] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    place: dict[str, str] = field(default_factory=dict)

    def budget(self, resource: str) -> int:
        """What a build may take of a resource: the limit's share of what the device has."""
        return int(self.fabric[resource] * self.limit[resource])

    @property
    def banks(self) -> frozenset[str]:
        """Every bank or port, ranges written out: "HBM[0:31]" is HBM[0] ... HBM[31]."""
        return frozenset(b for entry in self.memory["banks"] for b in expand(entry))

    @property
    def runs_on(self) -> str:
        """What an image of this board names as its place: BOARD of a PYNQ image, or the Alveo platform."""
        return self.device.get("pynq_board") or self.device.get("platform") or self.name


def expand(text: str) -> list[str]:
    """`HBM[0:3]` -> HBM[0] ... HBM[3]; anything else stands for itself."""
    found = re.fullmatch(r"(\w+)\[(\d+):(\d+)\]", text)
    if not found:
        return [text]
    name, first, last = found[1], int(found[2]), int(found[3])
    return [f"{name}[{i}]" for i in range(first, last + 1)]


def names() -> list[str]:
    """The boards that there are."""
    return sorted(path.stem for path in BOARDS.glob("*.toml"))


def load(name: str, folder: Path = BOARDS) -> Board:
    """The board of folder/name.toml. ConfigError names the file, the key, its value and what is allowed."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"board {name!r} is not one of {', '.join(names())} ({folder})")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not TOML: {error}") from error
    board = _parse(path, data)
    _check(path.name, board)
    return board


def _parse(path: Path, data: dict[str, Any]) -> Board:
    family = data.get("family")
    if family not in FAMILIES:
        raise ConfigError(f"{path.name}: family {family!r} is not one of {', '.join(FAMILIES)}")
    keys, extra = (CSIM_KEYS, {}) if family == "csim" else (KEYS, EXTRA[family])
    tables = tuple(keys)
    top = {k: v for k, v in data.items() if not isinstance(v, dict)}
    unknown = sorted(set(data) - set(top) - set(tables))
    if unknown:
        raise ConfigError(f"{path.name}: table [{unknown[0]}] is none of {', '.join(tables[1:])}")
    checked: dict[str, Any] = {}
    for table in tables:
        wanted = {**keys[table], **extra.get(table, {})}
        found = top if table == "" else data.get(table, {})
        _check_keys(path.name, table, found, wanted)
        checked[table] = found
    kernels, once = tuple(top.get("kernels", spec.KERNELS)), tuple(top.get("kernels_once", ()))
    rest = {name: checked[name] for name in tables[1:]}
    return Board(path.stem, top["title"], family, kernels, once, **rest)


def _check_keys(file: str, table: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    where = f"{file}: [{table}] " if table else f"{file}: "
    if table == "place":
        wanted = dict.fromkeys(found, str)
    for key, value in found.items():
        if key not in wanted:
            raise ConfigError(f"{where}key {key!r} is none of {', '.join(wanted)}")
        kind = wanted[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{where}{key} = {value!r} is not {_kind(kind)}")
    missing = [key for key in wanted if key not in found]
    if missing:
        raise ConfigError(f"{where}lacks {', '.join(missing)}")


def _kind(kind: Any) -> str:
    if isinstance(kind, tuple):
        return "a number"
    return {str: "a string", int: "an integer", list: "a list", bool: "true or false"}[kind]


def _check(file: str, board: Board) -> None:
    """What keys say together."""
    chosen = (*board.kernels, *board.kernels_once)
    for kernel in chosen:
        if kernel not in spec.KERNELS:
            raise ConfigError(f"{file}: kernel {kernel!r} is not one of {', '.join(spec.KERNELS)}")
    if len(set(chosen)) != len(chosen):
        raise ConfigError(f"{file}: a kernel stands twice in {', '.join(chosen)}")
    if board.family == "csim":
        return
    if board.kernel["lanes"] not in LANES:
        raise ConfigError(f"{file}: [kernel] lanes = {board.kernel['lanes']} is not one of {LANES}")
    for storage in board.kernel["storage"] or [None]:
        if storage not in STORAGES:
            raise ConfigError(
                f"{file}: [kernel] storage {storage!r} is not one of {', '.join(STORAGES)}"
            )
    for key in ("least_block_bytes", "most_engines", "axi_outstanding", "axi_burst_beats"):
        if board.kernel[key] < 1:
            raise ConfigError(f"{file}: [kernel] {key} = {board.kernel[key]} < 1")
    for resource, share in board.limit.items():
        if not 0 < share <= 1:
            raise ConfigError(f"{file}: [limit] {resource} = {share} is not within 0..1")
    _check_places(file, board, chosen)


def _check_places(file: str, board: Board, kernels: tuple[str, ...]) -> None:
    pointers = {a.name for kernel in kernels for a in spec.KERNELS[kernel] if a.is_pointer}
    missing, unknown = sorted(pointers - set(board.place)), sorted(set(board.place) - pointers)
    if missing:
        raise ConfigError(f"{file}: [place] lacks {', '.join(missing)}, arguments of the kernels")
    if unknown:
        raise ConfigError(f"{file}: [place] {unknown[0]} is no memory argument of the kernels")
    for argument, where in board.place.items():
        outside = [bank for bank in expand(where) if bank not in board.banks]
        if outside or not expand(where):
            raise ConfigError(
                f"{file}: [place] {argument} = {where!r}: {(outside or [where])[0]} does not exist; the board has "
                f"{', '.join(board.memory['banks'])}"
            )
