"""Scanned digits: the windows that train and test the digit network, and the pages on which it finds them.

The scans are scikit-learn's `load_digits` (UCI Optical Recognition of Handwritten Digits): 1,797 scans, 8x8 pixels of
17 grey levels, by 13 writers. Everything here is a pure function of its arguments: no global random state.

Pictures are measured in ink: 0 is white, 1 is black. That is what the network reads; `1 - image` is how it looks.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from graphc.errors import GraphcError, InputError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LABELS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "background")
BACKGROUND = LABELS.index("background")
WINDOW = 32  # pixels: the digit network's input
MAGNIFY = 2.5  # pixels per pixel of a scan: every scan's ink is 8 pixels high, so a digit is 20 high, as in MNIST
SPACING = 24  # least pixels between digits' centres, across or down: they nearly touch, and windows see neighbours
OFF_CENTRE = 8  # pixels from which on a window is background: twice the stride, so other windows are nearer by far


@dataclass(frozen=True)
class Page:
    """A scanned page of handwritten digits.

    image: f32[H,W], ink in 0..1 (paper is about 0.1).
    boxes: i64[n,4], each digit's ink as top, left, bottom, right in pixels; bottom and right are exclusive.
    labels: i64[n], each digit's class, 0..9.
    mask: i64[H,W], for each pixel the class of the digit whose ink covers it by half, else BACKGROUND.
    """

    image: Floats
    boxes: Ints
    labels: Ints
    mask: Ints


@cache
def load_scans(split: str) -> tuple[Floats, Ints]:
    """The scans f32[n,8,8] in 0..1 and labels i64[n] of "train" (1,433 scans) or "test" (364).

    Of each class, the first of every five scans in the data set's order is a test scan, so the classes keep their
    shares and no random number decides. The same 13 writers wrote both.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise GraphcError("the scanned digits come with scikit-learn: install graphc[data]") from error
    if split not in ("train", "test"):
        raise InputError(f"split: expected 'train' or 'test', got {split!r}")
    scans, labels = load_digits(return_X_y=True)
    is_test = np.zeros(len(labels), bool)
    for digit in range(10):
        is_test[np.flatnonzero(labels == digit)[::5]] = True
    chosen = is_test if split == "test" else ~is_test
    images, classes = scans[chosen].reshape(-1, 8, 8).astype(np.float32) / 16, labels[chosen].astype(np.int64)
    images.flags.writeable = classes.flags.writeable = False  # the cache hands the same arrays to every caller
    return images, classes


