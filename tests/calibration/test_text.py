"""Texts as sequences: every kind in any run of them, the end of each held out."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from speckv_pynq.calibration import text  # noqa: E402
from speckv_pynq.errors import ConfigError  # noqa: E402


def encode(written: str):
    return torch.tensor([ord(c) for c in written], dtype=torch.int64)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a.txt", tmp_path / "b.npy"]
    paths[0].write_text("a" * 105)
    np.save(paths[1], np.full(42, ord("b"), np.uint16))
    return paths


def test_kinds_are_mixed_by_their_share(files):
    rows = text.sequences(files, encode, 10)
    assert rows.shape == (14, 10)
    assert [chr(row[0]) for row in rows[:7]].count("b") == 2


def test_the_end_is_held_out(files):
    rows = text.sequences(files, encode, 10)
    used, held_out = text.split(rows, None, 20)
    assert torch.equal(torch.cat([used, held_out]), rows)
    assert len(held_out) == 2
    assert len(text.split(rows, 50, 20)[0]) == 5


def test_rows_of_ids_are_not_joined(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24).reshape(2, 12))
    rows = text.sequences([tmp_path / "x.npy"], encode, 5)
    assert rows[:, 0].tolist() == [0, 5, 12, 17]


@pytest.mark.parametrize(
    ("tokens", "context", "words"),
    [
        (None, 200, "no text of 2 files"),
        (None, 40, "a fifth is held out"),
        (500, 10, "500 tokens asked"),
    ],
)
def test_too_little_text_is_refused(files, tokens, context, words):
    with pytest.raises(ConfigError, match=words):
        text.split(text.sequences(files, encode, context), tokens, 20)


def test_files_that_hold_no_token_ids_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(100))
    (tmp_path / "y.npy").write_text("no array")
    for name in ("x.npy", "y.npy"):
        with pytest.raises(ConfigError, match=name):
            text.sequences([tmp_path / name], encode, 5)


def test_the_digest_knows_order_and_shape():
    rows = torch.arange(12).view(3, 4)
    assert text.digest(rows) != text.digest(rows.flip(0))
    assert text.digest(rows) != text.digest(rows.view(4, 3))
