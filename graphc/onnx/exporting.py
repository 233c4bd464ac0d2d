"""From a Graph to an ONNX model: every value, parameter and node under its own name, H and W as dim_params."""

import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from onnx import ModelProto, ValueInfoProto, checker, defs, helper, shape_inference

from graphc.errors import FileError, GraphcError, GraphError, UnsupportedError
from graphc.files import temporary_folder
from graphc.geometry import describe_geometry
from graphc.ir import Array, Graph, Value
from graphc.onnx.export_ops import EXPORTERS
from graphc.onnx.half import to_half
from graphc.onnx.names import Names
from graphc.onnx.tensors import ELEMENT_TYPES, PRODUCER, RENAMED, declare_tensor, store_inside, store_outside
from graphc.onnx.writer import ModelWriter, NodeWriter

OLDEST_OPSET = 13  # the first in which axes, splits and softmax have the form that is written
MESSAGE_BYTES = 2**31 - 2**24  # a protobuf message ends at 2 GiB; 16 MiB stay for the nodes


def to_model(graph: Graph, opset: int = 18, fp16: bool = False) -> ModelProto:
    """The graph as an ONNX model, checked by ONNX's own checker and shape inference.

    Its metadata are the graph's (mean, std, labels, ...) and the geometry of its outputs. With `fp16` it keeps weights
    and computes in half precision, from float32 inputs to float32 outputs (`graphc.onnx.half`). UnsupportedError
    lists every node that ONNX cannot express, or every weight that half precision cannot.
    """
    model, arrays = _build_model(graph, opset, fp16)
    if _count_bytes(arrays) > MESSAGE_BYTES:
        raise UnsupportedError(
            f"network '{graph.name}': more than 2 GiB of parameters; use export_onnx, which puts "
            "them into a file of their own"
        )
    store_inside(model.graph.initializer, arrays)
    _check(model, graph)
    return model


def export_onnx(
    graph: Graph,
    path: str | os.PathLike[str],
    opset: int = 18,
    external_data: bool = False,
    fp16: bool = False,
) -> tuple[Path, ...]:
    """Write the graph as an ONNX file, all or nothing, as `to_model` makes it; the files that were written.

    With `external_data`, or with more than 2 GiB of parameters, these go to the file `path`.data beside it.
    """
    model, arrays = _build_model(graph, opset, fp16)
    file = Path(path)
    data = file.with_name(f"{file.name}.data")
    external = bool(arrays) and (external_data or _count_bytes(arrays) > MESSAGE_BYTES)
    files = (file, data) if external else (file,)
    try:
        with temporary_folder(file.parent, file.name) as written:
            if external:
                with (written / data.name).open("wb") as stream:
                    store_outside(model.graph.initializer, arrays, stream, data.name)
            else:
                store_inside(model.graph.initializer, arrays)
            (written / file.name).write_bytes(model.SerializeToString())
            _check(written / file.name, graph)
            for path in reversed(files):  # the data before the file that refers to them
                os.replace(written / path.name, path)
    except OSError as error:
        raise FileError(f"{file}: {error.strerror or error}") from None
    return files


def _count_bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _check(model: ModelProto | Path, graph: Graph) -> None:
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        message = " ".join(str(error).split())
        raise GraphError(f"network '{graph.name}': ONNX's checker refuses the exported model: {message}") from None


def _build_model(graph: Graph, opset: int, fp16: bool) -> tuple[ModelProto, dict[str, Array]]:
    """The model, whose parameters lack their data, and that data by name."""
    newest = defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise UnsupportedError(f"opset: expected {OLDEST_OPSET} to {newest}, got {opset}")
    names, copies = _name_values(graph)
    writer = ModelWriter(graph, names, opset)
    problems = []
    for node in graph.nodes:
        try:
            if type(node.op) not in EXPORTERS:
                raise UnsupportedError("ONNX has no such op")
            EXPORTERS[type(node.op)](NodeWriter(writer, node), node.op)
        except GraphcError as error:
            problems.append(f"{node}: {error}")
    if problems:
        raise UnsupportedError(f"network '{graph.name}'", problems)
    for output, v in copies.items():
        writer.node("Identity", [names[v]], [output], writer.new_names.fresh(f"{output}.identity"), {})
    arrays = {names[p.value]: p.array for p in graph.params.values()}
    params = [declare_tensor(names[p.value], p.array, p.trainable) for p in graph.params.values()]
    proto = helper.make_graph(
        writer.nodes,
        graph.name,
        [_declare(v, names[v]) for v in graph.inputs],
        [_declare(v, name, name in copies) for name, v in zip(graph.output_names, graph.outputs, strict=True)],
        [*params, *writer.initializers],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        proto,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),  # the oldest, which the most runtimes read
        producer_name=PRODUCER,
        producer_version=_version(),
        doc_string="Dims named N, H and W are sizes of a run: batch, height, width.",
    )
    helper.set_model_props(model, dict(describe_geometry(graph).meta))
    if fp16:
        to_half(model, arrays)
    return model, arrays


def _name_values(graph: Graph) -> tuple[dict[Value, str], dict[str, Value]]:
    """The ONNX name of each value, and the outputs that need a copy of one.

    ONNX outputs are values: a value that the graph returns under another name takes that name, where it can.
    """
    inputs = {v.name for v in graph.inputs}
    outputs = set(graph.output_names)
    names: dict[Value, str] = {}
    copies: dict[str, Value] = {}
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        if name in inputs and name != v.name:
            raise UnsupportedError(f"network '{graph.name}': output '{name}' has the name of an input")
        if name == v.name or (v in graph.producers and v not in names and v.name not in outputs):
            names[v] = name
        else:
            copies[name] = v
    others = [v for v in graph.values() if v not in names]
    taken = Names((*outputs, *(v.name for v in others if v.name not in outputs)))
    for v in others:
        names[v] = taken.fresh(v.name) if v.name in outputs else v.name
    return names, copies


def _declare(v: Value, name: str, copied: bool = False) -> ValueInfoProto:
    """The value's name and type, and if it is renamed, not copied, what it was called in the graph."""
    shape = [d if isinstance(d, int) else str(d) for d in v.type.shape]
    note = "" if copied or name == v.name else f"{RENAMED}{v.name}"
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[v.type.dtype], shape, note)


def _version() -> str:
    try:
        return metadata.version(PRODUCER)
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return ""
