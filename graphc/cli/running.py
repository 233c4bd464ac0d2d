"""`graphc run`: from files to arrays, through the network, and its results as text, files and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from rich.console import Console
from rich.progress import track

from graphc.cli.output import make_console, make_folder, show_progress
from graphc.cli.results import describe_result, draw_overlay
from graphc.errors import FileError, InputError
from graphc.files import replace_file
from graphc.geometry import read_geometry
from graphc.images import normalise_image, read_image, resize_image
from graphc.ir import Array, Graph, TensorType
from graphc.pictures import save_png
from graphc.runtime import load
from graphc.runtime.network import Network

if TYPE_CHECKING:  # a library is run without what exports one
    from graphc.runtime.onnxruntime import OnnxRuntimeNetwork

LIBRARY = ".so"
Runnable = Union[Network, "OnnxRuntimeNetwork"]


@dataclass(frozen=True)
class Reader:
    """Makes the network's one input, `name` of this type, from files."""

    name: str
    type: TensorType
    resize: bool
    mean: Sequence[float]
    std: Sequence[float]

    def read(self, path: Path) -> Array:
        """The array [1,C,H,W] of a picture, or what a .npy file holds. Errors: FileError, InputError."""
        if path.suffix == ".npy":
            return read_array(path)
        image = self._fit(path, read_image(path, self._channels(path)))
        return normalise_image(image, self.mean, self.std)[None]

    def read_picture(self, path: Path) -> Array:
        """The picture behind an input as it looks, f32[H,W,3] in 0..1."""
        if path.suffix == ".npy":
            raise InputError(f"{path}: an overlay is drawn over a picture, and this is none")
        return np.moveaxis(self._fit(path, read_image(path, 3)), 0, 2)

    def _channels(self, path: Path) -> int:
        channels = self.type.shape[1] if self.type.rank == 4 else None
        if not isinstance(channels, int) or not self.type.dtype.is_float:
            raise InputError(f"{path}: input '{self.name}' is {self.type}, which no picture can be; give it as .npy")
        return channels

    def _fit(self, path: Path, image: Array) -> Array:
        """The image in the network's size, if that is fixed."""
        height, width = self.type.shape[2:]
        if self.resize:
            if not isinstance(height, int) or not isinstance(width, int):
                raise InputError(f"--resize: input '{self.name}' is {self.type}, which takes pictures of any size")
            return resize_image(image, height, width)
        for wanted, got in zip((height, width), image.shape[1:], strict=True):
            if isinstance(wanted, int) and wanted != got:
                size = f"{image.shape[1]}x{image.shape[2]}"
                raise InputError(
                    f"{path}: expected a picture of {height}x{width} pixels, got {size}; --resize scales it, --dense "
                    "makes a map of it"
                )
        return image


def read_array(path: Path) -> Array:
    """The array in a .npy file. Errors: FileError."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"{path}: cannot be read as .npy: {reason}") from None
    if not isinstance(array, np.ndarray):
        raise FileError(f"{path}: expected one array, got an .npz archive")
    return array


def load_network(
    model: str,
    threads: int | None,
    cpu: str,
    backend: str = "native",
    provider: str | None = None,
    precise: bool = False,
    **options: Any,
) -> Runnable:
    """What MODEL stands for, ready to run; of a library, the compiler is not loaded. Errors: InputError."""
    if provider and backend == "native":
        raise InputError("--provider: expected together with --backend onnxruntime only")
    if not model.endswith(LIBRARY):
        from graphc.cli.loading import load_model

        if backend == "onnxruntime":
            if cpu != "native" or precise:
                option = "precise" if precise else "cpu"
                raise InputError(
                    f"--{option}: expected for graphc's own code only, and ONNX Runtime chooses for itself"
                )
            return _open_onnxruntime(load_model(model, **options), provider or "cpu", threads)
        return compile_graph(load_model(model, **options), threads, cpu, precise)
    chosen = [name for name, value in options.items() if value] + ["cpu"] * (cpu != "native") + ["precise"] * precise
    chosen += ["backend"] * (backend != "native")
    if chosen:
        raise InputError(f"--{chosen[0]}: expected when a library is compiled, and '{model}' is one already")
    return load(model, threads)


def compile_graph(graph: Graph, threads: int | None, cpu: str, precise: bool = False) -> Network:
    """The network as graphc's own code."""
    from graphc.driver import compile

    with show_progress(f"compiling {graph.name}"):
        return compile(graph, threads, cpu, precise=precise)


