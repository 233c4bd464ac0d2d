"""Pictures of what a network has learnt: filters and channels as grids, and images in rows of similar ones.

A picture is a title, a line that says how to read it, and tiles of one size with captions under them.
"""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from graphc.pictures import Floats, Picture, choose_zoom, heat_map, to_picture

WIDTH = 1280  # pixels that a grid fills: a screen's width
LARGEST, SMALLEST = 112, 3  # sides of a tile
THUMBNAIL = 112  # pixels, the side of an image in a row
MARGIN, GAP = 24, 4
TITLE, NOTE, CAPTION = 20, 13, 11  # font sizes
BLANK = ("background", "paper")  # classes that masks leave white
INK, PALE, LINE, PAPER = "#0f172a", "#64748b", "#cbd5e1", "#ffffff"
BLUE, RED = np.array((0.13, 0.4, 0.67)), np.array((0.7, 0.09, 0.17))  # which the colour-blind tell apart


def draw_filters(weight: Floats, title: str) -> Picture:
    """Filters f32[K,C,R,S]: in colour for 3 channels and grey for 1; for others, a row of C grey planes each.

    Each is scaled by its own largest weight: middle grey is 0, white and black are plus and minus that.
    """
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    shown = 0.5 + weight / np.where(largest, 2 * largest, 1)
    count, channels = weight.shape[:2]
    note = "each filter by its own largest weight; middle grey is 0"
    if channels in (1, 3):
        tiles = [to_picture(np.moveaxis(f, 0, 2).repeat(3 // channels, axis=2)) for f in shown]
        return _draw_grid(tiles, None, title, note, _choose_columns(count))
    tiles = [to_picture(plane) for f in shown for plane in f]
    return _draw_grid(tiles, None, title, f"rows are filters, columns input channels; {note}", channels)


def draw_channels(maps: Floats, title: str) -> Picture:
    """Channels f32[C,P,Q] on one scale: as heat maps, or if some are negative, white for 0, red above, blue below."""
    low, high = float(maps.min()), float(maps.max())
    largest = max(-low, high)
    if low < 0:
        tiles = [_paint_signed(plane / largest) for plane in maps]
        note = f"one scale for all channels: white is 0, red {largest:.3g}, blue {-largest:.3g}"
    else:
        tiles = [heat_map(plane, 0, high) for plane in maps]
        note = f"one scale for all channels: black is 0, pale yellow {high:.3g}"
    return _draw_grid(tiles, [str(i) for i in range(len(maps))], title, note, _choose_columns(len(maps)))


def _paint_signed(values: Floats) -> Picture:
    """Values [P,Q] in -1..1 as colours."""
    end = np.where(values[:, :, None] < 0, BLUE, RED)
    return to_picture(np.asarray(1 - np.abs(values)[:, :, None] * (1 - end), np.float32))


def draw_rows(rows: Sequence[Sequence[tuple[Picture, str]]], title: str, note: str) -> Picture:
    """Images of any size with captions, in rows whose first one stands apart."""
    columns = max(len(row) for row in rows)
    step, apart = THUMBNAIL + 2 * GAP, 3 * GAP
    high = THUMBNAIL + CAPTION + 3 * GAP
    page, draw, top = open_page(columns * step + apart, len(rows) * high, title, note)
    for i, row in enumerate(rows):
        for j, (picture, caption) in enumerate(row):
            left = MARGIN + j * step + (apart if j else 0)
            page.paste(_fit(picture), (left, top + i * high))
            draw.rectangle((left - 1, top + i * high - 1, left + THUMBNAIL, top + i * high + THUMBNAIL), outline=LINE)
            _draw_caption(draw, caption, left, top + i * high + THUMBNAIL, THUMBNAIL)
    x = MARGIN + step + apart // 2 - GAP
    draw.line((x, top, x, top + len(rows) * high - 2 * GAP), fill=LINE)
    return np.asarray(page)


def _choose_columns(count: int) -> int:
    """For a grid one to three times as wide as it is high: with as full a last row as can be, then near twice."""
    wide = sqrt(2 * count)
    return min(range(ceil(sqrt(count)), ceil(sqrt(3 * count)) + 1), key=lambda c: (-count % c, abs(c - wide)))


def _draw_grid(
    tiles: Sequence[Picture], captions: Sequence[str] | None, title: str, note: str, columns: int
) -> Picture:
    height, width = tiles[0].shape[:2]
    side = min(LARGEST, max(SMALLEST, (WIDTH - 2 * MARGIN) // columns - GAP))
    scale = side / max(height, width)
    scale = max(1, int(scale)) if scale >= 1 or max(height, width) <= SMALLEST else scale  # whole pixels where it grows
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    gap = GAP if side > 4 * GAP else 1
    captioned = captions is not None and wide >= 2 * CAPTION  # three digits fit
    pitch = high + gap + (CAPTION + 3 if captioned else 0)
    page, draw, top = open_page(columns * (wide + gap), ceil(len(tiles) / columns) * pitch, title, note)
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    for i, tile in enumerate(tiles):
        left, y = MARGIN + i % columns * (wide + gap), top + i // columns * pitch
        page.paste(Image.fromarray(tile).resize((wide, high), method), (left, y))
        if gap == GAP:
            draw.rectangle((left - 1, y - 1, left + wide, y + high), outline=LINE)
        if captioned and captions:
            _draw_caption(draw, captions[i], left, y + high, wide)
    return np.asarray(page)


def open_page(width: int, height: int, title: str, note: str) -> tuple[Image.Image, Any, int]:
    """An empty page for what is `width` by `height`, what draws on it, and where that begins."""
    top = MARGIN + TITLE + NOTE + 20
    fonts = [ImageFont.load_default(size) for size in (TITLE, NOTE)]
    wide = max(width, *(ceil(font.getlength(text)) for font, text in zip(fonts, (title, note), strict=True)))
    page = Image.new("RGB", (wide + 2 * MARGIN, top + height + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN - 4), title, fill=INK, font=fonts[0])
    draw.text((MARGIN, MARGIN + TITLE + 4), note, fill=PALE, font=fonts[1])
    return page, draw, top


def _draw_caption(draw: Any, text: str, left: int, top: int, width: int) -> None:
    """Centred under a tile, its middle left out where it is too long."""
    font = ImageFont.load_default(CAPTION)
    kept = len(text)
    shown = text
    while kept > 2 and draw.textlength(shown, font) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    draw.text((left + width / 2, top + 2), shown, fill=PALE, font=font, anchor="ma")


def _fit(picture: Picture) -> Image.Image:
    """The whole picture, in the middle of a square thumbnail."""
    image = Image.fromarray(picture)
    scale = THUMBNAIL / max(image.size)
    method = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)
    square = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "#f1f5f9")
    square.paste(image, ((THUMBNAIL - image.width) // 2, (THUMBNAIL - image.height) // 2))
    return square


def draw_masks(picture: Picture, classes: NDArray[np.int64], labels: Sequence[str], title: str) -> Picture:
    """The picture u8[H,W,3], and beside it the class i64[H,W] of each pixel in colour, with their names below.

    "background" and "paper" stay white. The legend has the classes that are there, the largest first.
    """
    zoom = choose_zoom(picture.shape[0], 2 * picture.shape[1])
    colours = [class_hue(k, len(labels)) for k in range(len(labels))]
    table = [(255, 255, 255) if n in BLANK else c for n, c in zip(labels, colours, strict=True)]
    pair = [side.repeat(zoom, axis=0).repeat(zoom, axis=1) for side in (picture, np.array(table, np.uint8)[classes])]
    high, wide = pair[0].shape[:2]
    area = np.bincount(classes.ravel(), minlength=len(labels))
    found = [int(k) for k in np.argsort(-area, kind="stable") if area[k] and labels[k] not in BLANK]
    font, places, x, line = ImageFont.load_default(CAPTION), [], 0.0, 0
    for k in found:
        step = CAPTION + 3 * GAP + font.getlength(labels[k])
        x, line = (0.0, line + 1) if x and x + step > wide else (x, line)
        places.append((x, line * (CAPTION + 2 * GAP)))
        x += step
    note = "each pixel in the colour of its likeliest class"
    legend = (line + 1) * (CAPTION + 2 * GAP)
    page, draw, top = open_page(2 * wide + 4 * GAP, high + legend + 2 * GAP, title, note)
    for i, side in enumerate(pair):
        left = MARGIN + i * (wide + 4 * GAP)
        page.paste(Image.fromarray(side), (left, top))
        draw.rectangle((left - 1, top - 1, left + wide, top + high), outline=LINE)
    for k, (right, down) in zip(found, places, strict=True):
        x, y = MARGIN + wide + 4 * GAP + right, top + high + 9 + down
        draw.rectangle((x, y, x + CAPTION, y + CAPTION), fill=colours[k])
        draw.text((x + CAPTION + GAP, y - 1), labels[k], fill=PALE, font=font)
    return np.asarray(page)


def class_hue(label: int, count: int) -> tuple[int, int, int]:
    """Colours of many classes side by side: neighbours in hue differ in lightness, too."""
    red, green, blue = hsv_to_rgb(label / count, 0.9, 0.9 if label % 2 else 0.6)
    return round(255 * red), round(255 * green), round(255 * blue)
