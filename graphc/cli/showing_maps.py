"""`graphc show`: pictures of what a classifier says in each place of an image."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from graphc.cli.loading import load_model
from graphc.cli.output import show_progress
from graphc.cli.results import to_probabilities
from graphc.cli.running import Reader, compile_graph, make_reader, read_labels
from graphc.cli.showing import save_picture
from graphc.errors import InputError
from graphc.geometry import Geometry, find_geometry
from graphc.ir import Array, Dim, Graph
from graphc.maps import Panel, draw_maps
from graphc.passes import find_windows, fully_convolutional
from graphc.passes.windows import Windows
from graphc.pictures import Mark, choose_zoom, class_colour, draw_labels, find_peaks, to_picture
from graphc.runtime.network import Network

BATCH = 64  # windows at once: enough to keep every thread busy, few enough for any memory


def show_classes(
    model: Mapping[str, Any], image: Path, names: Sequence[str], count: int, reading: Mapping[str, Any], path: Path
) -> None:
    """Draw the maps of some classes, by default of the `count` best ones by the mean of their maps."""
    graph = load_model(**model, dense=True)
    place, labels = _find_place(graph), _label(graph)
    found = [_find(labels, name, graph) for name in names]
    scores, reader = _run(graph, image, reading)
    means = scores.mean(axis=(1, 2))
    chosen = found or np.argsort(-means, kind="stable")[:count].tolist()
    picture = to_picture(reader.read_picture(image))
    panels = [Panel(scores[k], f"{labels[k]}: {means[k]:.3g} on average") for k in chosen]
    drawn = scores[chosen]
    scale = float(max(drawn.min(), 0) if drawn.max() > 0 else drawn.min()), float(drawn.max())
    dropped = model.get("gap") == "drop"
    title = f"{graph.name}: {'class activation maps' if dropped else 'scores'} of {image.name}"
    note = f"{scores.shape[1]}x{scores.shape[2]} scores for each class, one for every {_pair(_lay(place)[0])} pixels"
    save_picture(path, draw_maps(picture, [Panel(None, image.name), *panels], *_lay(place), scale, title, note))


def show_windows(
    model: Mapping[str, Any], image: Path, name: str | None, reading: Mapping[str, Any], path: Path
) -> None:
    """Draw a class's scores by sliding windows and by one dense run beside each other, and their difference."""
    classifier = load_model(**model)
    graph = fully_convolutional(classifier)
    windows = find_windows(graph)
    if windows is None or windows.map != (1, 1):
        raise InputError(f"network '{graph.name}': expected a classifier of images of one size")
    place, labels = _find_place(graph), _label(graph)
    wanted = _find(labels, name, graph) if name else None
    scores, reader = _run(graph, image, reading)
    pixels = reader.read(image)
    rows, columns = windows.count(*pixels.shape[2:])
    scores = scores[:, :rows, :columns]
    best = np.argsort(-scores.max(axis=(1, 2)), kind="stable")
    k = int(next(i for i in best if labels[i] != "background")) if wanted is None else wanted
    slid = _slide(classifier, pixels, windows, scores.shape)[k]
    difference = np.abs(slid - scores[k])
    low, high = (float(f((slid, scores[k]))) for f in (np.min, np.max))
    share = difference.max() / np.abs(slid).max()
    panels = [
        Panel(slid, f"{slid.size} windows of {_pair(windows.size)} pixels, each alone"),
        Panel(scores[k], f"one dense run, {_pair(slid.shape)} scores"),
        Panel(low + difference, f"their difference: up to {share:.1e} of the largest"),  # none is no colour
    ]
    pads = f"{len(windows.padded)} layers pad: a window alone sees padding where the dense run sees its neighbours"
    note = f"class {labels[k]}; {pads if windows.padded else 'no layer pads, so that both are equal but for rounding'}"
    title = f"{graph.name}: sliding windows and dense map of {image.name}"
    picture = to_picture(reader.read_picture(image))
    save_picture(path, draw_maps(picture, panels, *_lay(place), (low, high), title, note))


