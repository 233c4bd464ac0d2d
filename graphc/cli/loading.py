"""From what the user typed as MODEL to a graph."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import click

from graphc.errors import GraphcError, InputError
from graphc.ir import Graph
from graphc.ir.sizes import bind_sizes
from graphc.models import NETWORKS
from graphc.passes import dense as refine
from graphc.passes import fully_convolutional, padded_layers
from graphc.passes import upsample as enlarge
from graphc.state import read_metadata
from graphc.summary import default_sizes


def load_model(
    model: str,
    params: Path | None = None,
    classes: int | None = None,
    dense: bool = False,
    gap: str | None = None,
    window: tuple[int, int] | None = None,
    output_stride: int | None = None,
    upsample: bool = False,
) -> Graph:
    """The graph that MODEL and the options beside it stand for. With `dense`, a note on stderr tells where it pads."""
    for option, given in (("gap", gap), ("window", window), ("output-stride", output_stride)):
        if given and not dense:
            raise InputError(f"--{option}: expected together with --dense only")
    graph = find_model(model, num_classes=classes)
    if params:
        graph = graph.load_state(params)
        if params.suffix == ".safetensors":  # `graphc train` notes how images were read, and what the classes are
            known = {k: v for k, v in read_metadata(params).items() if k in ("labels", "mean", "std")}
            graph = replace(graph, meta={**graph.meta, **known})
    if dense:
        graph = fully_convolutional(graph, gap or "window", window)
        if output_stride:
            graph = refine(graph, output_stride)
        if "window" in graph.meta and (padded := padded_layers(graph)):
            layers = f"layer '{padded[0]}' pads" if len(padded) == 1 else f"{len(padded)} layers pad"
            note = "so scores are not those of a window alone; graphc summary --dense tells where they differ"
            click.echo(f"graphc: note: {layers}, {note}", err=True)
    return enlarge(graph) if upsample else graph


def find_model(model: str, **given: Any) -> Graph:
    """The graph of an ONNX file, a built-in network or a function; InputError or FileError if it is none of them.

    Of the arguments `given`, a function gets those that it takes; one that does not take `num_classes` wants None.
    """
    if model in NETWORKS:
        graph: Graph = _call(NETWORKS[model], model, given)
        return graph
    if model.endswith(".onnx"):
        _refuse_classes(model, given)
        from graphc.onnx import load

        return load(model)
    if re.fullmatch(r"[\w.]+:[\w.]+", model):
        module, name = model.split(":")
        return _call_function(module, name, given)
    if model.endswith(".so"):
        raise InputError(f"model '{model}': a compiled library can only be run; expected what it was compiled from")
    if Path(model).exists():
        raise InputError(f"model '{model}': expected an .onnx file, a network or module:function")
    close = get_close_matches(model, NETWORKS)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise InputError(f"model '{model}': {hint}expected an .onnx file, module:function or one of {', '.join(NETWORKS)}")


def _call(function: Callable[..., Any], model: str, given: Mapping[str, Any]) -> Any:
    """What the function returns for those of the arguments that it takes and that are not None."""
    taken = signature(function).parameters
    if "num_classes" not in taken:
        _refuse_classes(model, given)
    return function(**{name: value for name, value in given.items() if name in taken and value is not None})


def _refuse_classes(model: str, given: Mapping[str, Any]) -> None:
    if given.get("num_classes") is not None:
        raise InputError(f"--classes: expected a network whose function takes num_classes, got '{model}'")


def _call_function(module_name: str, name: str, given: Mapping[str, Any]) -> Graph:
    """What the user's function returns. Its own errors are told in one line, with where they came from."""
    label = f"model '{module_name}:{name}'"
    sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        function = importlib.import_module(module_name)
        for part in name.split("."):
            function = getattr(function, part)
        graph = _call(function, f"{module_name}:{name}", given) if callable(function) else function
    except GraphcError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(f"{label}: no module '{error.name}'") from error
    except AttributeError as error:
        raise InputError(f"{label}: {error}") from error
    except Exception as error:
        raise InputError(f"{label}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    finally:
        sys.path.remove("")
    if not isinstance(graph, Graph):
        raise InputError(f"{label}: expected a function that returns a graphc.Graph, got {type(graph).__name__}")
    return graph


def find_sizes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The sizes that make the first inputs have these shapes, and defaults for the rest. Errors: InputError."""
    if len(shapes) > len(graph.inputs):
        raise InputError(f"--shape: network '{graph.name}' has {len(graph.inputs)} inputs, got {len(shapes)} shapes")
    named = [(v.name, v.type) for v in graph.inputs[: len(shapes)]]
    return default_sizes(graph) | bind_sizes(named, shapes)
