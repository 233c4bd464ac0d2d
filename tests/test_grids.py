"""Grids and rows of pictures: where tiles lie, and which colours they have."""

from math import ceil

import numpy as np
import pytest

from graphc.grids import GAP, MARGIN, THUMBNAIL, draw_channels, draw_filters, draw_rows
from graphc.pictures import INFERNO, Picture

PAPER = (255, 255, 255)


def tiles_of(picture: Picture, rows: int, columns: int, wide: int, high: int, pitch: int) -> list[Picture]:
    """The tiles of a grid of this form, which begins at the first row that is not paper below the two lines of text."""
    top = picture.shape[0] - MARGIN - rows * pitch
    return [
        picture[top + i * pitch : top + i * pitch + high, MARGIN + j * (wide + GAP) : MARGIN + j * (wide + GAP) + wide]
        for i in range(rows)
        for j in range(columns)
    ]


def test_grey_filters_have_their_own_scale() -> None:
    weight = np.zeros((8, 1, 2, 2), np.float32)
    weight[:, 0, 0, 0] = [1, -1, 1e-3, -1e3, 0, 1, 1, 1]
    weight[0, 0, 1, 1] = -0.5
    tiles = tiles_of(draw_filters(weight, "title"), 2, 4, 112, 112, 112 + GAP)
    corners = [tile[28, 28, 0] for tile in tiles]
    assert corners == [255, 0, 255, 0, 128, 255, 255, 255]
    assert tiles[0][84, 84, 0] == 64  # half of the largest, below zero
    assert tiles[0][28, 84, 0] == 128


def test_colour_filters() -> None:
    weight = np.zeros((1, 3, 1, 1), np.float32)
    weight[0, :, 0, 0] = [2, 0, -2]
    (tile,) = tiles_of(draw_filters(weight, "title"), 1, 1, 112, 112, 112 + GAP)
    assert (tile == (255, 128, 0)).all()


def test_deep_filters_are_rows() -> None:
    weight = np.zeros((3, 5, 2, 2), np.float32)
    weight[1, 4] = 7
    tiles = tiles_of(draw_filters(weight, "title"), 3, 5, 112, 112, 112 + GAP)
    assert [bool((tile == 255).all()) for tile in tiles] == [i == 9 for i in range(15)]


def test_many_planes_stay_small() -> None:
    picture = draw_filters(np.ones((512, 512, 3, 3), np.float32), "title")
    assert picture.shape[1] == 2 * MARGIN + 512 * 4  # 3 pixels and a line between


@pytest.mark.parametrize(("count", "columns"), [(64, 8), (96, 12), (24, 6), (7, 4), (1, 1), (512, 32)])
def test_grids_fill_their_rows(count: int, columns: int) -> None:
    height, width, _ = draw_filters(np.ones((count, 1, 40, 40), np.float32), "t").shape
    side = min(112, (1280 - 2 * MARGIN) // columns - GAP) // 40 * 40 or 34
    assert (width - 2 * MARGIN) // (side + GAP) == columns or columns < 4  # a narrow grid is narrower than its note
    assert (height - 77 - MARGIN) // (side + GAP) == ceil(count / columns)


def test_channels_share_one_scale() -> None:
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1] = 3
    maps[1, 0, 0] = 6
    low, high = tiles_of(draw_channels(maps, "title"), 1, 2, 112, 112, 112 + GAP + 14)
    assert (low == INFERNO[0]).all()
    assert (high[60, 60] == INFERNO[5]).all()
    assert (high[10, 10] == INFERNO[10]).all()


def test_signed_channels_are_white_at_zero() -> None:
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 0, 0], maps[0, 3, 3] = -2, 1
    (tile,) = tiles_of(draw_channels(maps, "title"), 1, 1, 112, 112, 112 + GAP + 14)
    assert (tile[60, 60] == PAPER).all()
    assert tile[10, 10].tolist() == [33, 102, 171]  # all of the blue
    red, green, blue = tile[100, 100].tolist()
    assert red > 200 > green and blue > 100  # half of the red


def test_rows_show_whole_images() -> None:
    wide, high = np.zeros((10, 40, 3), np.uint8), np.full((40, 10, 3), (200, 0, 0), np.uint8)
    picture = draw_rows([[(wide, "a name that is far too long for its place"), (high, "0.5")], [(high, "b")]], "t", "n")
    black, red = (picture == 0).all(axis=2), (picture == (200, 0, 0)).all(axis=2)
    rows, columns = np.flatnonzero(black.sum(axis=1) > 50), np.flatnonzero(black.sum(axis=0) > 10)
    assert (len(rows), len(columns)) == (THUMBNAIL // 4, THUMBNAIL)
    assert red.sum() == 2 * THUMBNAIL * THUMBNAIL // 4
