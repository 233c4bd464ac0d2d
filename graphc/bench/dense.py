"""Measuring one dense run against sliding windows: the same map of scores, by a network and by its classifier."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from graphc import ops
from graphc.bench.machine import cache_bytes, choose_cpus
from graphc.bench.problem import read_arrays, write_problem
from graphc.bench.process import Worker
from graphc.bench.runtimes import GRAPHC, Peer
from graphc.errors import InputError
from graphc.ir import Array, Dim, Graph, Node
from graphc.passes import find_windows, fully_convolutional
from graphc.passes.windows import Windows
from graphc.reference import random_inputs
from graphc.summary import count_multiply_adds, summarize
from graphc.verify import relative_difference

SAMPLE = 16  # windows that are timed: enough for a batch to pay, and VGG-16 has them done in seconds
Pair = tuple[int, int]


@dataclass(frozen=True)
class DenseComparison:
    """One network, image and number of threads.

    scores: in the map, each about a window of `window` pixels in the image, `stride` apart. dense_seconds: of a dense
    run, in each round. window_seconds: of one window, in each round, where `timed` of them run at once: one, or a
    sample of all, whichever takes less time for each. work: multiply-adds of all windows ÷ those of the dense run.
    once: the share of the latter in `once_layers`, which have one pixel for each score, so that windows have nothing
    of them in common.
    difference: between the scores of both for `compared` windows, as a share of the largest. padded: how many layers
    pad. workspace_bytes: what the maps between the layers take, of a dense run and of one window; cache_bytes: the
    largest cache. peak_bytes: of the dense run's process.
    """

    network: str
    image: Pair
    threads: int
    window: Pair
    stride: Pair
    scores: Pair
    timed: int
    compared: int
    dense_seconds: tuple[float, ...]
    window_seconds: tuple[float, ...]
    work: float
    once: float
    once_layers: tuple[str, ...]
    difference: float
    padded: int
    workspace_bytes: tuple[int, int]
    cache_bytes: int
    peak_bytes: int

    @property
    def bound(self) -> float:
        """(window/stride)²: the gain if every pixel of every layer were computed once, not once for each window."""
        return self.window[0] * self.window[1] / (self.stride[0] * self.stride[1])

    @property
    def gain(self) -> float:
        """How often the dense run fits in the time of all windows: the median over the rounds."""
        p, q = self.scores
        return median(p * q * w / d for w, d in zip(self.window_seconds, self.dense_seconds, strict=True))

    @property
    def covered(self) -> float:
        """The share of the bound that the page's size leaves: no window hangs over its edges."""
        (p, q), (height, width) = self.scores, self.image
        return p * q * self.stride[0] * self.stride[1] / (height * width)

    def to_json(self) -> dict[str, Any]:
        """All of it as numbers, texts and lists."""
        return asdict(self) | {"bound": self.bound, "gain": self.gain, "covered": self.covered}


DENSE, ALONE, BATCH = "dense", "alone", "batch"  # what takes turns


