"""overlay/build.py as its user sees it: dry runs, refusals, missing tools, csim."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from overlay import board as boards
from overlay import build, steps
from overlay.estimate import units
from speckv_pynq import spec
from speckv_pynq.device import hwh
from speckv_pynq.errors import ConfigError, SpeckvError
from tests.overlay.builds import ALVEO, BOARDS, ZYNQ, dry

ROOT = Path(__file__).resolve().parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = build.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_all_boards_of_the_readme_are_there() -> None:
    assert set(ALVEO) == {"u55c", "u280", "u250"}
    assert set(ZYNQ) == {"kv260", "zcu104", "pynq-z2"}


@pytest.mark.parametrize("name", [*BOARDS, "csim"])
def test_a_dry_run_prints_everything_and_writes_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ROOT", tmp_path)
    code, out, _ = run(capsys, name, "--dry-run")
    assert code == 0
    made = build.Build(boards.load(name), dry(name, tmp_path / "x").p, None)
    for step in made.steps:
        assert step.command[0] in out
    for path in [*(made.out / file for file in made.files), *made.images]:
        assert str(path) in out
    assert ("ESTIMATE" in out) == (name != "csim")
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("name", BOARDS)
def test_a_dry_run_with_out_writes_what_the_commands_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = run(capsys, name, "--dry-run", "--out", tmp_path)
    assert code == 0
    made = dry(name, tmp_path)
    for step in made.steps:
        for word in step.command:
            if word.startswith("/") and Path(word).suffix in {".cfg", ".tcl", ".cpp"}:
                assert Path(word).is_file()
    kernels = units(made.board, made.p.engines)
    compiled = [s for s in made.steps if s.command[:2] == ("v++", "-c")]
    assert len(compiled) == (len(kernels) if name in ALVEO else 0)
    assert made.steps[-1].command[0] == ("v++" if name in ALVEO else "vivado")


def test_it_runs_as_a_script_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "overlay/build.py"), "pynq-z2", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "vivado -mode batch" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["u56c"], "'u56c' is not one of csim, kv260"),
        (["u55c", "--engines", "0"], "engines 0 is not within 1..8"),
        (["u55c", "--engines", "9"], "engines 9 is not within 1..8"),
        (["u55c", "--engines", "4"], "m_axi ports 45 > 31"),
        (["pynq-z2", "--engines", "2"], r"lut \d+ > 45220 .* m_axi ports 20 > 16"),
        (["csim", "--engines", "17", "--out", "x"], "engines 17 is not within 1..16"),
        (["csim", "--engines", "3"], "needs --out"),
        (["csim", "--clock-mhz", "100", "--out", "x"], "csim has no clock"),
        (["kv260", "--clock-mhz", "301"], "clock_mhz 301 is not within 25..300"),
        (["kv260", "--clock-mhz", "nan"], "clock_mhz nan is not within 25..300"),
        (["pynq-z2", "--schemes", "raw,int4,klt"], "lut 81288 > 45220"),
        (["kv260", "--schemes", "raw,lossless,int4"], r"bram36 \d+ > 122 \(85% of 144\)"),
        (["u55c", "--schemes", "int4"], "falls back to raw"),
        (["u55c", "--schemes", "raw,klt"], "klt falls back to int4"),
        (["u55c", "--schemes", "raw,zip"], "'zip' is not one of raw, int8_delta_rle"),
        (["u55c", "--max-block-bytes", "4096"], "max_block_bytes 4096 is not within 8192..1048576"),
        (["u55c", "--max-block-bytes", "2097152"], "max_block_bytes 2097152 is not within"),
        (["u55c", "--max-block-bytes", "10000"], "10000 is not a multiple of 8192"),
        (["u55c", "--max-block-bytes", "1048576"], "bram36 .* > 1512"),
    ],
)
def test_what_does_not_fit_is_refused_with_value_and_limit(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments, "--dry-run")
    assert code == 1
    assert out == ""
    assert err.startswith("ConfigError: ")
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err


def test_what_fits_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--engines", 1, "--schemes", "raw,int4", "--max-block-bytes", 65536)
    code, out, _ = run(capsys, "u55c", "--dry-run", *arguments, "--clock-mhz", 250)
    assert code == 0
    assert (
        "1 kv_compress, 1 kv_decompress, 1 kv_prefetch; schemes raw, int4; blocks up to 65536"
        in out
    )
    assert "250 MHz" in out


BAD_FILES = [
    ("lut = 53200", "luts = 53200", r"\[fabric\] key 'luts' is none of lut, dsp"),
    ("lut = 53200", 'lut = "many"', r"\[fabric\] lut = 'many' is not an integer"),
    ("lut = 53200\n", "", r"\[fabric\] lacks lut"),
    ('family = "zynq7"', 'family = "zynq8"', "family 'zynq8' is not one of alveo"),
    ("[place]", "[places]", r"table \[places\] is none of"),
    ('blocks = "HP0"', 'blocks = "HP7"', "blocks = 'HP7': HP7 does not exist; the board has HP0"),
    ('codebooks = "HP3"\n', "", r"\[place\] lacks codebooks"),
    ('codebooks = "HP3"\n', 'codebooks = "HP3"\nghost = "HP3"\n', "ghost is no memory argument"),
    ("lanes = 4 ", "lanes = 5 ", r"lanes = 5 is not one of \(4, 8, 16, 32\)"),
    ('storage = ["bram"]', 'storage = ["flash"]', "storage 'flash' is not one of lutram"),
    ('storage = ["bram"]', "storage = []", "storage None is not one of lutram"),
    ("axi_burst_beats = 16", "axi_burst_beats = 0", r"\[kernel\] axi_burst_beats = 0 < 1"),
    ('"kv_decompress"]', '"kv_expand"]', "kernel 'kv_expand' is not one of kv_compress"),
    ('"kv_decompress"]', '"kv_compress"]', "a kernel stands twice"),
    ("dsp = 0.85", "dsp = 85", r"\[limit\] dsp = 85 is not within 0..1"),
    ("[clock]", "[clock", "not TOML"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_FILES)
def test_a_wrong_board_file_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = (boards.BOARDS / "pynq-z2.toml").read_text()
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        boards.load("mine", tmp_path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(("name", "tool"), [("u55c", "v++"), ("kv260", "vivado")])
def test_missing_tools_are_named_with_what_to_install(
    name: str,
    tool: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run(capsys, name, "--out", tmp_path / "out")
    assert code == 1
    assert err.startswith("DependencyMissing: not on PATH: ")
    assert f"{tool}: {steps.TOOLS[tool]}" in err
    assert not (tmp_path / "out").exists()


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_newer_releases_call_vitis_hls_otherwise(tools: Path, tmp_path: Path) -> None:
    for name in ("vitis-run", "vivado"):
        fake(tools, name, "exit 0")
    first, _ = steps.present(dry("kv260", tmp_path).steps)
    script = str(tmp_path / "hls.tcl")
    assert first.command == ("vitis-run", "--mode", "hls", "--tcl", script)


def test_a_board_build_ends_with_a_manifest_of_its_files(tools: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fake(tools, "vitis_hls", "exit 0")
    fake(tools, "vivado", "echo bits > image/speckv.bit; echo description > image/speckv.hwh")
    made = dry("kv260", out)
    assert made.run() == out / "image/speckv.bit"
    manifest = json.loads((out / "image/speckv.json").read_text())
    assert manifest["target"] == "kv260"
    assert manifest["runs_on"] == "KV260"
    assert int(manifest["abi_id"], 0) == spec.ABI_ID
    assert set(manifest["files"]) == {"speckv.bit", "speckv.hwh"}
    assert manifest["compute_units"] == units(made.board, made.p.engines)
    assert manifest["parameters"]["max_block_bytes"] == made.p.max_block_bytes


@pytest.mark.parametrize(
    ("body", "message"), [("exit 3", "vivado ended with 3"), ("exit 0", r"left no .*speckv\.bit")]
)
def test_a_tool_that_fails_leaves_no_manifest(
    tools: Path, tmp_path: Path, body: str, message: str
) -> None:
    fake(tools, "vitis_hls", "exit 0")
    fake(tools, "vivado", body)
    with pytest.raises(SpeckvError, match=message):
        dry("kv260", tmp_path / "out").run()
    assert not (tmp_path / "out/image/speckv.json").exists()


def test_csim_builds_library_and_overlay(tools: Path, tmp_path: Path) -> None:
    """With a stand-in for cmake: the real one takes minutes, and `make native` runs it."""
    fake(tools, "cmake", "mkdir -p native && touch native/libspeckv.so")
    made = dry("csim", tmp_path / "out", engines=3, schemes="raw,int4", max_block_bytes=65536)
    image = made.run()
    assert image == tmp_path / "out/overlay" / hwh.CSIM_BITFILE
    assert set(made.images) <= set((tmp_path / "out").rglob("*"))
    flags = next(word for word in made.steps[0].command if "CMAKE_CXX_FLAGS" in word)
    assert "SPECKV_MAX_BLOCK_BYTES=65536u" in flags
    assert "SPECKV_SCHEMES=0x5u" in flags
    assert json.loads(image.with_suffix(".json").read_text())["parameters"]["schemes"] == [
        "raw",
        "int4",
    ]


def test_csim_in_place_is_what_make_native_builds() -> None:
    made = build.Build(boards.load("csim"), dry("csim", ROOT / "x").p, None)
    words = [word for step in made.steps for word in step.command]
    assert "-DSPECKV_IN_PLACE=ON" in words
    assert ROOT / "speckv_pynq/libspeckv.so" in made.images
    assert hwh.OVERLAY_DIR / hwh.CSIM_BITFILE in made.images


@pytest.mark.requires("pynq", "libspeckv")
def test_pynq_reads_the_description_of_a_csim_build(tools: Path, tmp_path: Path) -> None:
    pytest.importorskip("pynq")
    from speckv_pynq.device.pynq_csim import CsimDevice
    from speckv_pynq.device.pynq_overlay import SpeckvOverlay

    fake(tools, "cmake", "mkdir -p native && touch native/libspeckv.so")
    device = CsimDevice("test")
    try:
        overlay = SpeckvOverlay(dry("csim", tmp_path, engines=3).run(), device=device)
        for name, kernel, base in hwh.instances(3):
            found = overlay.ip_dict[name]
            assert found["phys_addr"] == base
            assert found["type"] == hwh.vlnv(kernel)
            registers = found["registers"]
            assert registers["abi_id_1"]["address_offset"] == spec.KERNELS[kernel][-1].offset
        assert len(overlay.compress_units) == 3
        assert overlay.manifest["compute_units"] == dict.fromkeys(spec.KERNELS, 3)
    finally:
        device.close()
