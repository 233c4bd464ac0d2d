"""Pictures of a dense run, for any network: heat maps, overlays at the true geometry, peaks and labelled boxes.

Every function takes and returns arrays; only `save_png` touches a file. A position is in pixels of the image, and a
pixel's centre has whole-number coordinates, so a 32-pixel window that starts at pixel 0 is centred on 15.5.
"""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from graphc.errors import InputError
from graphc.files import replace_file

Floats = NDArray[np.float32]
Picture = NDArray[np.uint8]  # u8[H,W,3]: red, green, blue

# Matplotlib's inferno at 0, 0.1, ..., 1: lightness rises evenly, so it reads in grey and by colour-blind eyes.
INFERNO = np.array(
    [
        (0, 0, 4),
        (22, 11, 57),
        (65, 9, 103),
        (106, 23, 110),
        (147, 37, 103),
        (188, 55, 84),
        (221, 81, 58),
        (243, 120, 25),
        (252, 165, 10),
        (246, 214, 69),
        (252, 255, 164),
    ]
)


@dataclass(frozen=True)
class Detection:
    """A peak of a score map: its class, its score, and its cell."""

    label: int
    score: float
    row: int
    col: int


@dataclass(frozen=True)
class Mark:
    """A box to draw, in pixels of the image (bottom and right exclusive), with a short text."""

    top: float
    left: float
    bottom: float
    right: float
    text: str
    colour: tuple[int, int, int]


def softmax(logits: Floats) -> Floats:
    """Probabilities f32[K,P,Q] over the K classes of logits f32[K,P,Q]."""
    powers = np.exp(logits - logits.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0), np.float32)


def find_peaks(probabilities: Floats, background: int | None, threshold: float, radius: int = 1) -> list[Detection]:
    """Cells where the best class other than `background` scores above `threshold`, the highest score first.

    probabilities: [K,P,Q]. A peak silences every cell within `radius` cells of it, across and down, of any class.
    """
    scores = np.array(probabilities)
    if background is not None:
        scores[background] = -np.inf
    labels, best = scores.argmax(axis=0), scores.max(axis=0)
    rows, cols = np.nonzero(best > threshold)
    free = np.ones(best.shape, bool)
    peaks = []
    for k in np.argsort(-best[rows, cols], kind="stable"):
        row, col = int(rows[k]), int(cols[k])
        if free[row, col]:
            peaks.append(Detection(int(labels[row, col]), float(best[row, col]), row, col))
            free[max(0, row - radius) : row + radius + 1, max(0, col - radius) : col + radius + 1] = False
    return peaks


def heat_map(scores: Floats, low: float | None = None, high: float | None = None) -> Picture:
    """Scores [P,Q] as colours u8[P,Q,3], black at `low` to pale yellow at `high` (the scores' own range if not given).

    Errors: InputError when a score is not finite.
    """
    return paint(normalise(scores, low, high))


def overlay(
    image: Floats | Picture,
    scores: Floats,
    stride: tuple[int, int],
    offset: tuple[float, float],
    low: float | None = None,
    high: float | None = None,
) -> Picture:
    """The image u8[H,W,3] with the heat map of scores [P,Q] over it: the higher a score, the less it lets through.

    image: as `to_picture` takes it. Cell (p, q) is centred on pixel offset + stride * (p, q), rows first; between
    centres the map is interpolated, and pixels more than half a stride beyond the outer centres stay as they are.
    """
    picture = to_picture(image)
    height, width, _ = picture.shape
    (stride_y, stride_x), (offset_y, offset_x) = stride, offset
    # Pillow puts pixel centres at half-integers: output x + 0.5 comes from input (x - offset) / stride + 0.5.
    affine = (1 / stride_x, 0, 0.5 - (offset_x + 0.5) / stride_x, 0, 1 / stride_y, 0.5 - (offset_y + 0.5) / stride_y)
    cells = Image.fromarray(normalise(scores, low, high))
    spread = cells.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)  # 0 outside
    heat = np.asarray(spread)
    opacity = 0.65 * heat[:, :, None]  # so the image still shows under the hottest cell
    return np.rint(picture * (1 - opacity) + paint(heat) * opacity).astype(np.uint8)