def _open_onnxruntime(graph: Graph, provider: str, threads: int | None) -> "OnnxRuntimeNetwork":
    from graphc.runtime.onnxruntime import OnnxRuntimeNetwork

    with show_progress(f"exporting {graph.name}"):
        return OnnxRuntimeNetwork(graph, provider, threads)


def make_reader(network: Runnable, resize: bool, mean: list[float] | None, std: list[float] | None) -> Reader:
    """The reader for the network; without `mean` and `std`, its metadata's are taken. Errors: InputError."""
    if len(network.inputs) != 1:
        names = ", ".join(name for name, _ in network.inputs)
        raise InputError(f"network '{network.name}': expected one input to fill from files, it has {names}")
    (name, type), *_ = network.inputs
    return Reader(name, type, resize, mean or read_numbers(network.meta, "mean", 0.0),
                  std or read_numbers(network.meta, "std", 1.0))  # fmt: skip


def run_network(
    network: Runnable, reader: Reader, inputs: Sequence[Path], output: Path | None, overlay: Path | None, top: int
) -> None:
    """Run every input, tell its result, and write it and its overlay where that is wanted."""
    labels = read_labels(network.meta)
    results = place_files(inputs, output, ".npy" if len(network.outputs) == 1 else ".npz")
    pictures = place_files(inputs, overlay, ".png")
    stderr, screen = make_console(stderr=True), make_console()
    several = len(inputs) > 1 and stderr.is_terminal
    if several and screen.is_terminal:
        screen = stderr  # the lines go above the bar
    for path in track(inputs, "running", console=stderr, transient=True, disable=not several):
        arrays = _listed(network(reader.read(path)))
        named = {name: a for (name, _), a in zip(network.outputs, arrays, strict=True)}
        told = [line for name, a in named.items() for line in describe_result(name, a, labels, top)]
        _tell(screen, [str(path), *(f"  {line}" for line in told)])
        if path in results:
            with replace_file(results[path]) as file:
                np.save(file, arrays[0]) if len(arrays) == 1 else np.savez(file, **named)  # type: ignore[arg-type]
            _tell(screen, [f"  {results[path]}"])
        if path in pictures:
            name, scores = next(iter(named.items()))
            picture, found = draw_overlay(
                reader.read_picture(path), scores, read_geometry(network.meta, name), labels, name
            )
            save_png(pictures[path], picture)
            _tell(screen, [f"  {pictures[path]}: {found}"])


def place_files(inputs: Sequence[Path], target: Path | None, suffix: str) -> dict[Path, Path]:
    """Where what belongs to each input is written: `target` itself for one, else NAME.suffix in the folder `target`.

    InputError if two of them would be the same file.
    """
    if target is None:
        return {}
    if target.suffix == suffix:
        if len(inputs) > 1:
            raise InputError(f"{target}: expected a folder for {len(inputs)} inputs, got a file")
        return {inputs[0]: target}
    if target.suffix in (".npy", ".npz", ".png"):
        raise InputError(f"{target}: expected a {suffix} file or a folder")
    places = {path: target / f"{path.stem}{suffix}" for path in inputs}
    if len(set(places.values())) < len(inputs):
        stems = [path.stem for path in inputs]
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f"{target / twice}{suffix}: expected inputs of different names, got '{twice}' twice")
    make_folder(target)
    return places


def _tell(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def read_labels(meta: Mapping[str, str]) -> list[str] | None:
    labels = _read_list(meta, "labels")
    return None if labels is None else [str(x) for x in labels]


def read_numbers(meta: Mapping[str, str], key: str, default: float) -> list[float]:
    numbers = _read_list(meta, key)
    if numbers is None:
        return [default]
    if not numbers or not all(isinstance(x, int | float) for x in numbers):
        raise InputError(f"metadata {key}: expected a JSON list of numbers, got {meta[key]!r}")
    return [float(x) for x in numbers]


def _read_list(meta: Mapping[str, str], key: str) -> list[Any] | None:
    if key not in meta:
        return None
    try:
        found = json.loads(meta[key])
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise InputError(f"metadata {key}: expected a JSON list, got {meta[key]!r}")
    return found


def _listed(result: Any) -> tuple[Array, ...]:
    return result if isinstance(result, tuple) else (result,)
