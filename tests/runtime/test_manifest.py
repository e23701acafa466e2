"""The manifest beside an overlay: what it says, and every way in which loading refuses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from speckv_pynq import spec
from speckv_pynq.device import hwh, manifest, open_device
from speckv_pynq.errors import AbiMismatch, OverlayMismatch


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The shipped csim overlay, in a folder of its own."""
    return hwh.write_overlay(tmp_path)


def change(image: Path, **values: object) -> None:
    path = image.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_it_names_the_spec_the_build_and_every_file(image: Path) -> None:
    found = manifest.read(image)
    assert tuple(found) == manifest.KEYS
    assert int(found["abi_id"], 0) == spec.ABI_ID
    assert found["format_version"] == spec.FORMAT_VERSION
    assert found["compute_units"] == dict.fromkeys(spec.KERNELS, hwh.CSIM_ENGINES)
    assert found["parameters"]["max_block_bytes"] == spec.MAX_BLOCK_BYTES
    assert set(found["files"]) == {image.name, image.with_suffix(".hwh").name}


def test_another_spec_is_refused_with_both_ids(image: Path) -> None:
    change(image, abi_id="0x1")
    with pytest.raises(AbiMismatch, match=rf"abi_id 0x0+1, this package has {spec.ABI_ID:#018x}"):
        manifest.read(image)


def test_a_changed_file_is_refused_with_both_hashes(image: Path) -> None:
    wanted = manifest.read(image)["files"][image.with_suffix(".hwh").name]
    image.with_suffix(".hwh").write_text("<other/>")
    with pytest.raises(OverlayMismatch, match=rf"\.hwh: SHA-256 [0-9a-f]{{64}}, .* says {wanted}"):
        manifest.read(image)


def test_a_missing_file_is_refused(image: Path) -> None:
    image.with_suffix(".hwh").unlink()
    with pytest.raises(OverlayMismatch, match=r"speckv\.csim\.hwh is not readable"):
        manifest.read(image)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"files": {}}, r"files does not name speckv\.csim\.bit"),
        ({"files": ["speckv.csim.bit"]}, "files does not name"),
        ({"files": {"speckv.csim.bit": "", "../x": ""}}, r"speckv\.csim\.bit: SHA-256"),
    ],
)
def test_files_that_are_not_named_as_they_should_be(
    image: Path, values: dict[str, object], message: str
) -> None:
    change(image, **values)
    with pytest.raises(OverlayMismatch, match=message):
        manifest.read(image)


def test_a_file_outside_the_folder_is_refused(image: Path) -> None:
    files = manifest.read(image)["files"]
    change(image, files={**files, "../secret": "0" * 64})
    with pytest.raises(OverlayMismatch, match=r"'\.\./secret' is not a plain name"):
        manifest.read(image)


def test_a_manifest_of_an_older_build_says_what_it_lacks(image: Path) -> None:
    path = image.with_suffix(".json")
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("files", "runs_on")}
    path.write_text(json.dumps(old))
    with pytest.raises(OverlayMismatch, match="lacks runs_on, files; build the overlay again"):
        manifest.read(image)


def test_another_board_is_refused_with_both_names(image: Path) -> None:
    found = manifest.read(image)
    manifest.check_place(found, image, None)
    manifest.check_place(found, image, "csim")
    with pytest.raises(OverlayMismatch, match=r"built for 'csim' .*, this is 'KV260'"):
        manifest.check_place(found, image, "KV260")


# Loading, on the csim board


def load(image: Path) -> None:
    pytest.importorskip("pynq")
    from speckv_pynq.device.pynq_csim import CsimDevice
    from speckv_pynq.device.pynq_overlay import SpeckvOverlay

    device = CsimDevice("test")
    try:
        SpeckvOverlay(image, device=device)
    finally:
        device.close()


@pytest.mark.requires("pynq", "libspeckv")
def test_an_overlay_of_a_board_is_refused_on_csim(image: Path) -> None:
    change(image, target="kv260", runs_on="KV260")
    with pytest.raises(
        OverlayMismatch, match=r"built for 'KV260' \(target 'kv260'\), this is 'csim'"
    ):
        load(image)


@pytest.mark.requires("pynq", "libspeckv")
def test_a_description_of_other_units_is_refused(image: Path) -> None:
    pytest.importorskip("pynq")
    from tests.runtime import boards

    boards.redescribe(image, hwh.render_hwh(1))
    with pytest.raises(
        OverlayMismatch, match=r"compute units \{'kv_compress': 1, .* says \{'kv_compress': 2"
    ):
        load(image)


@pytest.mark.requires("pynq", "libspeckv")
def test_open_device_refuses_a_file_that_was_exchanged(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECKV_DEVICE", "csim")
    pytest.importorskip("pynq")
    monkeypatch.setattr(hwh, "OVERLAY_DIR", tmp_path)
    open_device("pynq").close()
    os.truncate(image, 3)
    with pytest.raises(OverlayMismatch, match="not the file that was built"):
        open_device("pynq")
