"""Finding the digits of a page in the map of scores of the dense network, and drawing them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphc.geometry import find_geometry
from graphc.ir import Graph
from graphc.models.pages import BACKGROUND, LABELS, Page
from graphc.pictures import (
    Detection,
    Floats,
    Picture,
    choose_zoom,
    draw_labels,
    find_peaks,
    heat_map,
    mark_detections,
    overlay,
    save_png,
    softmax,
)

THRESHOLD = 0.5  # a digit has been found where it is likelier than everything else together
RADIUS = 3  # cells, 12 pixels: half of the least distance between two digits of a page
NEAR = 6  # pixels from a digit's centre: a quarter of that distance
MARK = (24, 20)  # pixels, height and width of a box: around the largest digits
OUTSIDE = 96  # of 255, the grey of pixels that no window is centred on: no colour of the heat map


@dataclass(frozen=True)
class Grid:
    """How the map of scores lies over the page, in pixels, rows before columns: cell (p, q) tells of the `window` whose
    centre is first + stride * (p, q)."""

    window: tuple[int, int]
    stride: tuple[int, int]
    first: tuple[float, float]

    @property
    def overlap(self) -> int:
        """How many windows see one pixel, away from the page's edge."""
        return self.window[0] * self.window[1] // (self.stride[0] * self.stride[1])


@dataclass(frozen=True)
class Reading:
    """A page, its map of scores f32[11,P,Q], the digits found on it, how many of them are right, and the pictures."""

    page: Page
    scores: Floats
    found: tuple[Detection, ...]
    right: int
    files: tuple[Path, ...]

    @property
    def precision(self) -> float:
        """The share of the found digits that are right."""
        return self.right / max(1, len(self.found))

    @property
    def recall(self) -> float:
        """The share of the page's digits that were found."""
        return self.right / len(self.page.labels)


def find_grid(dense: Graph) -> Grid:
    """What the graph itself tells of its output's geometry."""
    geometry = find_geometry(dense)[dense.outputs[0]]
    assert geometry is not None
    y, x = geometry.rows, geometry.columns
    return Grid((int(y.field), int(x.field)), (int(y.stride), int(x.stride)), (float(y.centre), float(x.centre)))


def read_page(read: Callable[[Floats], Floats], page: Page, grid: Grid, folder: Path) -> Reading:
    """Find the digits of a page; draw the page, the heat map of "here is a digit", and what was found."""
    (scores,) = read(page.image[None, None])
    probabilities = softmax(scores)
    heat = 1 - probabilities[BACKGROUND]
    found = find_peaks(probabilities, BACKGROUND, THRESHOLD, RADIUS)
    height, width = page.image.shape
    zoom = choose_zoom(height, width)
    marks = mark_detections(found, grid.stride, grid.first, MARK, LABELS)
    paper = 1 - page.image  # the network reads ink, people see light
    pictures: dict[str, Floats | Picture] = {
        "": paper,
        "_heat": place_cells(heat_map(heat, 0, 1), (height, width), grid).repeat(zoom, axis=0).repeat(zoom, axis=1),
        "_found": draw_labels(overlay(paper, heat, grid.stride, grid.first, 0, 1), marks, zoom),
    }
    files = {folder / f"page_{height}x{width}{name}.png": picture for name, picture in pictures.items()}
    for path, picture in files.items():
        save_png(path, picture)
    return Reading(page, scores, tuple(found), count_right(found, page, grid), tuple(files))


def place_cells(cells: Picture, size: tuple[int, int], grid: Grid) -> Picture:
    """Colours u8[P,Q,3] at the page's size u8[H,W,3]: each cell a block of one stride around its window's centre."""
    blocks = cells.repeat(grid.stride[0], axis=0).repeat(grid.stride[1], axis=1)
    top, left = (round(first + 0.5 - stride / 2) for first, stride in zip(grid.first, grid.stride, strict=True))
    picture = np.full((*size, 3), OUTSIDE, np.uint8)
    picture[top : top + blocks.shape[0], left : left + blocks.shape[1]] = blocks
    return picture


def count_right(found: Sequence[Detection], page: Page, grid: Grid) -> int:
    """How many lie within NEAR pixels of the centre of a digit of their class; each digit of the page counts once."""
    centres = (page.boxes[:, :2] + page.boxes[:, 2:] - 1) / 2
    free = np.ones(len(centres), bool)
    for peak in found:
        row, column = np.array(grid.first) + np.array(grid.stride) * (peak.row, peak.col)
        distance = np.hypot(centres[:, 0] - row, centres[:, 1] - column)
        distance[~free | (page.labels != peak.label)] = np.inf
        if distance.min() <= NEAR:
            free[distance.argmin()] = False
    return int(np.sum(~free))
