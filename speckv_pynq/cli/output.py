"""What commands print: tables and progress by rich, figures as JSON."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from speckv_pynq.bench import machine
from speckv_pynq.errors import ConfigError

WIDTH = 110  # where the output is not a terminal


class Output:
    """Tables on stdout, progress and errors on stderr; with `--json -` tables go to stderr too."""

    def __init__(self, json_path: str | None = None) -> None:
        self._json_path = json_path
        self.errors = _console(stderr=True)
        self.console = _console(stderr=json_path == "-")

    def check(self) -> None:
        """ConfigError when figures cannot be written: before minutes of work, not after."""
        if self._json_path is None or self._json_path == "-":
            return
        path = Path(self._json_path)
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError(f"--json {self._json_path}: cannot be written")

    def fail(self, message: str) -> None:
        """One line on stderr."""
        print(f"speckv: {message}", file=sys.stderr)

    def say(self, text: str) -> None:
        """A line, markup taken as it stands."""
        self.console.print(escape(text), highlight=False)

    def note(self, text: str) -> None:
        """A line under a table."""
        self.console.print(f"[dim]{escape(text)}[/dim]", highlight=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """First column left, the others right aligned; a row of one cell is a heading."""
        table = Table(box=box.SIMPLE_HEAD)
        for i, column in enumerate(columns):
            table.add_column(escape(column), justify="right" if i else "left", overflow="fold")
        for row in rows:
            if len(row) == 1:
                table.add_section()
                table.add_row(f"[bold]{escape(row[0])}[/]")
            else:
                table.add_row(*(escape(cell) for cell in row))
        self.console.print(
            f"[bold]{escape(title)}[/]", highlight=False
        )  # rich would wrap it to the table's width
        self.console.print(table, highlight=False)

    @contextmanager
    def progress(self, what: str, total: float) -> Iterator[Callable[..., None]]:
        """A bar on stderr while the block runs; call what it yields with the units done (default 1)."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = not self.errors.is_terminal
        with Progress(*columns, console=self.errors, transient=True, disable=hidden) as bar:
            task = bar.add_task(what, total=total)

            def advance(units: float = 1, description: str | None = None) -> None:
                bar.update(task, advance=units, description=description)

            yield advance

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, float], Callable[..., None]]]:
        """One `progress` after the other: call what it yields with a name and its units; the bar before it ends."""
        with ExitStack() as stack:

            def stage(what: str, total: float) -> Callable[..., None]:
                stack.close()
                return stack.enter_context(self.progress(what, total))

            yield stage

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A spinner while something of unknown length runs."""
        with self.errors.status(what):
            yield

    def json(self, command: str, figures: Mapping[str, Any], default: Path | None = None) -> None:
        """Writes what `--json` asked for: the command, its figures, and the machine. default: where without it."""
        path = default if self._json_path is None else self._json_path
        if path is None:
            return
        report = {"command": command, **figures, "machine": machine.describe()}
        text = json.dumps(_plain(report), indent=2) + "\n"
        if path == "-":
            sys.stdout.write(text)
            return
        Path(path).write_text(text)
        self.note(f"figures: {path}")


def mb(nbytes: float) -> str:
    """Megabytes, 1e6 bytes."""
    return f"{nbytes / 1e6:.1f} MB"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH)


def _plain(value: Any) -> Any:
    """With null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
