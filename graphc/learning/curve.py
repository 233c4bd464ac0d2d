"""The losses and accuracies of a training as a picture."""

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from graphc.learning.checkpoint import Epoch
from graphc.pictures import Picture

SCALE = 2  # everything is drawn twice as large, and scaled down to smooth lines
WIDTH, HEIGHT, MARGIN = 960, 360, 56  # pixels; two charts stand side by side
HEAD = 64  # pixels above the charts: title and legend
TITLE, TEXT = 18, 12  # font sizes
BLUE, ORANGE = "#0f62a8", "#d9730d"  # which the colour-blind tell apart
INK, PALE, LINE = "#0f172a", "#64748b", "#e2e8f0"


def draw_curve(history: Sequence[Epoch], title: str) -> Picture:
    """Two charts over the epochs, u8[H,W,3]: the loss on a logarithmic scale, and the share of errors in per cent."""
    picture = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
    draw = ImageDraw.Draw(picture)
    _write(draw, (MARGIN, 12), title, TITLE, INK)
    for x, colour, text in ((MARGIN, BLUE, "training"), (MARGIN + 90, ORANGE, "held out")):
        draw.line([(x * SCALE, 50 * SCALE), ((x + 18) * SCALE, 50 * SCALE)], colour, 2 * SCALE)
        _write(draw, (x + 24, 43), text, TEXT, PALE)
    half = WIDTH // 2
    losses = [[e.loss for e in history], [e.test_loss for e in history]]
    errors = [[100 * (1 - e.accuracy) for e in history], [100 * (1 - e.test_accuracy) for e in history]]
    _chart(draw, (MARGIN, half - 16), losses, "loss")
    _chart(draw, (half + MARGIN, WIDTH - 16), errors, "errors in %")
    small = picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return np.asarray(small)


def _chart(draw: ImageDraw.ImageDraw, sides: tuple[int, int], lines: Sequence[Sequence[float]], what: str) -> None:
    """One chart between these x; numbers that are not above 0 lie on its floor."""
    left, right = sides
    top, bottom = HEAD + 24, HEIGHT - 36
    shown = [v for line in lines for v in line if 0 < v < float("inf")] or [1.0]
    low, high = floor(log10(min(shown))), ceil(log10(max(shown)))
    low, high = max(low, high - 6), max(high, low + 1)  # six powers of ten: what is below is noise

    def place_y(value: float) -> float:
        power = log10(value) if value > 0 else low
        return bottom - (min(max(power, low), high) - low) / (high - low) * (bottom - top)

    count = max(map(len, lines))
    _write(draw, (left, top - 20), f"{what}, by epoch", TEXT, INK)
    for power in range(low, high + 1):
        y = place_y(10.0**power)
        draw.line([(left * SCALE, y * SCALE), (right * SCALE, y * SCALE)], LINE, SCALE)
        _write(draw, (left - 6, y - 7), f"{10.0**power:g}", TEXT, PALE, anchor="ra")

    def place_x(i: int) -> float:
        return left + (right - left) * (i / max(count - 1, 1))

    for i in sorted({0, (count - 1) // 2, count - 1}):
        _write(draw, (place_x(i), bottom + 8), str(i + 1), TEXT, PALE, anchor="ma")
    for line, colour in zip(lines, (BLUE, ORANGE), strict=True):
        points = [(place_x(i) * SCALE, place_y(v) * SCALE) for i, v in enumerate(line)]
        draw.line(points, colour, 2 * SCALE, joint="curve")
        for x, y in points if count <= 20 else points[-1:]:
            draw.ellipse([x - 3 * SCALE, y - 3 * SCALE, x + 3 * SCALE, y + 3 * SCALE], colour)


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: str, anchor: str = "la"
) -> None:
    font = ImageFont.load_default(size * SCALE)
    draw.text((at[0] * SCALE, at[1] * SCALE), text, fill=colour, font=font, anchor=anchor)
