"""How much each layer may read."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import numpy as np

from speckv_pynq.integrations._choice import Chooser
from speckv_pynq.integrations._layout import Layout

pytestmark = pytest.mark.requires("libspeckv")
BLOCK, BLOCKS, HEAD_DIM = 16, 40, 64


def masses(wide: list[bool]) -> np.ndarray:
    """(rows, positions) attention: all the same, or most of it to one block."""
    narrow = np.full(BLOCKS * BLOCK, 0.01 / (BLOCKS * BLOCK), np.float32)
    narrow[5 * BLOCK : 6 * BLOCK] += 0.99 / BLOCK
    even = np.full(BLOCKS * BLOCK, 1 / (BLOCKS * BLOCK), np.float32)
    return np.stack([even if row else narrow for row in wide])


@pytest.mark.parametrize("fit", [True, False])
def test_layers_whose_attention_is_wider_read_more(fit: bool) -> None:
    """Of row 0 that is layer 1, of row 1 layer 0; both rows read as many blocks in all."""
    layout = Layout.empty(2, BLOCK, 0).append(BLOCKS * BLOCK).after
    chooser = Chooser(2, 1, HEAD_DIM, BLOCK, 0, 0.25, 0, fit)
    chooser.begin(layout, np.zeros(2, np.int64))
    random = np.random.default_rng(0)
    for layer in range(2):
        keys = random.normal(size=(2, 1, BLOCKS * BLOCK, HEAD_DIM)).astype(np.float32)
        chooser.extend(layer, keys)
    chooser.fit(0, masses([False, True]))
    chooser.fit(1, masses([True, False]))
    query = random.normal(size=(2, 1, HEAD_DIM)).astype(np.float32)
    chosen = [chooser.choose(layer, query, layout) for layer in range(2)]
    counts = np.array([np.bincount(layout.block_rows[c], minlength=2) for c in chosen])
    # Of 40 blocks a quarter, of which the last one begun is always there and, here, coded.
    assert counts.tolist() == ([[5, 15], [15, 5]] if fit else [[10, 10], [10, 10]])
