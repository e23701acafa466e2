"""hls/generate.py: its outputs are fresh, a stale one is found, a contradictory spec is refused."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "hls/generate.py"


def load() -> ModuleType:
    module_spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules["generate"] = module  # dataclasses look their module up
    module_spec.loader.exec_module(module)
    return module


generate = load()
SPEC = generate.tomllib.loads((ROOT / "hls/spec.toml").read_text())
OUTPUTS = [path.relative_to(ROOT) for path in generate.render(SPEC)]


def test_outputs_in_the_repository_are_fresh() -> None:
    run = subprocess.run(
        [sys.executable, SCRIPT, "--check"], check=False, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with fresh outputs, which the generator takes for the repository."""
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0
    return tmp_path


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("how", ["edited", "missing"])
def test_each_stale_output_is_named(
    elsewhere: Path, output: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    if how == "edited":
        (elsewhere / output).write_text((elsewhere / output).read_text() + "\n")
    else:
        (elsewhere / output).unlink()
    assert generate.main() == 1
    assert capsys.readouterr().out == f"stale: {output}\n"


def changed(path: tuple, value: object) -> dict:
    spec = copy.deepcopy(SPEC)
    place = spec
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return spec


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("completion", "fields", 0, 1), "u8", "completion.flags: offset 1 is not aligned to u16"),
        (("descriptor", "size"), 128, "fields end at 64, size says 128"),
        (("address", "vectors", 1, 6), 2, "address vector .*: spec says 0x0, 0x2"),
        (
            ("coherence", "illegal", 1, 1),
            "put_dirty cancel",
            r"shared has neither .* \['write_back'\]",
        ),
        (
            ("coherence", "illegal", 1, 1),
            "put_dirty write_back cancel ack",
            "shared on ack stands twice",
        ),
        (("coherence", "transitions", 0, 2), "owned", "'owned' is not among the states"),
        (("coherence", "transitions", 0, 1), "get", "'get' is not among the events"),
        (("coherence", "transitions", 0, 3), "give", "'give' is not among the actions"),
        (("coherence", "transitions", 0, 3), "", "invalid on get_shared: a request has one answer"),
        (("coherence", "transitions", 5, 3), "drop grant", "shared on put_clean: .* one answer"),
        (
            ("coherence", "transitions", 17, 2),
            "shared",
            "busy changes nothing, yet leads to shared",
        ),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(path: tuple, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generate.render(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "changes"),
    [
        (("descriptor", "fields", 0, 0), "record_address", True),
        (("completion", "fields", 2, 0), "bytes", True),
        (("status", "bad_crc"), 99, True),
        (("kernels", 0, "arguments", 4, 2), 64, True),
        (("address", "fields", 0, 1), 31, True),
        (("record_header", "fields", 17, 0), "params", False),
        (("format_version",), 2, False),
    ],
)
def test_abi_id_covers_what_library_and_overlay_share(
    path: tuple, value: object, changes: bool
) -> None:
    assert (generate.abi_id(changed(path, value)) != generate.abi_id(SPEC)) is changes
