"""What every worker is given: a network and its inputs, as files in a folder."""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.ir import Array, Graph

MOMENTUM = 0.9  # of SGD, where a step of training is measured


@dataclass(frozen=True)
class Problem:
    """A network with sizes for its open dims and inputs that have them; `folder` holds it as ONNX, among others."""

    folder: Path
    sizes: dict[str, int]
    inputs: tuple[Array, ...]

    @property
    def onnx(self) -> Path:
        """The network as ONNX, its sizes open."""
        return self.folder / "network.onnx"

    def graph(self) -> Graph:
        """The network as graphc has it."""
        with (self.folder / "network.pickle").open("rb") as file:
            graph: Graph = pickle.load(file)
        return graph


@dataclass(frozen=True)
class Loaded:
    """A network ready to run on its problem's inputs: `run` returns the outputs. `version` is the runtime's."""

    version: str
    run: Callable[[], Sequence[Array]]


def run_network(network: Callable[..., Any], problem: Problem) -> Callable[[], Sequence[Array]]:
    """A run of one of graphc's compiled networks on the problem's inputs."""
    inputs = problem.inputs

    def run() -> Sequence[Array]:
        result = network(*inputs)
        return result if isinstance(result, tuple) else (result,)

    return run


def write_problem(
    graph: Graph, sizes: dict[str, int], inputs: Sequence[Array], folder: Path, onnx: bool = True
) -> None:
    """Write what `read_problem` reads; the ONNX file only if any runtime wants it."""
    if onnx:
        from graphc.onnx import export_onnx  # not above: the memory that it takes would count as each worker's

        export_onnx(graph, folder / "network.onnx")
    (folder / "network.pickle").write_bytes(pickle.dumps(graph))
    (folder / "sizes.json").write_text(json.dumps(sizes))
    write_arrays(folder / "inputs.npz", inputs)


def read_problem(folder: Path) -> Problem:
    """The problem in this folder."""
    sizes = json.loads((folder / "sizes.json").read_text())
    return Problem(folder, sizes, read_arrays(folder / "inputs.npz"))


def write_arrays(path: Path, arrays: Sequence[Array]) -> None:
    """Write the arrays in their order."""
    np.savez(path, **{f"{i:04}": a for i, a in enumerate(arrays)})  # type: ignore[arg-type]


def read_arrays(path: Path) -> tuple[Array, ...]:
    """The arrays in the order in which they were written."""
    with np.load(path, allow_pickle=False) as archive:
        return tuple(archive[name] for name in sorted(archive.files))