def compare_dense(
    classifier: Graph,
    image: Pair,
    threads: Sequence[int],
    rounds: int,
    seconds: float,
    tell: Callable[[str], None] = lambda text: None,
) -> list[DenseComparison]:
    """One comparison for each number of threads, on a random image of this size. Errors: InputError.

    The dense run, one window alone and all windows of the sample at once take turns, each in a process of its own.
    """
    cpus = [choose_cpus(n) for n in threads]
    dense = fully_convolutional(classifier)
    windows = find_windows(dense)
    if windows is None or windows.map != (1, 1) or len(dense.inputs) != 1:
        raise InputError(f"network '{classifier.name}': expected a classifier of one image, of one size")
    if any(a < b for a, b in zip(image, windows.size, strict=True)):
        raise InputError(f"--image: expected at least a window of '{classifier.name}', "
                         f"{windows.size[0]}x{windows.size[1]}, got {image[0]}x{image[1]}")  # fmt: skip
    (page,), sizes = random_inputs(dense, large := _sizes(dense, image)), _sizes(classifier, windows.size)
    p, q = windows.count(*image)
    places = [divmod(int(k), q) for k in np.linspace(0, p * q - 1, min(SAMPLE, p * q))]
    sample = np.concatenate([_cut(page, y, x, windows) for y, x in places])
    inputs = {DENSE: page, ALONE: sample[:1]}
    if isinstance(classifier.inputs[0].type.shape[0], Dim):
        inputs[BATCH] = sample
    workspaces = summarize(dense, large).workspace_bytes, summarize(classifier, sizes).workspace_bytes
    whole, once = _count(dense, large, dense.nodes), _find_once(dense, windows)
    with TemporaryDirectory(prefix="graphc-bench-") as name:
        folders = {}
        for peer, array in inputs.items():
            tell(f"{classifier.name}: writing the inputs")
            folders[peer] = Path(name) / peer
            folders[peer].mkdir()
            write_problem(dense if peer == DENSE else classifier, sizes, [array], folders[peer], onnx=False)
        results = []
        for chosen in cpus:
            say = partial(_tell_more, tell, f"{classifier.name}, threads {len(chosen)}")
            times, scores, peak = _measure(folders, chosen, rounds, seconds, say)
            timed = len(sample) if BATCH in times and _faster(times, len(sample)) else 1
            there = np.stack([scores[DENSE][0, :, y, x] for y, x in places])
            slid = scores[BATCH if BATCH in scores else ALONE]
            results.append(
                DenseComparison(
                    classifier.name, image, len(chosen), windows.size, windows.stride, (p, q), timed, len(slid),
                    times[DENSE], tuple(t / timed for t in times[ALONE if timed == 1 else BATCH]),
                    p * q * _count(classifier, sizes, classifier.nodes) / whole, _count(dense, large, once) / whole,
                    tuple(n.name for n in once), relative_difference(there[: len(slid)], slid.reshape(len(slid), -1)),
                    len(windows.padded), workspaces, max(cache_bytes().values(), default=0), peak,
                )
            )  # fmt: skip
    return results


def _tell_more(tell: Callable[[str], None], what: str, text: str) -> None:
    tell(f"{what}: {text}")


def _sizes(graph: Graph, image: Pair) -> dict[str, int]:
    """One image of this size."""
    given = {str(d): n for d, n in zip(graph.inputs[0].type.shape[2:], image, strict=True)}
    return {s: given.get(s, 1) for s in graph.symbols}


def _cut(page: Array, y: int, x: int, windows: Windows) -> Array:
    """The window that score (y, x) is about."""
    top, left = y * windows.stride[0], x * windows.stride[1]
    return page[:, :, top : top + windows.size[0], left : left + windows.size[1]]


def _find_once(dense: Graph, windows: Windows) -> list[Node]:
    """The layers with weights that have one pixel for each score."""
    single = {name for name, (rows, columns) in windows.parts.items() if (rows.count, columns.count) == (1, 1)}
    return [n for n in dense.nodes if n.outputs[0].name in single and isinstance(n.op, ops.Conv2d)]


def _count(graph: Graph, sizes: dict[str, int], nodes: Sequence[Node]) -> int:
    return sum(count_multiply_adds(node, sizes) for node in nodes)


def _faster(times: dict[str, tuple[float, ...]], sample: int) -> bool:
    """Whether the sample at once takes less time than one by one."""
    return median(times[BATCH]) < sample * median(times[ALONE])


def _measure(
    folders: dict[str, Path], cpus: Sequence[int], rounds: int, seconds: float, tell: Callable[[str], None]
) -> tuple[dict[str, tuple[float, ...]], dict[str, Array], int]:
    """Seconds of each run in each round, the first output of each, and the dense run's peak bytes."""
    times: dict[str, list[float]] = {name: [] for name in folders}
    scores: dict[str, Array] = {}
    peaks: dict[str, int] = {}
    with ExitStack() as stack:
        workers = {}
        for name, folder in folders.items():
            tell(f"loading ({name})")
            workers[name] = stack.enter_context(Worker(Peer(name, GRAPHC.loader), folder, cpus))
        for i in range(rounds):
            tell(f"round {i + 1} of {rounds}")
            for name, worker in workers.items():
                times[name].append(worker.time(seconds))
        for name, worker in workers.items():
            peaks[name] = worker.save(folders[name] / "outputs.npz")
            scores[name] = read_arrays(folders[name] / "outputs.npz")[0]
    return {name: tuple(t) for name, t in times.items()}, scores, peaks[DENSE]
