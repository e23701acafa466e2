"""`speckv bench returns`: schema, on made and on recorded traces."""

from __future__ import annotations

import json

import pytest

from speckv_pynq.bench.returns import NAMES

POLICIES = ["lru", "lfu-da", "s3-fifo", "arc", "cold", "unlabelled", "returns", "informed", "optimum"]  # fmt: skip


def check(kept: list[dict]) -> None:
    assert list(NAMES) == POLICIES
    for figures in kept:
        shares = figures["hit_share"]
        assert list(shares) == list(figures["closed"]) == POLICIES
        assert max(interval["mean"] for interval in shares.values()) == shares["optimum"]["mean"]
        assert shares["optimum"]["mean"] <= figures["most"] < 1
        assert figures["closed"]["optimum"]["mean"] == 1


def test_made_traces(speckv) -> None:
    ran = speckv("bench", "returns", "--seeds", 2, "--minutes", 2)
    assert (ran.code, ran.err) == (0, "")
    check(ran.figures["kept"])
    names = [figures["trace"] for figures in ran.figures["kept"]]
    assert names == [name for name in ("chat", "agents", "mixed") for _ in range(3)]
    assert len(ran.figures["ahead"]) == len(names) * 4
    for figures in ran.figures["ahead"]:
        assert 0 <= figures["gained"] <= figures["fetched"]
        assert 0 <= figures["wasted"] <= 1
    assert not ran.figures["recorded"]
    assert min(ran.figures["turn_us"], ran.figures["rank_us"]) > 0


def test_recorded_trace(speckv, tmp_path) -> None:
    path = tmp_path / "short.jsonl"
    rows = [
        {"timestamp": 900 * i, "input_length": 999, "output_length": 5, "hash_ids": [i % 3, 10 + i % 3, 20 + i % 7]}
        for i in range(60)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = speckv("bench", "returns", "--trace", path, "--train", path, "--requests", 40)
    assert (ran.code, ran.err) == (0, "")
    check(ran.figures["kept"])
    assert ran.figures["recorded"]
    assert ran.figures["kept"][0]["requests"] == 40
    assert ran.figures["kept"][0]["margin"]["low"] is None  # of one trace there is no interval


@pytest.mark.parametrize(
    ("line", "named"), [("{", "line 1"), ('{"hash_ids": [1], "output_length": 1, "timestamp": 0}', "read again")]
)  # fmt: skip
def test_what_is_no_trace_is_one_line(speckv, tmp_path, line: str, named: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    ran = speckv("bench", "returns", "--trace", path)
    assert ran.code == 2
    assert named in ran.err
    ran = speckv("bench", "returns", "--train", path)
    assert (ran.code, "--train" in ran.err) == (2, True)
