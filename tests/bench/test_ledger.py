"""Partial results: what was measured is not measured again, and never taken for something else."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from speckv_pynq.bench.contenders import Sizes  # noqa: E402
from speckv_pynq.bench.ledger import Ledger, key  # noqa: E402
from speckv_pynq.errors import ConfigError  # noqa: E402


def test_what_was_saved_comes_back_to_the_bit(tmp_path):
    path = tmp_path / "part.json"
    ledger = Ledger(path, "run")
    sums, sizes = np.random.default_rng(0).normal(size=(3, 5)), Sizes(1, 2, 3, 4, 5, 6)
    assert ledger.missing(["a", "b"], 0) == [0, 1]
    ledger.add("a", 0, sums, sizes)
    ledger.save()
    again = Ledger(path, "run")
    assert again.missing(["a", "b"], 0) == [1]
    assert again.missing(["a", "b"], 1) == [0, 1]
    got, got_sizes = again.get("a", 0)
    assert got.tobytes() == sums.tobytes()
    assert got_sizes == sizes
    assert [p.name for p in tmp_path.iterdir()] == ["part.json"]


def test_another_run_is_refused(tmp_path):
    path = tmp_path / "part.json"
    Ledger(path, "one").save()
    with pytest.raises(ConfigError, match="run one, this one is two"):
        Ledger(path, "two")
    path.write_text("{}")
    with pytest.raises(ConfigError, match="not a file of partial results"):
        Ledger(path, "one")


def test_a_run_is_its_text_and_settings():
    ids = torch.arange(20).view(2, 10)
    keys = {key(ids, "m"), key(ids, "n"), key(ids.view(4, 5), "m"), key(ids.flip(0), "m")}
    assert len(keys) == 4
    assert key(ids, "m") == key(ids.clone(), "m")
