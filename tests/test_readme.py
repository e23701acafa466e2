"""README and docs: examples run, links lead somewhere, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from speckv_pynq.cli.app import build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGES[0].read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.requires("libspeckv")
@pytest.mark.parametrize("code", EXAMPLES, ids=["transformers", "numpy", "system"])
def test_examples_run(code, request, capsys):
    if "smollm2" in code:
        request.getfixturevalue("smollm2")  # skips where the model is missing
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_shown_are_commands(page):
    """Every `speckv ...` on a page parses, after what stands for something is left out."""
    for line in re.findall(r"`(speckv [a-z][^`\n]*)`", page.read_text()):
        words = line.split()[1:]
        if any(word.isupper() or "..." in word for word in words):
            continue
        if words == ["bench"]:
            words = ["bench", "all"]
        build_parser().parse_args(words)
