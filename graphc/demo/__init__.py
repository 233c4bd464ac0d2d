"""The demonstration: a classifier of single digits becomes native code that reads whole pages, checked at every step.

reading.py finds the digits of a page and draws them; checks.py measures accuracy, the agreement of all executors, and
the gain over a sliding window; words.py tells a newcomer what came out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from graphc.artefact import build
from graphc.demo import checks, words
from graphc.demo.reading import Reading, find_grid, read_page
from graphc.driver import compile
from graphc.errors import FileError
from graphc.models import digits
from graphc.models.pages import compose_page
from graphc.onnx import export_onnx
from graphc.passes import fully_convolutional
from graphc.runtime import load
from graphc.summary import summarize

SIZES = ((96, 160), (200, 320), (480, 640))  # pixels: a label, a note, and a page of some 200 digits
SEED = 0  # of the pages


@dataclass(frozen=True)
class Results:
    """All that the demonstration measured. `differences` holds each executor's from float64, page by page."""

    accuracy: checks.Accuracy
    readings: tuple[Reading, ...]
    differences: tuple[Mapping[str, float], ...]
    gain: checks.Gain
    files: tuple[Path, ...]


def run_demo(folder: Path, console: Console) -> Results:
    """Run every step, tell about it on `console`, and write the library, ONNX file and pictures into `folder`.

    GraphcError without scikit-learn, whose digits it reads; FileError if the folder cannot be written. Without a C
    compiler or ONNX Runtime, it says so and goes on.
    """
    progress = Console(stderr=True)  # where stderr is no terminal, a status writes nothing
    with progress.status("compiling the classifier"):
        graph = digits()
        classifier = compile(graph)
        accuracy = checks.measure_accuracy(classifier)
    make_folder(folder)
    words.tell_accuracy(console, accuracy)

    dense = fully_convolutional(graph)
    grid = find_grid(dense)
    height, width = SIZES[-1]
    layers = summarize(graph, {"N": 1}), summarize(dense, {"N": 1, "H": height, "W": width})
    words.tell_conversion(console, *layers, grid)

    with progress.status("compiling the dense network"):
        runs: dict[str, checks.Run] = {"in process": compile(dense)}
        missing = checks.find_missing_compiler()
        built = {} if missing else build(dense, folder)
    files = list(built.values())
    if built:
        runs["artefact"] = load(built["so"])
    words.tell_artefact(console, files, missing)

    read = runs.get("artefact", runs["in process"])
    with progress.status("reading pages"):
        readings = [read_page(read, compose_page(*size, SEED), grid, folder) for size in SIZES]
    words.tell_readings(console, readings)

    files.append(folder / "digits_dense.onnx")
    with progress.status("comparing all executors"):
        export_onnx(dense, files[-1])
        if session := checks.open_onnx(files[-1]):
            runs["ONNX Runtime"] = session
        differences = [checks.compare(dense, runs, reading.page) for reading in readings]
    words.tell_differences(console, readings, differences)

    with progress.status("sliding a window over the largest page"):
        gain = checks.measure_gain(classifier, read, readings[-1].page, grid)
    words.tell_gain(console, gain, grid, checks.count_layers(*layers, gain.windows))

    files += [path for reading in readings for path in reading.files]
    words.tell_files(console, files)
    return Results(accuracy, tuple(readings), tuple(differences), gain, tuple(files))


def make_folder(folder: Path) -> None:
    """The folder and those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be a folder: {error.strerror}") from None
