"""Runs of lines in a file that grows and shrinks at its end."""

from __future__ import annotations

from bisect import bisect_left, insort


class Lines:
    """Best fit, lowest first, neighbours joined. `top`: no line at or above it is in use."""

    def __init__(self) -> None:
        self.top = 0
        self._by_size: list[tuple[int, int]] = []  # (lines, first) of free runs, in order
        self._by_start: dict[int, int] = {}  # first -> lines
        self._by_end: dict[int, int] = {}  # one past the last -> first

    def take(self, lines: int) -> int:
        """First line of a run; at the top where no free run is long enough."""
        at = bisect_left(self._by_size, (lines, 0))
        if at == len(self._by_size):
            first = self.top
            self.top += lines
            return first
        size, first = self._by_size[at]
        self._forget(first, size)
        if size > lines:
            self._remember(first + lines, size - lines)
        return first

    def give(self, first: int, lines: int) -> None:
        """Takes a run back; the caller took it before."""
        end = first + lines
        before = self._by_end.get(first)
        if before is not None:
            self._forget(before, first - before)
            first = before
        after = self._by_start.get(end)
        if after is not None:
            self._forget(end, after)
            end += after
        if end == self.top:
            self.top = first
        else:
            self._remember(first, end - first)

    def occupy(self, first: int, lines: int) -> None:
        """While a file is read, in order: this run is in use, what lies between it and `top` free."""
        if first > self.top:
            self._remember(self.top, first - self.top)
        self.top = first + lines

    def _remember(self, first: int, lines: int) -> None:
        insort(self._by_size, (lines, first))
        self._by_start[first] = lines
        self._by_end[first + lines] = first

    def _forget(self, first: int, lines: int) -> None:
        del self._by_size[bisect_left(self._by_size, (lines, first))]
        del self._by_start[first], self._by_end[first + lines]
