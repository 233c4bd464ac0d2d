"""The demonstration: a classifier of single digits becomes native code that reads whole pages, checked at every step.

Each step is a function that returns what it measured; the `tell_*` functions put that into words for a newcomer.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from graphc.artefact import build
from graphc.artefact.link import find_compiler
from graphc.driver import compile
from graphc.errors import FileError, GraphcError
from graphc.geometry import find_geometry
from graphc.ir import DType, Graph
from graphc.models import digits
from graphc.models.pages import BACKGROUND, LABELS, Page, compose_page, digit_windows
from graphc.onnx import export_onnx
from graphc.passes import fully_convolutional
from graphc.pictures import (
    Detection, Floats, Picture, choose_zoom, draw_labels, find_peaks, heat_map, mark_detections, overlay, save_png,
    softmax,
)  # fmt: skip
from graphc.reference import run_reference
from graphc.runtime import load
from graphc.runtime.network import Network
from graphc.summary import Summary, summarize
from graphc.verify import relative_difference

SIZES = ((96, 160), (200, 320), (480, 640))  # pixels: a label, a note, and a page with some 200 digits
SEED = 0  # of the pages
THRESHOLD = 0.5  # a digit has been found where it is likelier than everything else together
RADIUS = 3  # cells, 12 pixels: half of the least distance between two digits of a page
NEAR = 6  # pixels from a digit's centre: a quarter of that distance
MARK = (24, 20)  # pixels, height and width: the largest digits
OUTSIDE = 96  # the grey, of 255, of what no window is centred on: no colour of the heat map
BATCH = 64  # windows a call: their largest values, 1.6 MB, stay in the cache; 1,024 take longer, and so do single ones
ROUNDS = 5  # of timing; an odd number has a middle

Run = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Accuracy:
    """How many of the digits that the network was not trained on it names right."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """In 0..1."""
        return self.right / self.total


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
        return self.window[0] // self.stride[0] * (self.window[1] // self.stride[1])


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


@dataclass(frozen=True)
class Layer:
    """The multiply-adds of a layer over a page: window by window, and in one dense run."""

    name: str
    sliding: int
    dense: int


@dataclass(frozen=True)
class Gain:
    """One dense run beside a run of the classifier on each window: median seconds, and their largest difference as a
    share of the largest score."""

    windows: int
    sliding_seconds: float
    dense_seconds: float
    difference: float

    @property
    def factor(self) -> float:
        """How many times faster the dense run is."""
        return self.sliding_seconds / self.dense_seconds


@dataclass(frozen=True)
class Results:
    """All that the demonstration measured. `differences` holds each executor's from float64, for each page."""

    accuracy: Accuracy
    readings: tuple[Reading, ...]
    differences: tuple[Mapping[str, float], ...]
    gain: Gain
    files: tuple[Path, ...]


def run_demo(folder: Path, console: Console) -> Results:
    """Run every step, tell about it on `console`, and write the pictures, library and ONNX file into `folder`.

    GraphcError without scikit-learn, whose digits it reads; FileError if the folder cannot be written. Without a C
    compiler or ONNX Runtime, it says so and goes on.
    """
    progress = Console(stderr=True)
    with progress.status("compiling the classifier"):
        graph = digits()
        classifier = compile(graph)
        accuracy = measure_accuracy(classifier)
    make_folder(folder)
    tell_accuracy(console, accuracy)

    dense = fully_convolutional(graph)
    grid = find_grid(dense)
    largest = dict(zip("NHW", (1, *SIZES[-1]), strict=True))
    layers = summarize(graph, {"N": 1}), summarize(dense, largest)
    tell_conversion(console, *layers, grid)

    with progress.status("compiling the dense network"):
        runs: dict[str, Run] = {"in process": compile(dense)}
        missing = find_missing_compiler()
        files = [] if missing else list(build(dense, folder).values())
    if not missing:
        runs["artefact"] = load(folder / "digits.so")
    tell_artefact(console, files, missing)

    read = runs.get("artefact", runs["in process"])
    with progress.status("reading pages"):
        readings = [read_page(read, compose_page(*size, SEED), grid, folder) for size in SIZES]
    tell_readings(console, readings)

    with progress.status("comparing executors"):
        files.append(folder / "digits_dense.onnx")
        export_onnx(dense, files[-1])
        if session := open_onnx(files[-1]):
            runs["ONNX Runtime"] = session
        differences = [compare(dense, runs, reading.page) for reading in readings]
    tell_differences(console, readings, differences)

    with progress.status("sliding a window"):
        gain = measure_gain(classifier, read, readings[-1].page, grid)
    tell_gain(console, gain, grid, count_layers(*layers, gain.windows), readings[-1].page)

    files += [path for reading in readings for path in reading.files]
    tell_files(console, files)
    return Results(accuracy, tuple(readings), tuple(differences), gain, tuple(files))


