"""The site: every page and public module is on it, and a build has no warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from speckv_pynq.device.csim import CsimDevice
from speckv_pynq.pool import mapped, memory

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Layers that are used from outside; cli and bench are commands, native and selftest stand behind others.
PUBLIC = {
    "address", "allocator", "calibration", "codebook", "codec", "config", "device", "driver", "errors",
    "integrations", "pool", "predictor", "prefetch", "reference", "spec", "system", "tiers", "training",
}  # fmt: skip


def test_every_public_module_is_in_the_reference():
    pages = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    shown = re.findall(r"^::: speckv_pynq\.([\w.]+)$", pages, re.MULTILINE)
    assert {name.partition(".")[0] for name in shown} == PUBLIC
    assert len(shown) == len(set(shown))
    for name in shown:
        path = ROOT / "speckv_pynq" / Path(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name


@pytest.mark.requires("libspeckv")
def test_the_pool_of_the_page_is_one():
    """docs/adding_a_pool.md: its example, as it stands there."""
    page = (DOCS / "adding_a_pool.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {**vars(memory), **vars(mapped)}
    exec(compile(code, "adding_a_pool.md", "exec"), names)
    pool = names["open_mine"]("here", (1 << 20) + 5)
    with CsimDevice(1) as device:
        assert (pool.kind, pool.nbytes) == ("mine", 1 << 20)
        pool.attach(device).free()
        pool.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.requires("material", "mkdocstrings")
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, timeout=390, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    pages = {str(path.relative_to(DOCS).with_suffix(".html")) for path in DOCS.rglob("*.md")}
    notebooks = {f"tutorials/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert built == pages | notebooks | {"index.html", "404.html"}
    text = "".join((tmp_path / name).read_text() for name in built)
    fetched = re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?:', text)
    assert not fetched  # a page opens with no network
    for anchor in ("codec.Codec.encode_arrays", "pool.FileStore.stats", "spec.Scheme"):
        assert f'id="speckv_pynq.{anchor}"' in text
