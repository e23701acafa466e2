"""Layouts: which tokens are coded, kept and open, by example."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from speckv_pynq.integrations._layout import Cut, Group, KeepCopy, Layout


def blocks(layout: Layout) -> list[tuple[int, int, int]]:
    """(row, start, valid tokens), in the layout's order."""
    columns = (layout.block_rows, layout.block_starts, layout.block_valid)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_sinks_blocks_and_open_run() -> None:
    step = Layout.empty(2, 16, 4).append(40)
    assert blocks(step.after) == [(0, 4, 16), (0, 20, 16), (1, 4, 16), (1, 20, 16)]
    assert step.keeps == (KeepCopy(0, 2, 0, 4, 0),)
    assert step.after.groups == (Group(0, 2, ((0, 4),), 36),)
    more = step.after.append(12)
    assert more.starts.tolist() == [36, 36]
    assert more.keeps == ()


def test_all_is_open_until_a_block_follows_the_sinks() -> None:
    layout = Layout.empty(1, 16, 4)
    for _ in range(19):
        step = layout.append(1)
        assert not len(step.starts)
        layout = step.after
    assert layout.groups == (Group(0, 1, (), 0),)
    assert layout.append(1).starts.tolist() == [4]


def test_padding_is_coded_apart_from_the_sinks() -> None:
    step = Layout.empty(3, 16, 4, padding=(0, 35, 38)).append(60)
    assert blocks(step.after) == [(0, 4, 16), (0, 20, 16), (0, 36, 16), *[
        (1, 0, 16), (1, 16, 16), (1, 39, 16)], *[(2, 0, 16), (2, 16, 16), (2, 42, 16)]]  # fmt: skip
    assert [group.kept for group in step.after.groups] == [((0, 4),), ((32, 7),), ((32, 10),)]
    assert step.after.open_base == 52


def test_layers_share_a_transition() -> None:
    layout = Layout.empty(1, 16, 4)
    step = layout.append(40)
    assert layout.append(40) is step
    crop = step.after.crop(3)
    assert step.after.crop(3) is crop
    del crop
    assert len(step.after._known) == 0, "nobody holds the result: it must not be remembered"


def test_crop_keeps_a_record_with_its_valid_tokens() -> None:
    layout = Layout.empty(1, 16, 4).append(40).after
    crop = layout.crop(12)
    assert (crop.stay.tolist(), crop.go.tolist(), crop.freeze.tolist()) == ([0, 1], [], [])
    assert blocks(crop.after) == [(0, 4, 16), (0, 20, 8)]
    assert crop.after.cuts == (Cut(0, 20, 8, scratch=28),)
    assert crop.after.fetch_places[1].tolist() == [4, 28]
    assert crop.after.capacity == 28 + 16
    assert crop.after.look_back == 12
    step = crop.after.append(27)  # the next block starts behind the cut and waits for the look-back
    assert not len(step.starts)
    assert step.after.append(1).starts.tolist() == [28]


def test_crop_makes_a_small_rest_exact() -> None:
    layout = Layout.empty(1, 16, 4).append(40).after
    crop = layout.crop(17)
    assert (crop.stay.tolist(), crop.go.tolist(), crop.freeze.tolist()) == ([0], [1], [1])
    assert crop.keeps == (KeepCopy(0, 1, 20, 3, 4),)
    assert crop.after.groups == (Group(0, 1, ((0, 4), (20, 3)), 23),)


def test_crop_into_the_sinks() -> None:
    layout = Layout.empty(1, 16, 4).append(40).after
    crop = layout.crop(38)
    assert blocks(crop.after) == []
    assert crop.after.groups == (Group(0, 1, ((0, 2),), 2),)
    again = crop.after.append(50)
    assert again.keeps == (KeepCopy(0, 1, 2, 2, 2),)
    assert again.after.kept == (((0, 4),),)
    assert again.starts.tolist() == [4, 20]  # a third is within the look-back


def test_select_repeats_and_drops_rows() -> None:
    layout = Layout.empty(3, 16, 4, padding=(0, 16, 0)).append(40).after
    assert blocks(layout) == [(0, 4, 16), (0, 20, 16), (1, 0, 16), (1, 20, 16), *[
        (2, 4, 16), (2, 20, 16)]]  # fmt: skip
    chosen = layout.select([2, 2, 1])
    assert chosen.blocks.tolist() == [4, 5, 4, 5, 2, 3]
    assert blocks(chosen.after) == [(0, 4, 16), (0, 20, 16), (1, 4, 16), (1, 20, 16), *[
        (2, 0, 16), (2, 20, 16)]]  # fmt: skip
    assert chosen.after.padding == (0, 0, 16)
    assert [(g.first_row, g.end_row) for g in chosen.after.groups] == [(0, 2), (2, 3)]


def test_dropping_the_row_that_is_open_first_moves_nothing() -> None:
    layout = Layout.empty(2, 16, 4, padding=(0, 30)).append(40).after
    assert (layout.open_start.tolist(), layout.open_base) == ([36, 16], 16)
    chosen = layout.select([0, 0]).after
    assert (chosen.open_start.tolist(), chosen.open_base) == ([36, 36], 16)
    assert chosen.append(12).after.open_base == 52