def draw_digit(scan: Floats, scale: float = 1.0, angle: float = 0.0) -> Floats:
    """Ink f32[32,32] in 0..1 of a scan f32[8,8]: centred, enlarged 2.5 * scale, turned clockwise by `angle` radians."""
    ink_columns = np.flatnonzero((scan > 0.25).any(axis=0))  # a quarter: fainter pixels are the brush's edge
    ink_rows = np.flatnonzero((scan > 0.25).any(axis=1))
    border = 4  # blank pixels around the scan, so that interpolation sees paper there
    centre_x = border + (ink_columns[0] + ink_columns[-1] + 1) / 2
    centre_y = border + (ink_rows[0] + ink_rows[-1] + 1) / 2
    cos, sin = np.cos(angle) / (MAGNIFY * scale), np.sin(angle) / (MAGNIFY * scale)
    half = WINDOW / 2
    # Pillow maps output to input: x' = a x + b y + c, y' = d x + e y + f, with pixel centres at half-integers.
    affine = (cos, sin, centre_x - half * (cos + sin), -sin, cos, centre_y - half * (cos - sin))
    picture = Image.fromarray(np.pad(scan, border))
    grey = picture.transform((WINDOW, WINDOW), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    # A scan's pixel counts the ink in a 4x4 block of a black-and-white bitmap; steepening the interpolated counts
    # around one half gives back the stroke's edge, which bicubic alone smears over five pixels.
    return smooth_step(np.asarray(grey), 0.15, 0.75)


def digit_windows(split: str) -> tuple[Floats, Ints]:
    """Every scan of the split, clean and centred: windows f32[n,1,32,32] in 0..1 and labels i64[n]."""
    scans, labels = load_scans(split)
    return np.stack([draw_digit(scan) for scan in scans])[:, None], labels


def background_windows(split: str, count: int, seed: int) -> Floats:
    """Windows f32[count,1,32,32] of the eleventh class: blank paper, and pieces of digits on a page.

    Every digit's centre is at least 8 pixels away from such a window's centre, across or down.
    """
    rng = np.random.default_rng(seed)
    windows = np.empty((count, 1, WINDOW, WINDOW), np.float32)
    blank = count // 3  # the rest sees digits' pieces, which are what a network confuses with digits
    for i in range(blank):
        windows[i, 0] = draw_paper(WINDOW, WINDOW, rng)
    side = 480  # about 160 digits
    page = compose_page(side, side, seed, split)
    centres = (page.boxes[:, :2] + page.boxes[:, 2:]) / 2
    for i in range(blank, count):
        while True:
            corner = rng.integers(0, side - WINDOW, size=2, endpoint=True)
            if np.abs(centres - corner - WINDOW / 2).max(axis=1).min() >= OFF_CENTRE:
                break
        top, left = corner
        windows[i, 0] = page.image[top : top + WINDOW, left : left + WINDOW]
    return windows


def compose_page(height: int, width: int, seed: int, split: str = "test") -> Page:
    """A page f32[height,width] with digits of the split, each of its own size, slant and ink, at random places.

    Centres are at least 16 pixels from the page's edge, so every digit is centred in some window of the page.
    Errors: InputError when a side is shorter than 32 pixels, or the split is unknown.
    """
    if height < WINDOW or width < WINDOW:
        raise InputError(f"page: expected at least {WINDOW}x{WINDOW} pixels, got {height}x{width}")
    scans, labels = load_scans(split)
    rng = np.random.default_rng(seed)
    corners = scatter_windows(height, width, rng)
    chosen = rng.integers(0, len(scans), size=len(corners))
    ink = np.zeros((height, width), np.float32)
    mask = np.full((height, width), BACKGROUND)
    boxes = np.empty((len(corners), 4), np.int64)
    for i, (top, left) in enumerate(corners):
        digit = draw_digit(scans[chosen[i]], scale=rng.uniform(0.85, 1.15), angle=rng.uniform(-0.2, 0.2))
        rows, columns = np.flatnonzero(digit.max(axis=1) > 0.5), np.flatnonzero(digit.max(axis=0) > 0.5)
        boxes[i] = top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1
        window = np.s_[top : top + WINDOW, left : left + WINDOW]
        mask[window][digit > 0.5] = labels[chosen[i]]
        place = ink[window]
        np.maximum(place, digit * np.float32(rng.uniform(0.65, 0.95)), out=place)  # pencil to pen
    paper = draw_paper(height, width, rng)
    return Page(1 - (1 - paper) * (1 - ink), boxes, labels[chosen], mask)  # what light the paper leaves, ink dims


def scatter_windows(height: int, width: int, rng: np.random.Generator) -> Ints:
    """Random corners i64[n,2] of windows on the page, n >= 1, no two within SPACING of each other across and down."""
    free = np.ones((height - WINDOW + 1, width - WINDOW + 1), bool)  # by a window's corner
    corners = []
    for _ in range(1 + height * width // 250):  # four darts per digit that fits: fuller pages take many more
        top, left = (int(rng.integers(0, side)) for side in free.shape)
        if free[top, left]:
            corners.append((top, left))
            free[max(0, top - SPACING + 1) : top + SPACING, max(0, left - SPACING + 1) : left + SPACING] = False
    return np.array(corners)


def draw_paper(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Blank paper f32[height,width] in 0..1 as ink: a tint, uneven light, fibres and the scanner's noise."""
    light = enlarge(rng.uniform(0, 0.12, size=(4, 4)), height, width)
    fibres = enlarge(rng.normal(0, 0.012, size=(height // 3 + 1, width // 3 + 1)), height, width)
    noise = rng.normal(0, rng.uniform(0, 0.025), size=(height, width))
    return np.clip(rng.uniform(0, 0.12) + light + fibres + noise, 0, 1).astype(np.float32)


def enlarge(grid: NDArray[np.float64], height: int, width: int) -> Floats:
    """The coarse grid f64[P,Q] interpolated to f32[height,width]."""
    picture = Image.fromarray(grid.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def smooth_step(x: Floats, low: float, high: float) -> Floats:
    """0 below `low`, 1 above `high`, and a cubic without a kink between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
