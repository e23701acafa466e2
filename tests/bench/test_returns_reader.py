"""Recorded traces: what is read, what is refused, and that nothing else is ever raised."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speckv_pynq.bench.returns_reader import MAX_LINE_BYTES, parse, read
from speckv_pynq.bench.returns_traces import TOKEN_S
from speckv_pynq.errors import TraceError

GOOD = {"timestamp": 27482, "input_length": 6955, "output_length": 50, "hash_ids": [46, 47, 2353]}
IDS = st.lists(st.integers(0, 1 << 40), max_size=8, unique=True)


def lines(*rows: object) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in rows]


def test_mooncake() -> None:
    (request,) = parse([b"\n", *lines(GOOD)])
    assert request.starts_s == pytest.approx(27.482)
    assert request.ends_s == pytest.approx(27.482 + 50 * TOKEN_S)
    assert (request.blocks.tolist(), request.kind) == ([46, 47, 2353], "")


def test_bailian_gives_seconds_and_a_type() -> None:
    (request,) = parse(lines({**GOOD, "timestamp": 61.114, "chat_id": 159, "type": "search"}))
    assert (request.starts_s, request.kind) == (61.114, "search")


def test_sessions_follow_one_another_and_themselves() -> None:
    rows = [
        {"session_id": "a", "output_length": 100, "hash_ids": [1, 2], "timestamp": 0.0},
        {"session_id": "a", "output_length": 0, "hash_ids": [3], "delay": 1500.0},
        {"session_id": "b", "output_length": 0, "hash_ids": [1, 9], "timestamp": 0.0},
    ]
    first, second, third = parse(lines(*rows), sessions_at_once=1)
    assert second.starts_s == pytest.approx(first.ends_s + 1.5)
    assert second.blocks.tolist() == [1, 2, 3]
    assert third.starts_s == pytest.approx(second.ends_s)
    assert [request.starts_s for request in parse(lines(*rows), 2)][::2] == [0.0, 0.0]


def test_a_file_is_read_in_order_of_time_with_blocks_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    late, soon = {**GOOD, "timestamp": 9}, {**GOOD, "timestamp": 1, "hash_ids": [2353, 7]}
    path.write_bytes(b"".join(lines(late, soon)))
    trace = read(path)
    assert trace.name == "some"
    assert [request.starts_s for request in trace.requests] == pytest.approx([0.001, 0.009])
    assert [request.blocks.tolist() for request in trace.requests] == [[0, 1], [2, 3, 0]]
    assert (trace.blocks, trace.uses, trace.first(1).blocks) == (4, 5, 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"timestamp": -1}, "timestamp -1"),
        ({"timestamp": float("nan")}, "timestamp nan"),
        ({"timestamp": 1e300}, "timestamp 1e"),
        ({"timestamp": True}, "timestamp True"),
        ({"timestamp": None}, "timestamp None"),
        ({"output_length": "5"}, "output_length 5"),
        ({"hash_ids": 5}, "hash_ids 5"),
        ({"hash_ids": [1, -2]}, "-2"),
        ({"hash_ids": [1, 2.0]}, r"2\.0"),
        ({"hash_ids": [1, True]}, "True"),
        ({"hash_ids": [1 << 62]}, str(1 << 62)),
        ({"type": 5}, "type 5"),
    ],
)
def test_what_is_no_request_is_named_with_its_line(change: dict[str, object], named: str) -> None:
    with pytest.raises(TraceError, match=f"line 2.*{named}"):
        parse(lines(GOOD, {**GOOD, **change}))


@pytest.mark.parametrize(
    "line",
    [b"{", b"[1]", b"5", b"\xff", b'{"hash_ids": [1],}', b"[" * 100_000, b"1" * 5000, b" " * (MAX_LINE_BYTES + 1)],
    ids=["cut", "list", "number", "bytes", "comma", "deep", "digits", "long"],
)  # fmt: skip
def test_what_is_no_object_too(line: bytes) -> None:
    with pytest.raises(TraceError, match="line 1"):
        parse([line])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(TraceError, match="sessions_at_once 0"):
        read(tmp_path / "none.jsonl", 0)


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.floats(allow_nan=True) | st.integers() | st.text(max_size=3),
        "delay": st.floats() | st.none(),
        "output_length": st.integers(-5, 1 << 40) | st.floats(0, 9),
        "hash_ids": IDS | st.lists(st.integers() | st.none(), max_size=3) | st.text(max_size=2),
        "session_id": st.integers(0, 2) | st.text(max_size=1) | st.lists(st.none(), max_size=1),
        "chat_id": st.integers(),
        "type": st.text(max_size=3) | st.integers(),
    },
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(ROWS.map(lambda row: json.dumps(row).encode()) | st.binary(max_size=40), max_size=6)
)
def test_lines_give_requests_or_a_trace_error(found: list[bytes]) -> None:
    try:
        requests = parse(found)
    except TraceError:
        return
    assert len(requests) == sum(bool(line.strip()) for line in found)
    for request in requests:
        assert 0 <= request.starts_s <= request.ends_s
        assert request.blocks.dtype == np.int64
        assert len(set(request.blocks.tolist())) == len(request.blocks)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_byte_raises_nothing_else(data: st.DataObject) -> None:
    text = bytearray(b"".join(lines(GOOD, GOOD)))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TraceError):
        parse(bytes(text).splitlines(keepends=True))
