"""The picture comes out whatever the points are, and labels leave one another alone."""

from __future__ import annotations

import math

import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from speckv_pynq.bench import curve  # noqa: E402
from speckv_pynq.bench.curve import Point  # noqa: E402


def point(name, ratio, dppl, family="f", **named):
    return Point(family, name, True, False, ratio, dppl, dppl - 0.1, dppl + 0.2, **named)


CASES = {
    "crowded": [point(f"p{i}", 1 + i / 100, i / 500, f"f{i % 5}") for i in range(8)],
    "one": [point("alone", 3.4, 0.3)],
    "no interval": [Point("f", "x", False, True, r, r / 9, math.nan, math.nan) for r in (2, 3, 9)],
    "falls": [point("better", 2.0, -0.4), point("worse", 9.0, 80.0)],
}


@pytest.mark.parametrize("points", CASES.values(), ids=CASES)
def test_a_picture(points, tmp_path):
    path = tmp_path / "curve.png"
    curve.save(points, "title", path)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_labels_do_not_overlap():
    from matplotlib import pyplot

    points = CASES["crowded"]
    figure, axes = pyplot.subplots(figsize=(9, 5.6), layout="constrained")
    curve._draw(axes, points)
    figure.canvas.draw()
    curve._label(figure, axes, points)
    boxes = [text.get_window_extent() for text in axes.texts]
    pyplot.close(figure)
    assert len(boxes) == len(points)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
