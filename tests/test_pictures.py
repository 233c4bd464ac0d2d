"""Pictures: colours, geometry, peaks, labels, and files that are whole or absent."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from graphc.errors import FileError, InputError
from graphc.pictures import (
    INFERNO,
    Detection,
    Floats,
    Mark,
    choose_zoom,
    class_colour,
    draw_labels,
    find_peaks,
    heat_map,
    mark_detections,
    overlay,
    save_png,
    softmax,
)


def hot_cell(shape: tuple[int, int], row: int, col: int) -> Floats:
    scores = np.zeros(shape, np.float32)
    scores[row, col] = 1
    return scores


def test_softmax_survives_large_logits() -> None:
    logits = np.array([[[1000.0, 0.0]], [[1000.0, np.log(3.0)]]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[[0.5, 0.25]], [[0.5, 0.75]]], rtol=1e-6)


def test_heat_map_spans_the_colours() -> None:
    picture = heat_map(np.array([[-3, 2, 7]], np.float32))
    np.testing.assert_array_equal(picture, INFERNO[[0, 5, 10]][None])
    np.testing.assert_array_equal(heat_map(np.array([[-3, 7]], np.float32), low=0, high=5), INFERNO[[0, 10]][None])
    np.testing.assert_array_equal(heat_map(np.full((2, 2), 4, np.float32)), np.tile(INFERNO[0], (2, 2, 1)))


def test_heat_map_refuses_nan() -> None:
    with pytest.raises(InputError, match="expected finite scores, got 1 NaN or infinite"):
        heat_map(np.array([[1, np.nan]], np.float32))


@given(st.tuples(st.integers(0, 4), st.integers(0, 6)), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.data())
def test_one_hot_cell_lights_the_pixels_around_its_centre(
    cell: tuple[int, int], stride: tuple[int, int], data: st.DataObject
) -> None:
    """Less than one stride from the centre: lit. From one stride on: the image as it was."""
    halves = st.integers(-10, 60).map(lambda k: k / 2)  # even windows are centred between pixels
    offset = data.draw(st.tuples(halves, halves))
    image = np.full((70, 90, 3), 200, np.uint8)
    picture = overlay(image, hot_cell((5, 7), *cell), stride, offset)
    down = np.abs(np.arange(70) - offset[0] - stride[0] * cell[0]) / stride[0]
    across = np.abs(np.arange(90) - offset[1] - stride[1] * cell[1]) / stride[1]
    near = np.maximum(down[:, None], across) < 1 - 1e-6
    changed = (picture != image).any(axis=2)
    assert not changed[~near].any()
    close = np.maximum(down[:, None], across) <= 0.5 - 1e-6  # inside the cell itself, also at the map's edge
    assert changed[close].all()


def test_overlay_is_hottest_at_the_centre_and_leaves_the_border() -> None:
    image = np.ones((64, 96), np.float32)
    picture = overlay(image, hot_cell((9, 17), 3, 5), (4, 4), (15.0, 15.0))
    np.testing.assert_array_equal(picture[27, 35], np.rint(255 * 0.35 + INFERNO[10] * 0.65).astype(np.uint8))
    assert not (np.delete(picture.reshape(-1, 3), 27 * 96 + 35, axis=0) == picture[27, 35]).all(axis=1).any()
    all_hot = overlay(image, np.ones((9, 17), np.float32), (4, 4), (15.0, 15.0), low=0)
    rows, cols = np.nonzero((all_hot != 255).any(axis=2))
    # Cells reach half a stride beyond the outer centres, 15 and 15 + 4 * 8 = 47 down, 79 across.
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (13, 48, 13, 80)


def test_overlay_keeps_the_image_it_was_given() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    overlay(image, np.ones((2, 2), np.float32), (4, 4), (1.5, 1.5), low=0)
    assert not image.any()


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((3, 4, 5), np.float32), r"float32\[3, 4, 5\]"),
        (np.zeros((0, 4), np.float32), r"float32\[0, 4\]"),
        (np.zeros((3, 4), np.int64), r"int64\[3, 4\]"),
    ],
)
def test_what_is_no_picture_is_an_input_error(image: Floats, got: str) -> None:
    with pytest.raises(InputError, match=rf"expected u8 or float \[H,W\] or \[H,W,3\], got {got}"):
        draw_labels(image, [])


def test_peaks_silence_their_neighbours_of_any_class() -> None:
    probabilities = np.zeros((3, 8, 8), np.float32)
    probabilities[0] = 0.9  # background, the best class nearly everywhere
    probabilities[1, 2, 2] = 0.75  # scores that float32 holds exactly
    probabilities[2, 3, 3] = 0.6875  # within one cell of the peak above
    probabilities[2, 2, 4] = 0.625  # two cells away
    probabilities[1, 7, 7] = 0.5  # not above the threshold
    first, second = Detection(1, 0.75, 2, 2), Detection(2, 0.625, 2, 4)
    assert find_peaks(probabilities, 0, 0.5) == [first, second]
    assert find_peaks(probabilities, 0, 0.5, radius=2) == [first]
    assert find_peaks(probabilities, 0, 0.8) == []


def test_peaks_without_background_count_every_class() -> None:
    peaks = find_peaks(np.full((2, 1, 4), 0.6, np.float32), None, 0.5)
    assert [(peak.label, peak.row, peak.col) for peak in peaks] == [(0, 0, 0), (0, 0, 2)]


@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_peaks_cover_every_cell_above_the_threshold(seed: int, radius: int) -> None:
    probabilities = np.random.default_rng(seed).random((4, 9, 11), dtype=np.float32)
    peaks = find_peaks(probabilities, 3, 0.8, radius)
    places = np.array([(peak.row, peak.col) for peak in peaks]).reshape(-1, 2)
    apart = np.abs(places[:, None] - places).max(axis=2)
    assert np.all(apart[~np.eye(len(peaks), dtype=bool)] > radius)
    for row, col in np.argwhere(probabilities[:3].max(axis=0) > 0.8):
        close = [peak for peak, (r, c) in zip(peaks, places, strict=True) if max(abs(r - row), abs(c - col)) <= radius]
        assert max(peak.score for peak in close) >= probabilities[:3, row, col].max()


def test_marks_stand_around_the_windows_centre() -> None:
    found = [Detection(1, 0.9, 2, 3)]
    (mark,) = mark_detections(found, (4, 8), (15.5, 15.5), (32, 20), ["no", "yes"])
    # A 32-pixel window at row 4 * 2 covers 8 to 40; 15.5 + 8 * 3 = 39.5 is the middle of 30 to 50.
    assert mark == Mark(8, 30, 40, 50, "yes", class_colour(1))
    assert mark_detections(found, (4, 8), (15.5, 15.5), (32, 20))[0].text == "1"


@pytest.mark.parametrize("zoom", [1, 3])
def test_labels_frame_their_boxes(zoom: int) -> None:
    image = np.full((60, 80), 255, np.uint8)
    red = (200, 0, 0)
    picture = draw_labels(image, [Mark(30, 20, 50, 40, "7", red)], zoom)
    assert picture.shape == (60 * zoom, 80 * zoom, 3)
    is_red = (picture == red).all(axis=2)
    assert is_red[50 * zoom - 1, 20 * zoom : 40 * zoom].all()  # the bottom side
    assert is_red[30 * zoom : 50 * zoom, 40 * zoom - 1].all()  # the right side
    assert not is_red[50 * zoom :].any()
    assert not is_red[35 * zoom : 45 * zoom, 25 * zoom : 35 * zoom].any()  # what is in the box stays visible
    tab = picture[: 30 * zoom - 1]
    assert (tab == red).all(axis=2).any()
    assert ((tab > 230).all(axis=2) & np.roll((tab == red).all(axis=2), 1, axis=1)).any()  # text on it


def test_labels_stay_on_the_picture() -> None:
    """A text that would leave the top or the right edge is moved, so all of its tab shows."""
    image, blue = np.zeros((40, 60), np.uint8), (0, 0, 200)
    inside = draw_labels(image, [Mark(20, 10, 30, 20, "word", blue)])
    corner = draw_labels(image, [Mark(-5, 55, 4, 70, "word", blue)])
    white = [np.count_nonzero((picture > 128).all(axis=2)) for picture in (inside, corner)]
    assert white[0] == pytest.approx(white[1], rel=0.2)  # (the anti-aliasing depends on where the text falls)
    assert white[0] > 0


def test_colours_differ_and_carry_white_text() -> None:
    colours = [class_colour(label) for label in range(1000)]
    assert len(set(colours[:100])) == 100
    linear = (np.array(colours) / 255) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.min(1.05 / (luminance + 0.05)) >= 3  # the contrast that WCAG 2.2 asks of large text


def test_zoom_fills_a_screen() -> None:
    assert [choose_zoom(h, w) for h, w in [(96, 160), (320, 200), (480, 640), (3000, 20)]] == [8, 4, 2, 1]


def test_save_png_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "page.png"
    target.write_bytes(b"old")
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    save_png(target, picture)
    with Image.open(target) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert list(tmp_path.iterdir()) == [target]


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(self: Image.Image, file: BinaryIO, format: str) -> None:
        file.write(b"half a pict")
        raise OSError(28, "No space left on device")

    target = tmp_path / "page.png"
    target.write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", fill_disk)
    with pytest.raises(FileError, match=r"page\.png: cannot be written: No space left on device"):
        save_png(target, np.zeros((2, 2), np.float32))
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["missing/page.png", "file/page.png", "folder", "x" * 300])
def test_save_png_names_the_path_that_it_cannot_write(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=f"{name}: cannot be written: "):
        save_png(tmp_path / name, np.zeros((2, 2), np.float32))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
