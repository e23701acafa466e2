"""The command line itself: help, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from speckv_pynq.cli import app, bench
from speckv_pynq.errors import PoolFull

COMMANDS = [
    [],
    ["demo"],
    ["generate"],
    ["eval"],
    ["bench"],
    ["bench", "codec"],
    ["bench", "generate"],
    ["bench", "memory"],
    ["doctor"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example_and_names_the_command(speckv, command):
    ran = speckv(*command, "--help", json_file=False)
    assert ran.code == 0
    assert f"usage: {' '.join(['speckv', *command])}" in ran.out
    assert "examples:\n  " in ran.out
    assert f"speckv {' '.join(command)}".strip() in ran.out.partition("examples:")[2]
    assert max(map(len, ran.out.splitlines())) <= 120


def test_help_needs_no_optional_package():
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'matplotlib', 'pynq', 'lz4'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from speckv_pynq.cli import main\n"
        "print(main(['eval', '--model', 'x']))\n"
        "main(['demo', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("2\nusage: speckv demo")
    assert done.stderr == "speckv: torch is not installed: pip install 'speckv-pynq[hf]'\n"


def test_version(speckv):
    ran = speckv("--version", json_file=False)
    assert ran.code == 0
    assert ran.out.startswith("speckv 0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND", "speckv --help"]),
        (["dance"], ["dance", "demo", "doctor"]),
        (["eval", "--scheme", "zip"], ["zip", "int4"]),
        (["eval", "--context", "0"], ["--context", "0 < 1"]),
        (["eval", "--text", "nowhere.txt"], ["nowhere.txt"]),
        (["generate", "--prompt", "a", "--l1-mb", "-1"], ["--l1-mb", "-1"]),
        (["demo", "--l1-share", "2"], ["--l1-share", "0..1"]),
    ],
)
def test_a_wrong_argument_is_one_line(speckv, arguments, words):
    ran = speckv(*arguments, json_file=False)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert all(word in ran.err for word in words), ran.err


@pytest.mark.parametrize("code", ["error", "interrupt", "module"])
def test_expected_failures_end_in_one_line(monkeypatch, capsys, code):
    raised = {
        "error": PoolFull("L3:\n  full"),
        "interrupt": KeyboardInterrupt(),
        "module": ModuleNotFoundError("No module named 'lz4'", name="lz4.frame"),
    }

    def fail(*_):
        raise raised[code]

    monkeypatch.setattr(app.doctor.checks, "run_all", lambda board: fail())
    want = {
        "error": (2, "speckv: L3: full\n"),
        "interrupt": (130, "speckv: interrupted\n"),
        "module": (2, "speckv: lz4 is not installed: pip install 'speckv-pynq[bench]'\n"),
    }
    assert (app.main(["doctor"]), capsys.readouterr().err) == want[code]


def test_an_unexpected_failure_is_not_hidden(monkeypatch):
    monkeypatch.setattr(app.doctor.checks, "run_all", lambda board: {}["a bug"])
    with pytest.raises(KeyError):
        app.main(["doctor"])


def test_a_json_file_that_cannot_be_written_is_found_before_work(speckv, tmp_path):
    ran = speckv("doctor", "--json", tmp_path / "no" / "such.json", json_file=False)
    assert (ran.code, ran.out) == (2, "")
    assert "such.json: cannot be written" in ran.err


def test_bench_without_a_name_runs_all():
    assert bench.completed(["bench"]) == ["bench", "all"]
    assert bench.completed(["bench", "--json", "f"]) == ["bench", "all", "--json", "f"]
    assert bench.completed(["bench", "codec"]) == ["bench", "codec"]
    assert bench.completed(["bench", "--help"]) == ["bench", "--help"]
    assert bench.completed(["demo"]) == ["demo"]
