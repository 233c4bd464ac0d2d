"""`graphc show`: pictures of filters, of a value's channels, and of the images that a network finds similar."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from graphc import ops
from graphc.cli.loading import load_model
from graphc.cli.running import Reader, compile_graph, make_reader, read_labels
from graphc.errors import InputError
from graphc.grids import draw_channels, draw_filters, draw_masks, draw_rows
from graphc.ir import Array, Graph, Node, Value
from graphc.pictures import Picture, save_png, to_picture
from graphc.runtime.network import Network

CONVOLUTIONS = (ops.Conv2d, ops.ConvTranspose2d)
Found = TypeVar("Found", Node, Value)


def load_and_reading(given: dict[str, Any]) -> tuple[Graph, dict[str, Any]]:
    """The graph that the options of a model stand for, and apart from them those that say how images are read."""
    model, reading = split_reading(given)
    return load_model(**model), reading


def split_reading(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a model, and those that say how images are read."""
    names = ("resize", "mean", "std")
    return {k: v for k, v in given.items() if k not in names}, {k: given[k] for k in names}


def show_filters(graph: Graph, layer: str | None, path: Path) -> None:
    """Draw the weights of a convolution, by default of the first one."""
    found = {n.name: n for n in graph.nodes if isinstance(n.op, ops.Conv2d) and n.inputs[1] in graph.constants}
    node = _choose(graph, found, layer, "convolution")
    weight = graph.constants[node.inputs[1]].array
    shape = "x".join(map(str, weight.shape[1:]))
    save_picture(path, draw_filters(weight, f"{graph.name}: {len(weight)} filters of {node.name}, {shape}"))


def show_activations(graph: Graph, image: Path, value: str | None, reading: Mapping[str, Any], path: Path) -> None:
    """Draw the channels of a value for an image, by default those of the first convolution's result."""
    found = {v.name: v for node in graph.nodes for v in node.outputs if v.type.rank == 4}
    first = next((node.outputs[0].name for node in graph.nodes if isinstance(node.op, CONVOLUTIONS)), None)
    chosen = _choose(graph, found, value or first, "value [N,C,P,Q]")
    network, reader = _open(graph, chosen, reading)
    maps = np.asarray(network(reader.read(image)))[0]
    size = "x".join(map(str, maps.shape[1:]))
    save_picture(
        path, draw_channels(maps, f"{graph.name}: {len(maps)} channels of {chosen.name}, {size}, for {image.name}")
    )


def show_neighbours(
    graph: Graph,
    images: Sequence[Path],
    count: int,
    queries: int,
    reading: Mapping[str, Any],
    path: Path,
) -> None:
    """Draw the first images, each with those that lie next to it in the feature space of the last hidden layer."""
    if len(images) < 2:
        raise InputError(f"neighbours: expected at least 2 images, got {len(images)}")
    value = find_features(graph)
    network, reader = _open(graph, value, reading)
    features = np.stack([_flatten(np.asarray(network(reader.read(p)))[0]) for p in images])
    pictures = [to_picture(reader.read_picture(p)) for p in images]
    rows = []
    for i, path_ in enumerate(images[:queries]):
        distances = np.linalg.norm(features - features[i], axis=1)
        near = [j for j in np.argsort(distances, kind="stable") if j != i][:count]
        rows.append([(pictures[i], path_.stem), *((pictures[j], f"{distances[j]:.3g}") for j in near)])
    title = f"{graph.name}: nearest of {len(images)} images"
    note = f"an image, then its neighbours by distance in the {features.shape[1]} features of {value.name}"
    save_picture(path, draw_rows(rows, title, note))


def show_masks(graph: Graph, image: Path, reading: Mapping[str, Any], path: Path) -> None:
    """Draw the likeliest class of each pixel beside the image."""
    scores = graph.outputs[0]
    if scores.type.rank != 4 or not isinstance(scores.type.shape[1], int) or scores.type.shape[1] < 2:
        raise InputError(f"network '{graph.name}': expected scores [N,K,H,W] of 2 classes or more, got {scores}")
    network = compile_graph(replace(graph, outputs=(scores,), output_names=graph.output_names[:1]), None, "native")
    reader = make_reader(network, **reading)
    picture = to_picture(reader.read_picture(image))
    classes = np.asarray(network(reader.read(image)))[0].argmax(axis=0)
    if classes.shape != picture.shape[:2]:
        raise InputError(f"network '{graph.name}': expected a score for each pixel of {image}, "
                         f"{list(picture.shape[:2])}, got {list(classes.shape)}")  # fmt: skip
    labels = read_labels(graph.meta) or [str(k) for k in range(scores.type.shape[1])]
    save_picture(path, draw_masks(picture, classes, labels, f"{graph.name}: {image.name}"))


def find_features(graph: Graph) -> Value:
    """What the last layer with weights reads. InputError if there is none, or if that is the network's input."""
    layers = [
        n for n in graph.nodes if isinstance(n.op, (*CONVOLUTIONS, ops.Linear)) and n.inputs[1] in graph.constants
    ]
    if not layers or layers[-1].inputs[0] not in graph.producers:
        raise InputError(f"network '{graph.name}': expected a hidden layer, and a layer with weights after it")
    value = layers[-1].inputs[0]
    while isinstance(graph.producers[value].op, ops.Dropout):  # which does nothing now
        (value,) = graph.producers[value].inputs
    return value


def _flatten(features: Array) -> Array:
    """[C,...] as [C]: the mean over a map, so that images of different sizes compare."""
    return np.asarray(features.reshape(len(features), -1).mean(axis=1))


def _choose(graph: Graph, found: Mapping[str, Found], name: str | None, what: str) -> Found:
    """The one of this name, or the first. Errors: InputError."""
    if not found:
        raise InputError(f"network '{graph.name}': expected a {what}, it has none")
    if name is not None and name not in found:
        close = get_close_matches(name, found)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(f"network '{graph.name}': expected the name of a {what}, got '{name}'{hint}")
    return next(iter(found.values())) if name is None else found[name]


def _open(graph: Graph, value: Value, reading: Mapping[str, Any]) -> tuple[Network, Reader]:
    """The network up to `value`, compiled, and what reads its images."""
    network = compile_graph(replace(graph, outputs=(value,), output_names=(value.name,)), None, "native")
    return network, make_reader(network, **reading)


def save_picture(path: Path, picture: Picture) -> None:
    """Write it, and tell its size. Errors: InputError."""
    if path.suffix != ".png":
        raise InputError(f"{path}: expected a file that ends in .png")
    save_png(path, picture)
    click.echo(f"{path}  {picture.shape[1]}x{picture.shape[0]} pixels")
