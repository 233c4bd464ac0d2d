"""Scanned digits to train with: clean ones, and windows or pieces of pages that are composed anew in each epoch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.errors import InputError
from graphc.learning.data import ArraySamples, Data, Ints, Samples, Wanted
from graphc.models.pages import (
    BACKGROUND,
    LABELS,
    WINDOW,
    Floats,
    Page,
    background_windows,
    compose_page,
    digit_windows,
    draw_digit,
    draw_paper,
    load_scans,
)

PAGES, SHORTEST, LONGEST = 8, 200, 480  # pages of an epoch, and the sides of them in pixels: some 800 digits
CLEAN, BLANK = 700, 100  # clean digits and windows of blank paper in an epoch, so that both stay known
NEAR, FAR = 2.0, 8.0  # pixels from a window's centre: a digit that is nearer, and one that no longer counts
PIECE, PIECES = 64, 256  # pixels of a piece of a page, and how many an epoch has
INK = ((1.0,), (-1.0,))  # mean and std that make ink of a picture's grey: (grey - 1) / -1
TEST_SEED = 1_000_000  # of what is held out, which does not depend on the training's seed


@dataclass(frozen=True)
class Scans(Data):
    """Single digits of 32x32 pixels, each scaled and turned a little anew in every epoch; held-out ones as they are."""

    seed: int
    labels: tuple[str, ...] = LABELS[:BACKGROUND]
    reading = INK

    def train(self, epoch: int) -> Samples:
        rng = np.random.default_rng([self.seed, epoch])
        scans, labels = load_scans("train")
        x = [draw_digit(scan, rng.uniform(0.85, 1.15), rng.uniform(-0.2, 0.2)) for scan in scans]  # as on pages
        return ArraySamples(np.stack(x)[:, None], labels, f"digits of epoch {epoch + 1}")

    def test(self) -> Samples:
        return ArraySamples(*digit_windows("test"), "held-out digits")


@dataclass(frozen=True)
class Windows(Data):
    """Windows of 32x32 pixels: which digit stands in the middle, or none (class 10)."""

    seed: int
    labels: tuple[str, ...] = LABELS
    reading = INK

    def train(self, epoch: int) -> Samples:
        rng = np.random.default_rng([self.seed, epoch])
        parts = [cut_windows(compose(rng, "train"), rng) for _ in range(PAGES)]
        scans, classes = digit_windows("train")
        chosen = rng.choice(len(scans), CLEAN, replace=False)
        shifts = rng.integers(-int(NEAR), int(NEAR), (CLEAN, 2), endpoint=True)
        clean = [np.roll(x, shift, (1, 2)) for x, shift in zip(scans[chosen], shifts, strict=True)]
        parts.append((np.stack(clean), classes[chosen]))
        blank = np.stack([draw_paper(WINDOW, WINDOW, rng)[None] for _ in range(BLANK)])
        parts.append((blank, np.full(BLANK, BACKGROUND)))
        x = spoil(np.concatenate([x for x, _ in parts]), rng)
        return ArraySamples(x, np.concatenate([y for _, y in parts]), f"pages of epoch {epoch + 1}")

    def test(self) -> Samples:
        digits, labels = digit_windows("test")
        others = background_windows("test", len(digits), TEST_SEED)
        y = np.concatenate([labels, np.full(len(others), BACKGROUND)])
        return ArraySamples(np.concatenate([digits, others]), y, "held-out digits")


@dataclass(frozen=True)
class Pieces(Data):
    """Pieces of pages: for each pixel, which digit's ink lies there, or none (class 10); of 2 classes, whether ink."""

    seed: int
    classes: int
    reading = INK

    @property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        return LABELS if self.classes > 2 else ("paper", "ink")

    def train(self, epoch: int) -> Samples:
        return self._cut(np.random.default_rng([self.seed, epoch]), "train", PIECES)

    def test(self) -> Samples:
        return self._cut(np.random.default_rng(TEST_SEED), "test", PIECES // 4)

    def _cut(self, rng: np.random.Generator, split: str, count: int) -> Samples:
        pages = [compose(rng, split) for _ in range(PAGES)]
        x = np.empty((count, 1, PIECE, PIECE), np.float32)
        y = np.empty((count, PIECE, PIECE), np.int64)
        for i in range(count):
            page = pages[i % PAGES]
            top, left = (int(rng.integers(0, side - PIECE, endpoint=True)) for side in page.image.shape)
            part = np.s_[top : top + PIECE, left : left + PIECE]
            x[i, 0], y[i] = page.image[part], page.mask[part]
        return ArraySamples(x, y if self.classes > 2 else (y != BACKGROUND).astype(np.int64), f"{split} pages")


def open_digits(wanted: Wanted, seed: int) -> Data:
    """The scans: 1,433 to train with, 364 held out."""
    _check(wanted, "digits", WINDOW, (BACKGROUND,), dense=False)
    return Scans(seed)


def open_pages(wanted: Wanted, seed: int) -> Data:
    """Windows of composed pages for a classifier, pieces of them for a network whose output is a map."""
    if wanted.dense:
        _check(wanted, "pages", PIECE, (2, len(LABELS)), dense=True)
        return Pieces(seed, wanted.classes)
    _check(wanted, "pages", WINDOW, (len(LABELS),), dense=False)
    return Windows(seed)


def compose(rng: np.random.Generator, split: str) -> Page:
    """A page of random size."""
    height, width = (int(side) for side in rng.integers(SHORTEST, LONGEST, 2, endpoint=True))
    return compose_page(height, width, int(rng.integers(2**32)), split)


def cut_windows(page: Page, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Three windows for each digit of the page: with the digit near the middle, farther away, and anywhere.

    A window shows the nearest digit with a probability that falls from 1, NEAR pixels away, to 0, FAR pixels away, and
    is labelled so: in the mean over the epochs, the share of the class is that probability.
    """
    height, width = page.image.shape
    centres = (page.boxes[:, :2] + page.boxes[:, 2:]) / 2
    count = len(centres)
    corners = np.concatenate([
        np.rint(centres + rng.uniform(-2, 2, (count, 2)) - WINDOW / 2),
        np.rint(centres + rng.uniform(-9, 9, (count, 2)) - WINDOW / 2),
        rng.uniform(0, 1, (count, 2)) * (height - WINDOW, width - WINDOW),
    ]).astype(np.int64).clip(0, (height - WINDOW, width - WINDOW))  # fmt: skip
    x = np.stack([page.image[top : top + WINDOW, left : left + WINDOW] for top, left in corners])[:, None]
    distances = np.hypot(*np.moveaxis(corners[:, None] + WINDOW / 2 - centres, 2, 0))
    share = np.clip((FAR - distances.min(axis=1)) / (FAR - NEAR), 0, 1)
    shown = rng.uniform(size=len(share)) < share
    return x, np.where(shown, page.labels[distances.argmin(axis=1)], BACKGROUND)


def spoil(x: Floats, rng: np.random.Generator) -> Floats:
    """Windows f32[n,1,32,32] as other pens and scanners make them: fainter or darker, tinted, noisy."""
    gain, tint, noise = (
        rng.uniform(low, high, (len(x), 1, 1, 1)).astype(np.float32)
        for low, high in ((0.75, 1.15), (0, 0.1), (0, 0.03))
    )
    return x * gain + tint + rng.standard_normal(x.shape, np.float32) * noise


def _check(wanted: Wanted, source: str, side: int, classes: Sequence[int], dense: bool) -> None:
    expected = (1, side, side)
    fits = wanted.type.rank == 4 and all(
        not isinstance(d, int) or d == e for d, e in zip(wanted.type.shape[1:], expected, strict=True)
    )
    if not fits or wanted.classes not in classes or wanted.dense != dense:
        kind = f"scores for each pixel of grey images [N,1,{side},{side}]" if dense else f"images [N,1,{side},{side}]"
        listed = " or ".join(map(str, classes))
        raise InputError(f"data '{source}': expected a network for {kind} and {listed} classes, got one for "
                         f"{wanted.type} and {wanted.classes} classes")  # fmt: skip
