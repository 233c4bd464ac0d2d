"""Parameters in files: a network's weights by name, as safetensors or NumPy's .npz. Nothing is ever unpickled."""

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from graphc.errors import FileError, InputError
from graphc.ir import Array, Graph, Param


def load_state(graph: Graph, path: str | PathLike[str]) -> Graph:
    """`graph` with its parameters from a .safetensors or .npz file; missing, unexpected and mis-shaped ones are
    reported together in one InputError. Constants that the graph declares itself may be left out."""
    return with_params(graph, read_state(path), str(path))


def with_params(graph: Graph, arrays: Mapping[str, Array], source: str = "parameters") -> Graph:
    """`graph` with these parameters; InputError lists every name that does not fit.

    `<name>.num_batches_tracked`, which PyTorch's batch norm counts while it is trained, is passed over.
    """
    arrays = {name: array for name, array in arrays.items() if not name.endswith(".num_batches_tracked")}
    problems = []
    for name, param in graph.params.items():
        if name not in arrays and param.trainable:
            problems.append(f"missing {name} {param.value.type}")
        elif name in arrays and arrays[name].shape != param.value.type.shape:
            problems.append(f"{name}: expected {param.value.type}, got {list(arrays[name].shape)}")
    problems += [f"unexpected {name}" for name in arrays if name not in graph.params]
    if problems:
        raise InputError(f"{source}: {'; '.join(problems)}")
    params = {
        name: Param(p.value, arrays[name].astype(p.value.type.dtype.numpy), p.trainable) if name in arrays else p
        for name, p in graph.params.items()
    }
    return replace(graph, params=params)


def read_state(path: str | PathLike[str]) -> dict[str, Array]:
    """All arrays of a .safetensors or .npz file, by name."""
    try:
        match Path(path).suffix:
            case ".safetensors":
                with safe_open(path, framework="numpy") as file:
                    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            case ".npz":
                with np.load(path, allow_pickle=False) as archive:
                    return dict(archive)
    except (OSError, SafetensorError, ValueError) as error:
        raise FileError(f"{path}: cannot be read as parameters ({error})") from None
    raise FileError(f"{path}: expected a .safetensors or .npz file")


def read_metadata(path: str | PathLike[str]) -> dict[str, str]:
    """The text entries beside the arrays of a .safetensors file, in the order of their names."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(sorted((file.metadata() or {}).items()))  # the reader gives them in random order
    except (OSError, SafetensorError) as error:
        raise FileError(f"{path}: cannot be read as safetensors ({error})") from None
