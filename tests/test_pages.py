"""The scans, windows and pages, and what the stored weights make of them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from safetensors import safe_open
from safetensors.numpy import load_file

from graphc.errors import GraphcError, InputError
from graphc.models import pages
from graphc.pictures import Floats, find_peaks, softmax

needs_scans = pytest.mark.usefixtures("scans")
WEIGHTS = Path(pages.__file__).parent / "digits.safetensors"


@pytest.fixture
def scans() -> None:
    pytest.importorskip("sklearn")


@needs_scans
def test_split_is_disjoint_complete_and_stratified() -> None:
    (train, train_labels), (test, test_labels) = pages.load_scans("train"), pages.load_scans("test")
    assert len(train) == 1433
    assert len(test) == 364
    assert not {scan.tobytes() for scan in train} & {scan.tobytes() for scan in test}
    shares = np.bincount(test_labels) / (np.bincount(train_labels) + np.bincount(test_labels))
    assert np.all(np.abs(shares - 0.2) < 0.01)


@needs_scans
def test_unknown_split_is_an_input_error() -> None:
    with pytest.raises(InputError, match="expected 'train' or 'test', got 'validation'"):
        pages.load_scans("validation")


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(GraphcError, match=r"install graphc\[data\]"):
        pages.load_scans.__wrapped__("test")  # past the cache


@needs_scans
def test_windows_are_centred_ink_on_nothing() -> None:
    windows, labels = pages.digit_windows("test")
    assert windows.shape == (364, 1, 32, 32)
    assert windows.dtype == np.float32
    assert labels.dtype == np.int64
    assert windows.min() == 0
    assert windows.max() == 1
    rows, columns = windows[:, 0].max(axis=2) > 0.5, windows[:, 0].max(axis=1) > 0.5
    heights = 32 - rows.argmax(axis=1) - rows[:, ::-1].argmax(axis=1)
    assert 17 <= np.median(heights) <= 20
    for ink in (rows, columns):  # as much paper before the ink as after it
        assert np.abs(ink.argmax(axis=1) - ink[:, ::-1].argmax(axis=1)).max() <= 4
    assert not windows[:, 0, :3].any()
    assert not windows[:, 0, -3:].any()


@needs_scans
def test_draw_digit_turns_clockwise_and_scales() -> None:
    bar = np.zeros((8, 8), np.float32)
    bar[:, 3:5] = 1
    upright, leaning, lying = (pages.draw_digit(bar, angle=angle) for angle in (0.0, 0.3, np.pi / 2))
    np.testing.assert_allclose(lying, upright.T, atol=1e-5)
    columns = np.arange(32)
    assert (leaning[8] @ columns) / leaning[8].sum() > 17  # its top leans to the right
    small = pages.draw_digit(bar, scale=0.5)
    assert np.count_nonzero(small[:, 16] > 0.5) == np.count_nonzero(upright[:, 16] > 0.5) // 2


@needs_scans
def test_background_windows_hold_no_centred_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a page whose only ink is one pixel per digit, at its centre, no window has ink near its own centre."""
    whole = pages.compose_page

    def dots(height: int, width: int, seed: int, split: str) -> pages.Page:
        page = whole(height, width, seed, split)
        image = np.zeros_like(page.image)
        rows, columns = (page.boxes[:, :2] + page.boxes[:, 2:]).T // 2
        image[rows, columns] = 1
        return pages.Page(image, page.boxes, page.labels, page.mask)

    monkeypatch.setattr(pages, "compose_page", dots)
    windows = pages.background_windows("train", 300, seed=4)
    assert windows.shape == (300, 1, 32, 32)
    assert windows[:100].max() < 0.5  # blank paper
    pieces = windows[100:, 0]
    assert pieces.any(axis=(1, 2)).mean() > 0.5
    assert not pieces[:, 9:24, 9:24].any()


@needs_scans
@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 33), (47, 200), (96, 160), (301, 222)])
def test_page_holds_its_digits(height: int, width: int) -> None:
    page = pages.compose_page(height, width, seed=height)
    assert page.image.shape == (height, width)
    assert page.image.dtype == np.float32
    assert 0 <= page.image.min() < page.image.max() <= 1
    assert len(page.boxes) == len(page.labels) >= 1
    top, left, bottom, right = page.boxes.T
    assert np.all((top >= 0) & (left >= 0) & (top < bottom) & (left < right) & (bottom <= height) & (right <= width))
    for y0, x0, y1, x1 in page.boxes:  # there is ink in every box, and on each of its sides
        ink = page.image[y0:y1, x0:x1]
        assert min(ink[0].max(), ink[-1].max(), ink[:, 0].max(), ink[:, -1].max()) > 0.3
        assert ink.max() > 0.6


