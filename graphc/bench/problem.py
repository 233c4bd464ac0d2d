"""What every worker is given: a network and its inputs, as files in a folder."""

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from graphc.ir import Array, DType, Graph
from graphc.ir.graph import Param
from graphc.state import format_safetensors, open_state
from graphc.stored import Stored

MOMENTUM = 0.9  # of SGD, where a step of training is measured
WEIGHTS = "network.safetensors"


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
        """The network as graphc has it when `Graph.load_state` has given it the weights of a file."""
        with (self.folder / "network.pickle").open("rb") as file:
            graph: Graph = _Reader(file, open_state(self.folder / WEIGHTS)).load()
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
    declaration = BytesIO()
    writer = _Writer(declaration)
    writer.dump(graph)
    (folder / "network.pickle").write_bytes(declaration.getvalue())
    (folder / WEIGHTS).write_bytes(format_safetensors(writer.weights, {}))
    (folder / "sizes.json").write_text(json.dumps(sizes))
    write_arrays(folder / "inputs.npz", inputs)


class _Writer(pickle.Pickler):
    """Pickles a graph without its float32 parameters, which it gathers as `weights`."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.weights: dict[str, Array] = {}

    def persistent_id(self, thing: object) -> object:
        """What stands for a parameter in the file."""
        if not isinstance(thing, Param) or thing.value.type.dtype != DType.F32:
            return None
        self.weights[thing.value.name] = thing.array
        return thing.value, thing.trainable


class _Reader(pickle.Unpickler):
    """Unpickles such a graph, with these weights."""

    def __init__(self, file: IO[bytes], weights: Mapping[str, Array | Stored]) -> None:
        super().__init__(file)
        self._weights = weights

    def persistent_load(self, found: Any) -> Param:
        """The parameter that this stands for."""
        value, trainable = found
        return Param.of(value, self._weights[value.name], trainable)


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