def show_boxes(model: Mapping[str, Any], image: Path, count: int, reading: Mapping[str, Any], path: Path) -> None:
    """Draw the windows of the `count` likeliest scores, each with its class and probability.

    Of windows that overlap by more than half, the likeliest counts; class "background" does not.
    """
    graph = load_model(**model, dense=True)
    place, labels = _find_place(graph), _label(graph)
    scores, reader = _run(graph, image, reading)
    (top, left), (height, width) = _find_box(place, find_windows(graph))
    background = labels.index("background") if "background" in labels else None
    (down, right), _ = _lay(place)
    radius = max(1, ceil(max(height / down, width / right) / 2) - 1)
    peaks = find_peaks(to_probabilities(scores[None])[0], background, 0.0, radius)[:count]
    marks = []
    for p in peaks:
        y, x, text = top + down * p.row, left + right * p.col, f"{labels[p.label]} {p.score:.2f}"
        marks.append(Mark(y, x, y + height, x + width, text, class_colour(p.label)))
    picture = to_picture(reader.read_picture(image))
    save_picture(path, draw_labels(picture, marks, choose_zoom(*picture.shape[:2])))


def _find_box(place: Geometry, windows: Windows | None) -> tuple[tuple[float, float], tuple[float, float]]:
    """The first pixel, and the height and width, of the window of score (0, 0): without one, of all that it sees."""
    if windows and windows.map == (1, 1):
        return (0.0, 0.0), windows.size
    rows, columns = place.axes
    return (float(rows.low), float(columns.low)), (float(rows.field), float(columns.field))


def _find_place(graph: Graph) -> Geometry:
    """How the first output lies over the image. InputError if it is no map of scores, or finer than the image."""
    y = graph.outputs[0]
    place = find_geometry(graph).get(y)
    if place is None or y.type.rank != 4 or any(axis.stride.denominator != 1 for axis in place.axes):
        raise InputError(f"network '{graph.name}': expected a map of scores, as fine as the image or less, got {y}")
    return place


def _run(graph: Graph, image: Path, reading: Mapping[str, Any]) -> tuple[Array, Reader]:
    """The first output for the image, [K,P,Q], and what reads images for it."""
    network = _compile(graph)
    reader = make_reader(network, **reading)
    return np.asarray(network(reader.read(image)))[0], reader


def _compile(graph: Graph) -> Network:
    """The network up to its first output."""
    first = replace(graph, outputs=graph.outputs[:1], output_names=graph.output_names[:1])
    return compile_graph(first, None, "native")


def _slide(classifier: Graph, image: Array, windows: Windows, shape: tuple[int, ...]) -> Array:
    """The classifier's scores [K,P,Q] for every window of the image [1,C,H,W]."""
    network = _compile(classifier)
    (height, width), (down, right) = windows.size, windows.stride
    starts = [(down * p, right * q) for p in range(shape[1]) for q in range(shape[2])]
    several = BATCH if isinstance(classifier.inputs[0].type.shape[0], Dim) else 1
    with show_progress(f"sliding {len(starts)} windows"):
        parts = [
            np.asarray(network(np.concatenate([image[:, :, y : y + height, x : x + width] for y, x in some])))
            for some in (starts[i : i + several] for i in range(0, len(starts), several))
        ]
    scores = np.concatenate(parts)
    return scores.reshape(len(scores), -1).T.reshape(shape)


def _label(graph: Graph) -> list[str]:
    """The names of the classes that the first output has scores for, or their numbers."""
    labels, count = read_labels(graph.meta), graph.outputs[0].type.shape[1]
    assert isinstance(count, int)
    return labels if labels and len(labels) == count else [str(k) for k in range(count)]


def _find(labels: Sequence[str], name: str, graph: Graph) -> int:
    if name not in labels:
        close = get_close_matches(name, labels)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"network '{graph.name}': expected one of its {len(labels)} classes, got '{name}'{hint}")
    return labels.index(name)


def _lay(place: Geometry) -> tuple[tuple[int, int], tuple[float, float]]:
    """Stride and offset as pictures have them."""
    rows, columns = place.axes
    return (int(rows.stride), int(columns.stride)), (float(rows.centre), float(columns.centre))


def _pair(pair: Sequence[int]) -> str:
    return f"{pair[0]}x{pair[1]}"
