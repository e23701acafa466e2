"""Recorded traces of requests: JSON lines as Mooncake, Qwen-Bailian and AIPerf write them.

A line is an object with `hash_ids` (ids of the prompt's blocks, equal where all tokens up to their end are), and
`output_length` (tokens). Three kinds of time:

- `timestamp`, ms since the trace began (Mooncake, arXiv 2407.00079);
- `timestamp` in seconds where the line has a `chat_id` (qwen-bailian-usagetraces-anon);
- `session_id`, and from a session's second line on `delay`, ms since its last answer was complete, with `hash_ids` that
  follow those before (AIPerf). Sessions begin in the file's order, so many at once as the reader is told.

`type` (a string), where it is there, is what the predictor is told of a request's kind. All else is ignored.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from speckv_pynq.bench.returns_traces import TOKEN_S, Request, RequestTrace, renumbered
from speckv_pynq.errors import TraceError

MAX_LINE_BYTES: Final = 16 << 20
MAX_ID: Final = 1 << 62
MAX_S: Final = 1e9
MAX_TOKENS: Final = 1 << 32
_Session = list[
    tuple[float, float, list[int], str]
]  # of each request: delay, answer, in seconds; new ids; type


def read(path: Path, sessions_at_once: int = 64) -> RequestTrace:
    """TraceError names the line, the value and the limit."""
    if sessions_at_once < 1:
        raise TraceError(f"sessions_at_once {sessions_at_once} < 1")
    try:
        with path.open("rb") as file:
            requests = parse(file, sessions_at_once)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    return renumbered(path.stem, requests)


def parse(lines: Iterable[bytes], sessions_at_once: int = 64) -> list[Request]:
    """Requests of a trace's lines, empty ones aside; TraceError, as `read`."""
    found: list[Request] = []
    sessions: dict[str, _Session] = {}
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_BYTES:
            raise TraceError(f"line {number}: {len(line)} bytes > {MAX_LINE_BYTES}")
        if not line.strip():
            continue
        row = _row(line, number)
        ids = _ids(row.get("hash_ids"), number)
        answer_s = TOKEN_S * _number(row, "output_length", number, MAX_TOKENS)
        kind = row.get("type", "")
        if not isinstance(kind, str):
            raise TraceError(f"line {number}: type {kind!r} is not a string")
        if "session_id" in row:
            session = sessions.setdefault(repr(row["session_id"]), [])
            delay_s = _number(row, "delay", number, 1e3 * MAX_S) / 1e3 if session else 0.0
            session.append((delay_s, answer_s, ids, kind))
            continue
        scale = 1.0 if "chat_id" in row else 1e-3
        start_s = scale * _number(row, "timestamp", number, MAX_S / scale)
        found.append(Request(start_s, start_s + answer_s, _distinct(ids), kind))
    return found + _replayed(list(sessions.values()), sessions_at_once)


def _replayed(sessions: list[_Session], at_once: int) -> list[Request]:
    """Each begins when fewer than at_once others go on."""
    found, ends = [], [0.0] * at_once
    for session in sessions:
        now_s, blocks = heapq.heappop(ends), []
        for delay_s, answer_s, ids, kind in session:
            blocks += ids
            start_s, now_s = now_s + delay_s, now_s + delay_s + answer_s
            found.append(Request(start_s, now_s, _distinct(blocks), kind))
        heapq.heappush(ends, now_s)
    return found


def _row(line: bytes, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one
        raise TraceError(f"line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise TraceError(f"line {number}: {type(row).__name__} where an object should be")
    return row


def _ids(value: Any, number: int) -> list[int]:
    if not isinstance(value, list):
        raise TraceError(f"line {number}: hash_ids {str(value)[:40]} is not a list")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < MAX_ID:
            raise TraceError(
                f"line {number}: hash_ids has {str(one)[:40]}, not an integer of 0..{MAX_ID - 1}"
            )
    return value


def _number(row: dict[str, Any], name: str, number: int, most: float) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TraceError(f"line {number}: {name} {str(value)[:40]} is not a number")
    if not (value == value and 0 <= value <= most):
        raise TraceError(f"line {number}: {name} {str(value)[:40]} is not within 0..{most:.0f}")
    return float(value)


def _distinct(ids: list[int]) -> np.ndarray:
    return np.array(list(dict.fromkeys(ids)), np.int64)
