"""Pictures of score maps over their image: heat maps side by side on one scale, each with what it is, and the scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from PIL import Image, ImageFont

from graphc.grids import CAPTION, GAP, LINE, MARGIN, PALE, WIDTH, open_page
from graphc.pictures import Floats, Picture, overlay, paint

BAR = 10  # pixels, the height of the bar that shows the scale
COLUMNS = (3, 2)  # of panels: more would be small


@dataclass(frozen=True)
class Panel:
    """Scores f32[P,Q] to draw over the image, and what they are; None: the image as it is."""

    scores: Floats | None
    caption: str


def draw_maps(
    image: Picture,
    panels: Sequence[Panel],
    stride: tuple[int, int],
    offset: tuple[float, float],
    scale: tuple[float, float],
    title: str,
    note: str,
) -> Picture:
    """The panels in rows, all on one `scale`, (lowest, highest), and a bar with its colours below.

    image: u8[H,W,3]; stride and offset as `overlay` takes them. A row of panels is as wide as a screen, unless it were
    higher than half of that.
    """
    columns = len(panels) if len(panels) < COLUMNS[0] else min(COLUMNS, key=lambda c: -len(panels) % c)
    height, width = image.shape[:2]
    room = (WIDTH - 2 * MARGIN - (columns - 1) * 4 * GAP) // columns
    zoom = min(room / width, WIDTH / 2 / height)
    wide, high = round(width * zoom), max(1, round(height * zoom))
    method = Image.Resampling.BICUBIC if zoom >= 1 else Image.Resampling.BOX
    pitch = (wide + 4 * GAP, high + CAPTION + 4 * GAP)
    rows = ceil(len(panels) / columns)
    page, draw, top = open_page(columns * pitch[0] - 4 * GAP, rows * pitch[1] + BAR + CAPTION + GAP, title, note)
    font = ImageFont.load_default(CAPTION)
    for i, panel in enumerate(panels):
        left, y = MARGIN + i % columns * pitch[0], top + i // columns * pitch[1]
        picture = image if panel.scores is None else overlay(image, panel.scores, stride, offset, *scale)
        page.paste(Image.fromarray(picture).resize((wide, high), method), (left, y))
        draw.rectangle((left - 1, y - 1, left + wide, y + high), outline=LINE)
        draw.text((left, y + high + GAP), panel.caption, fill=PALE, font=font)
    y = top + rows * pitch[1]
    bar = paint(np.linspace(0, 1, wide, dtype=np.float32)[None].repeat(BAR, axis=0))
    page.paste(Image.fromarray(bar), (MARGIN, y))
    draw.text((MARGIN, y + BAR + 2), f"{scale[0]:.3g}", fill=PALE, font=font)
    draw.text((MARGIN + wide, y + BAR + 2), f"{scale[1]:.3g}", fill=PALE, font=font, anchor="ra")
    return np.asarray(page)
