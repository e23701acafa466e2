"""The manifest beside an overlay, csim or board: what it was built from and for, and the hashes of its files.

NAME.json beside NAME.bit, .pdi or .xclbin:

    target           board of overlay/boards, or csim
    runs_on          BOARD of the PYNQ image, platform of an Alveo card, or csim
    abi_id           of the spec, in hexadecimal (64 bits need a string in JSON)
    format_version   of the records
    compute_units    kernel -> how many
    parameters       of the build: lanes, max_block_bytes, schemes, clock_mhz
    files            name, in the same directory -> SHA-256
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speckv_pynq import spec
from speckv_pynq.errors import AbiMismatch, OverlayMismatch

KEYS = ("target", "runs_on", "abi_id", "format_version", "compute_units", "parameters", "files")
NATIVE_PARAMETERS: Mapping[str, object] = {
    "lanes": spec.LANES,
    "max_block_bytes": spec.MAX_BLOCK_BYTES,
    "schemes": [scheme.name.lower() for scheme in spec.Scheme],
    "clock_mhz": 0,
}


def describe(
    *,
    target: str,
    runs_on: str,
    compute_units: Mapping[str, int],
    parameters: Mapping[str, object],
    files: Mapping[str, bytes],
) -> dict[str, Any]:
    """The manifest of an overlay built from this package's spec. files: name -> content."""
    return {
        "target": target,
        "runs_on": runs_on,
        "abi_id": f"{spec.ABI_ID:#018x}",
        "format_version": spec.FORMAT_VERSION,
        "compute_units": dict(compute_units),
        "parameters": dict(parameters),
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }


def to_json(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2) + "\n"


def read(image: Path) -> dict[str, Any]:
    """The manifest beside an image, once everything in it holds here.

    AbiMismatch: no readable manifest, or another spec's. OverlayMismatch: a file is not the one that was built.
    """
    path = image.with_suffix(".json")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        abi_id, version = int(manifest["abi_id"], 0), int(manifest["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbiMismatch(
            f"{path}: no readable manifest ({error!r}); builds write it beside the bitstream"
        ) from error
    if abi_id != spec.ABI_ID:
        raise AbiMismatch(f"{path}: abi_id {abi_id:#018x}, this package has {spec.ABI_ID:#018x}")
    if version != spec.FORMAT_VERSION:
        raise AbiMismatch(
            f"{path}: record format {version}, this package has {spec.FORMAT_VERSION}"
        )
    missing = [key for key in KEYS if key not in manifest]
    if missing:
        raise OverlayMismatch(f"{path}: lacks {', '.join(missing)}; build the overlay again")
    _check_files(path, image, manifest["files"])
    return manifest


def check_place(manifest: Mapping[str, Any], image: Path, place: str | None) -> None:
    """OverlayMismatch unless the overlay was built for `place`; None: not known here, nothing to compare."""
    if place is not None and place != manifest["runs_on"]:
        raise OverlayMismatch(
            f"{image}: built for {manifest['runs_on']!r} (target {manifest['target']!r}), this is {place!r}"
        )


def check_units(manifest: Mapping[str, Any], image: Path, found: Mapping[str, int]) -> None:
    """OverlayMismatch unless the hardware description has the compute units that the manifest names."""
    wanted = {kernel: n for kernel, n in manifest["compute_units"].items() if n}
    if wanted != dict(found):
        raise OverlayMismatch(
            f"{image}: compute units {dict(found)}, its manifest says {wanted}: files of two builds"
        )


def _check_files(path: Path, image: Path, files: Any) -> None:
    if not isinstance(files, dict) or image.name not in files:
        raise OverlayMismatch(f"{path}: files does not name {image.name}")
    for name, wanted in files.items():
        if Path(name).name != name:
            raise OverlayMismatch(f"{path}: file {name!r} is not a plain name")
        try:
            found = hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
        except OSError as error:
            raise OverlayMismatch(f"{path}: {name} is not readable: {error}") from error
        if found != wanted:
            raise OverlayMismatch(
                f"{path.parent / name}: SHA-256 {found}, its manifest says {wanted}: not the file that was built"
            )
