"""What the demonstration measures: accuracy, the agreement of all executors, and the gain over a sliding window."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from graphc.artefact.link import find_compiler
from graphc.demo.reading import Grid
from graphc.errors import GraphcError
from graphc.ir import DType, Graph
from graphc.models.pages import Page, digit_windows
from graphc.pictures import Floats
from graphc.reference import run_reference
from graphc.summary import Summary
from graphc.verify import relative_difference

BATCH = 64  # windows a call: their largest tensor, 1.6 MB, stays in the cache; 1, 1,024 and all at once are slower
ROUNDS = 5  # of timing; an odd number has a middle

Run = Callable[[Floats], Floats]  # images f32[N,1,H,W] -> scores


@dataclass(frozen=True)
class Accuracy:
    """How many of the scans that were kept from training are named right."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """In 0..1."""
        return self.right / self.total


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


def measure_accuracy(classifier: Run) -> Accuracy:
    """Run the classifier on the scans that were kept from training."""
    windows, labels = digit_windows("test")
    return Accuracy(int((classifier(windows).argmax(axis=1) == labels).sum()), len(labels))


def find_missing_compiler() -> str | None:
    """What to install so that libraries can be linked; None if it is there."""
    try:
        find_compiler()
    except GraphcError as error:
        return str(error)
    return None


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

    def run(x: Floats) -> Floats:
        (scores,) = session.run(None, {image.name: x})
        return np.asarray(scores)

    return run


def compare(dense: Graph, runs: Mapping[str, Run], page: Page) -> dict[str, float]:
    """The largest difference of each executor from NumPy in float64, as a share of the largest score."""
    image = page.image[None, None]
    (expected,) = run_reference(dense, [image], DType.F64)
    return {name: relative_difference(run(image), expected) for name, run in runs.items()}


def measure_gain(classifier: Run, read: Run, page: Page, grid: Grid) -> Gain:
    """Time both ways in turns. The windows are cut out beforehand: only the network's work counts."""
    windows = cut_windows(page, grid)
    rows, columns, *shape = windows.shape
    batches = np.split(windows.reshape(-1, *shape), range(BATCH, rows * columns, BATCH))

    def slide() -> Floats:
        scores = np.concatenate([classifier(batch) for batch in batches])
        return scores.reshape(1, rows, columns, -1).transpose(0, 3, 1, 2)

    def run_dense() -> Floats:
        return read(page.image[None, None])

    difference = relative_difference(run_dense(), slide())  # the first call of each, which also allocates
    seconds = [(time_call(slide), time_call(run_dense)) for _ in range(ROUNDS)]
    sliding, dense = (median(column) for column in zip(*seconds, strict=True))
    return Gain(rows * columns, sliding, dense, difference)


def cut_windows(page: Page, grid: Grid) -> Floats:
    """Every window of the page, f32[P,Q,1,h,w]."""
    every = np.lib.stride_tricks.sliding_window_view(page.image, grid.window)
    return np.ascontiguousarray(every[:: grid.stride[0], :: grid.stride[1], None])


def time_call(run: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def count_layers(classifier: Summary, dense: Summary, windows: int) -> list[Layer]:
    """The work of each layer that multiplies; `fully_convolutional` has kept their names."""
    shared = {row.name: row.multiply_adds for row in dense.rows}
    rows = [row for row in classifier.rows if row.multiply_adds]
    return [Layer(row.name, windows * row.multiply_adds, shared[row.name]) for row in rows]
