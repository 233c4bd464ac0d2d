"""ONNX models in a few words, for the tests of reading and writing them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from graphc.ir import Array

Shape = Sequence[int | str | None]
IMAGE: Shape = ("batch", 3, "height", "width")


def node(op_type: str, inputs: str, outputs: str = "y", name: str | None = None, **attributes: Any) -> NodeProto:
    """A node; inputs and outputs are separated by blanks, "-" is one that is left out."""
    names = [["" if i == "-" else i for i in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op_type, *names, name=f"node_{outputs.split()[0]}" if name is None else name, **attributes)


def make_model(
    nodes: Sequence[NodeProto],
    inputs: dict[str, Shape] | None = None,
    data: dict[str, Array] | None = None,
    outputs: str = "y",
    opset: int = 18,
) -> onnx.ModelProto:
    """A model whose inputs are float32, by default one image `x`."""
    declared = {"x": IMAGE} if inputs is None else inputs
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in declared.items()],
        [onnx.ValueInfoProto(name=o) for o in outputs.split()],
        [numpy_helper.from_array(a, n) for n, a in (data or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports))


def spoil(model: onnx.ModelProto, **fields: Any) -> onnx.ModelProto:
    """The model with these fields of its first initialiser replaced; None clears one."""
    tensor = model.graph.initializer[0]
    for name, value in fields.items():
        tensor.ClearField(name)
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        elif value is not None:
            setattr(tensor, name, value)
    return model


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


W3 = floats(4, 3, 3, 3, seed=1)  # the weights of a convolution


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def number(value: float) -> Array:
    return np.array(value, np.float32)


def run_onnxruntime(model: onnx.ModelProto, arrays: dict[str, Array]) -> list[Array]:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    for i, output in enumerate(model.graph.output):  # ONNX Runtime wants outputs with a type; any element type will do
        if not output.HasField("type"):
            inferred = onnx.shape_inference.infer_shapes(model)
            model.graph.output[i].CopyFrom(inferred.graph.output[i])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, arrays))