@needs_scans
def test_pages_are_deterministic_and_differ_by_seed_and_split() -> None:
    first, again = pages.compose_page(96, 160, seed=5), pages.compose_page(96, 160, seed=5)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    np.testing.assert_array_equal(first.labels, again.labels)
    for other in (pages.compose_page(96, 160, seed=6), pages.compose_page(96, 160, seed=5, split="train")):
        assert not np.array_equal(first.image, other.image)


@needs_scans
def test_digits_keep_their_distance() -> None:
    boxes = pages.compose_page(480, 640, seed=0).boxes
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    apart = np.abs(centres[:, None] - centres).max(axis=2)[~np.eye(len(boxes), dtype=bool)]
    assert len(boxes) > 150
    assert apart.min() >= pages.SPACING - 3  # a turned digit's ink is off its window's centre by a pixel or so


def test_small_page_is_an_input_error() -> None:
    with pytest.raises(InputError, match="page: expected at least 32x32 pixels, got 31x40"):
        pages.compose_page(31, 40, seed=0)


# ---- the stored weights, run by plain NumPy


def convolve(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """x [N,C,H,W], weight [K,C,R,S]: no padding, stride 1."""
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))
    products: Floats = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3)))
    return products.transpose(0, 3, 1, 2) + bias[:, None, None]


def pool(x: Floats) -> Floats:
    """x [N,C,H,W]: the larger of each 2x2 pixels, after relu; an odd last row or column is dropped."""
    n, c, h, w = x.shape
    quads = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    return np.asarray(np.maximum(quads.max(axis=(3, 5)), 0))


def run_dense(x: Floats) -> Floats:
    """The network's map of logits [N,11,P,Q] over images [N,1,H,W]: one cell for every window at stride 4."""
    w = load_file(WEIGHTS)
    x = pool(convolve(x, w["conv1.weight"], w["conv1.bias"]))
    x = pool(convolve(x, w["conv2.weight"], w["conv2.bias"]))
    x = np.maximum(convolve(x, w["fc1.weight"].reshape(64, 24, 5, 5), w["fc1.bias"]), 0)
    return convolve(x, w["fc2.weight"].reshape(11, 64, 1, 1), w["fc2.bias"])


def test_weights_say_what_they_are() -> None:
    shapes = {key: list(array.shape) for key, array in load_file(WEIGHTS).items()}
    assert shapes == {
        "conv1.weight": [8, 1, 5, 5],
        "conv1.bias": [8],
        "conv2.weight": [24, 8, 5, 5],
        "conv2.bias": [24],
        "fc1.weight": [64, 600],
        "fc1.bias": [64],
        "fc2.weight": [11, 64],
        "fc2.bias": [11],
    }
    with safe_open(WEIGHTS, "np") as file:
        metadata = file.metadata()
    assert json.loads(metadata["labels"]) == list(pages.LABELS)
    assert metadata.keys() == {"labels", "mean", "std", "training"}


@needs_scans
def test_weights_read_the_test_scans() -> None:
    windows, labels = pages.digit_windows("test")
    assert np.mean(run_dense(windows)[:, :, 0, 0].argmax(axis=1) == labels) >= 0.99
    assert np.all(run_dense(pages.background_windows("test", 150, seed=1)).argmax(axis=1) == pages.BACKGROUND)


@needs_scans
def test_weights_find_the_digits_of_a_page() -> None:
    page = pages.compose_page(240, 320, seed=2)
    scores = softmax(run_dense(page.image[None, None])[0])
    assert scores.shape == (11, 53, 73)
    found = find_peaks(scores, pages.BACKGROUND, threshold=0.5, radius=3)
    centres = (page.boxes[:, :2] + page.boxes[:, 2:]) / 2
    seen = set()
    for peak in found:
        distance = np.abs(centres - 16 - [4 * peak.row, 4 * peak.col]).max(axis=1)
        nearest = int(distance.argmin())
        if distance[nearest] <= 6 and page.labels[nearest] == peak.label:
            seen.add(nearest)
    assert len(seen) / len(found) > 0.95
    assert len(seen) / len(page.labels) > 0.95