def measure_accuracy(classifier: Network) -> Accuracy:
    """Run the classifier on the digits that were kept from training."""
    windows, labels = digit_windows("test")
    return Accuracy(int((classifier(windows).argmax(axis=1) == labels).sum()), len(labels))


def make_folder(folder: Path) -> None:
    """Make sure that the folder is there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made a folder: {error.strerror}") from None


def find_grid(dense: Graph) -> Grid:
    """What the graph itself tells of its output's geometry."""
    geometry = find_geometry(dense)[dense.outputs[0]]
    assert geometry is not None
    axes = geometry.rows, geometry.columns
    window, stride, first = ([getattr(axis, name) for axis in axes] for name in ("field", "stride", "centre"))
    return Grid((int(window[0]), int(window[1])), (int(stride[0]), int(stride[1])), (float(first[0]), float(first[1])))


def find_missing_compiler() -> str | None:
    """What to install so that libraries can be linked; None if that is there."""
    try:
        find_compiler()
    except GraphcError as error:
        return str(error)
    return None


def read_page(read: Run, page: Page, grid: Grid, folder: Path) -> Reading:
    """Find the digits of a page; draw the page, the heat map of "here is a digit", and what was found."""
    scores = read(page.image[None, None])[0]
    probabilities = softmax(scores)
    heat = 1 - probabilities[BACKGROUND]
    found = find_peaks(probabilities, BACKGROUND, THRESHOLD, RADIUS)
    height, width = page.image.shape
    zoom = choose_zoom(height, width)
    marks = mark_detections(found, grid.stride, grid.first, MARK, LABELS)
    paper = 1 - page.image  # the network reads ink, people see light
    pictures = {
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


def open_onnx(path: Path) -> Run | None:
    """ONNX Runtime, on the CPU, with the network of this file; None if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of values that it can fold
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    return lambda x: session.run(None, {image.name: x})[0]  # type: ignore[no-any-return]


def compare(dense: Graph, runs: Mapping[str, Run], page: Page) -> dict[str, float]:
    """The largest difference of each executor from NumPy in float64, as a share of the largest score."""
    image = page.image[None, None]
    (expected,) = run_reference(dense, [image], DType.F64)
    return {name: relative_difference(run(image), expected) for name, run in runs.items()}


def slide_window(classifier: Run, page: Page, grid: Grid) -> tuple[Floats, Callable[[], Floats]]:
    raise NotImplementedError


def cut_windows(page: Page, grid: Grid) -> Floats:
    """Every window of the page, row by row: f32[P,Q,1,h,w]."""
    every = np.lib.stride_tricks.sliding_window_view(page.image, grid.window)
    return np.ascontiguousarray(every[:: grid.stride[0], :: grid.stride[1], None])


def measure_gain(classifier: Run, read: Run, page: Page, grid: Grid) -> Gain:
    """Time both ways in turns. The windows are cut out beforehand: only the network's work counts."""
    windows = cut_windows(page, grid)
    rows, columns, *shape = windows.shape
    batches = np.split(windows.reshape(-1, *shape), range(BATCH, rows * columns, BATCH))

    def slide() -> Floats:
        scores = np.concatenate([classifier(batch) for batch in batches])
        return scores.reshape(rows, columns, -1).transpose(2, 0, 1)

    def run_dense() -> Floats:
        return read(page.image[None, None])[0]

    difference = relative_difference(run_dense(), slide())  # and memory is warm
    seconds = [(time_once(slide), time_once(run_dense)) for _ in range(ROUNDS)]
    sliding, dense = (median(column) for column in zip(*seconds, strict=True))
    return Gain(rows * columns, sliding, dense, difference)


def time_once(run: Callable[[], Floats]) -> float:
    """The seconds that one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
