"""What MkDocs cannot do by itself: README and notebooks as pages, and links to files that are not on the site."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<!!)\[([^\]\[]+)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LANGUAGES = {"code": "python", "raw": "text"}


class OrdinaryNames(griffe.Extension):
    """Leaves `__repr__` and the like out of the reference; `__init__` is shown with its class."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        for name in [name for name in cls.members if name.startswith("__") and name != "__init__"]:
            cls.del_member(name)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Notebooks into the section for them, and pages that the navigation does not name to its end."""
    nav: list[Any] = list(config.nav or [])
    notebooks = [f"tutorials/{path.stem}.md" for path in _notebooks()]
    nav = [{"Tutorials": notebooks} if entry == {"Tutorials": []} else entry for entry in nav]
    named = set(_names(nav))
    docs = Path(config.docs_dir)
    pages = sorted(path.relative_to(docs) for path in docs.rglob("*.md"))
    config.nav = nav + [str(page) for page in pages if str(page) not in named]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The pages that stand elsewhere in the tree."""
    readme = (ROOT / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=outside_fences(_from_root, readme)))
    for path in _notebooks():
        page = File.generated(config, f"tutorials/{path.stem}.md", content=notebook_page(path))
        files.append(page)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to sources become their names: the site stands apart from the tree."""
    folder = (Path(config.docs_dir) / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        text, target = match.groups()
        place = target.partition("#")[0]
        if "://" in target or not place or files.get_file_from_path(_on_site(page, place)):
            return match.group()
        path = (folder / place).resolve()
        if not path.is_relative_to(ROOT) or not path.exists():
            return match.group()  # leads nowhere: MkDocs says so
        name = str(path.relative_to(ROOT))
        return text if text.strip("`") == name else f"{text} (`{name}`)"

    return outside_fences(lambda text: LINK.sub(replace, text), markdown)


def notebook_page(path: Path) -> str:
    """A notebook's cells in Markdown. Outputs are not in the tree, so none are shown."""
    cells = json.loads(path.read_text())["cells"]
    parts = [_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    parts.append(f"The notebook: `notebooks/{path.name}`")
    return "\n\n".join(part for part in parts if part)


def outside_fences(change: Any, markdown: str) -> str:
    """Applies `change` to all but the fenced code."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def _cell(kind: str, source: str) -> str:
    if kind == "markdown" or not source:
        return source
    return f"```{LANGUAGES[kind]}\n{source}\n```"


def _notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def _names(entries: list[Any]) -> list[str]:
    """All pages of a navigation."""
    found: list[str] = []
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += _names(value) if isinstance(value, list) else [value]
    return found


def _from_root(markdown: str) -> str:
    """README's links, as seen from docs/, where its page is made."""

    def replace(match: re.Match[str]) -> str:
        text, target = match.groups()
        inside = target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"
        return match.group() if "://" in target else f"[{text}]({inside})"

    return LINK.sub(replace, markdown)


def _on_site(page: Page, target: str) -> str:
    """A link's target as MkDocs names files: relative to docs/."""
    parts: list[str] = []
    for part in (Path(page.file.src_uri).parent / target).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