def mark_detections(
    detections: Sequence[Detection],
    stride: tuple[int, int],
    offset: tuple[float, float],
    size: tuple[float, float],
    names: Sequence[str] | None = None,
) -> list[Mark]:
    """A box of `size` pixels (height, width) around each detection's centre, with its class's name, or else number."""
    marks = []
    for found in detections:
        top = offset[0] + stride[0] * found.row + 0.5 - size[0] / 2
        left = offset[1] + stride[1] * found.col + 0.5 - size[1] / 2
        text = str(found.label) if names is None else names[found.label]
        marks.append(Mark(top, left, top + size[0], left + size[1], text, class_colour(found.label)))
    return marks


def draw_labels(image: Floats | Picture, marks: Sequence[Mark], zoom: int = 1) -> Picture:
    """The image magnified to u8[H*zoom,W*zoom,3], with each mark's box, and its text on a tab above the box."""
    picture = Image.fromarray(to_picture(image))
    picture = picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    size = min(10 + zoom, 18)  # pixels: from what Pillow's own font needs to be read, to what suits a 20-pixel box
    font = ImageFont.load_default(size)
    for mark in marks:
        left, top, right, bottom = (round(zoom * side) for side in (mark.left, mark.top, mark.right, mark.bottom))
        draw.rectangle((left, top, right - 1, bottom - 1), outline=mark.colour, width=max(1, zoom // 2))
    for mark in marks:  # after every box, so that no box crosses a text
        left, top = round(zoom * mark.left), round(zoom * mark.top)
        wide, high = round(draw.textlength(mark.text, font)) + size // 2, size + 2
        left, top = max(0, min(left, picture.width - wide)), max(0, top - high + 2)
        draw.rectangle((left, top, left + wide - 1, top + high - 1), fill=mark.colour)
        draw.text((left + wide / 2, top + high / 2), mark.text, fill="white", font=font, anchor="mm")
    return np.asarray(picture)


def choose_zoom(height: int, width: int) -> int:
    """The magnification that brings a small image near 1,280 pixels, a screen's width; 1 for large images."""
    return max(1, round(1280 / max(height, width)))


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour for class `label`: neighbours in number lie far apart in hue, and white text reads on each."""
    hue = label * 0.618 % 1  # the golden ratio never comes back near a hue it has just used
    red, green, blue = hsv_to_rgb(hue, 0.9, 0.58)  # dark enough for white text on yellow: contrast 3, WCAG's least
    return round(255 * red), round(255 * green), round(255 * blue)


def save_png(path: str | Path, image: Floats | Picture) -> None:
    """Write the image (as `to_picture` takes it) to `path`, whole or not at all. Errors: FileError, naming the file."""
    picture = Image.fromarray(to_picture(image))
    with replace_file(Path(path)) as file:
        picture.save(file, format="PNG")


def to_picture(image: Floats | Picture) -> Picture:
    """u8[H,W,3] of an image u8 or float in 0..1 (clipped), grey [H,W] or colour [H,W,3]. Errors: InputError."""
    colour = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
    known = colour.dtype == np.uint8 or colour.dtype.kind == "f"
    if colour.ndim != 3 or colour.shape[2] != 3 or colour.size == 0 or not known:
        raise InputError(f"picture: expected u8 or float [H,W] or [H,W,3], got {image.dtype}{list(image.shape)}")
    if colour.dtype == np.uint8:
        return np.asarray(colour, np.uint8)
    return np.asarray(np.rint(np.clip(colour, 0, 1) * 255), np.uint8)


def normalise(scores: Floats, low: float | None, high: float | None) -> Floats:
    """Scores [P,Q] scaled so that `low` is 0 and `high` is 1, clipped; all 0 when the two are equal."""
    if not np.isfinite(scores).all():
        raise InputError(f"heat map: expected finite scores, got {np.sum(~np.isfinite(scores))} NaN or infinite")
    bottom = float(scores.min()) if low is None else low
    top = float(scores.max()) if high is None else high
    return np.asarray(np.clip((scores - bottom) / (top - bottom if top > bottom else 1), 0, 1), np.float32)


def paint(heat: Floats) -> Picture:
    """Heat [P,Q] in 0..1 as colours u8[P,Q,3]."""
    anchors = np.linspace(0, 1, len(INFERNO))
    channels = [np.interp(heat, anchors, INFERNO[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(channels, axis=2)), np.uint8)
