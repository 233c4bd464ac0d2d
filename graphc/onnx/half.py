"""Half precision: a float32 ONNX model as one that keeps its weights and computes in float16, for GPU runtimes.

Inputs and outputs stay float32, with a Cast at each border, so whoever runs the file changes nothing. What an op's
schema takes as float32 only (the scales of Resize) stays that, too; whether it does is read from ONNX's own table of
types, and no op is named here. A float16 has 11 bits and ends at 65504: a weight beyond that would become infinite,
and is an error. Activations are up to the data; a runtime makes them infinite beyond it.
"""

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from graphc.errors import UnsupportedError
from graphc.ir import Array
from graphc.onnx.names import Names

FULL, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
SUFFIX = {FULL: "single", HALF: "half"}
OVERFLOW = 65520.0  # from here on float16 rounds to infinity; its largest number is 65504


def to_half(model: ModelProto, arrays: dict[str, Array]) -> None:
    """Rewrite `model` in place, and `arrays`, the data of its weights by name, which its tensors do not have yet.

    UnsupportedError lists the weights that float16 cannot hold.
    """
    graph, opset = model.graph, model.opset_import[0].version
    floats, outputs = _find_floats(model), {v.name for v in graph.output}
    given = (*graph.input, *graph.initializer, *graph.node)
    casts = _Casts(Names((*(x.name for x in given), *(o for n in graph.node for o in n.output))))
    casts.places = {(x.name, FULL): x.name for x in (*graph.input, *graph.initializer) if x.name in floats}
    problems = []
    for tensor in _find_weights(model, floats):
        problems += _narrow(tensor, arrays)
        casts.places[tensor.name, HALF] = casts.places.pop((tensor.name, FULL))
    for node in list(graph.node):
        for i, name in enumerate(node.input):
            if name in floats:
                node.input[i] = casts.get(name, HALF if _allows_half(node, i, opset) else FULL)
        problems += _narrow_attributes(node)
        casts.nodes.append(node)
        for i, name in enumerate(node.output):
            if name in floats:
                precision = HALF if _allows_half(node, i, opset, output=True) else FULL
                if precision == HALF and name in outputs:
                    node.output[i] = casts.names.fresh(f"{name}.half")
                casts.places[name, precision] = node.output[i]
    for v in graph.output:
        if v.name in floats:
            casts.get(v.name, FULL, v.name)
    if problems:
        raise UnsupportedError(f"network '{graph.name}': half precision ends at 65504", problems)
    del graph.node[:]
    graph.node.extend(casts.nodes)


class _Casts:
    """Where the float values of a model are found, in either precision, and the nodes that bring them there."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.nodes: list[NodeProto] = []
        self.places: dict[tuple[str, int], str] = {}  # value, precision -> the ONNX value that holds it

    def get(self, value: str, precision: int, name: str | None = None) -> str:
        """The ONNX value that holds `value` in this precision: made by a Cast, and called `name`, if there is none."""
        if (value, precision) not in self.places:
            source = self.places[value, HALF if precision == FULL else FULL]
            result = name or self.names.fresh(f"{value}.{SUFFIX[precision]}")
            self.nodes.append(
                helper.make_node("Cast", [source], [result], self.names.fresh(f"{result}.cast"), to=precision)
            )
            self.places[value, precision] = result
        return self.places[value, precision]


def _find_floats(model: ModelProto) -> set[str]:
    """The names of all float32 values, by ONNX's own inference over the model without the data of its weights."""
    graph = model.graph
    weights = [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in graph.initializer]
    bare = helper.make_graph(graph.node, graph.name, [*graph.input, *weights], graph.output)
    inferred = infer_shapes(helper.make_model(bare, opset_imports=model.opset_import)).graph
    values: list[ValueInfoProto] = [*inferred.input, *inferred.value_info, *inferred.output]
    return {v.name for v in values if v.type.tensor_type.elem_type == FULL}


def _find_weights(model: ModelProto, floats: set[str]) -> list[TensorProto]:
    """The float32 weights that every node that reads them takes as float16, and that are no outputs of the model."""
    graph, opset = model.graph, model.opset_import[0].version
    single = {v.name for v in graph.output}
    for node in graph.node:
        single |= {name for i, name in enumerate(node.input) if not _allows_half(node, i, opset)}
    return [tensor for tensor in graph.initializer if tensor.name in floats - single]


def _allows_half(node: NodeProto, i: int, opset: int, output: bool = False) -> bool:
    """Whether operand i of the node (or result i) may be float16.

    Not where scattered updates are combined: ONNX has it, ONNX Runtime 1.31 has no float16 code for it.
    """
    if node.op_type.startswith("Scatter") and any(a.name == "reduction" and a.s != b"none" for a in node.attribute):
        return False
    schema = defs.get_schema(node.op_type, opset)
    formal = schema.outputs if output else schema.inputs
    return "tensor(float16)" in formal[min(i, len(formal) - 1)].types  # the last one may stand for any number


def _narrow(tensor: TensorProto, arrays: dict[str, Array]) -> list[str]:
    """Make a float32 tensor float16; what is wrong with that, if anything is."""
    array = arrays[tensor.name] if tensor.name in arrays else numpy_helper.to_array(tensor)
    largest = float(np.max(np.abs(array), where=np.isfinite(array), initial=0))
    with np.errstate(over="ignore"):  # told below
        halves = array.astype(np.float16)
    if tensor.name in arrays:
        tensor.data_type, arrays[tensor.name] = HALF, halves
    else:
        doc = tensor.doc_string
        tensor.CopyFrom(numpy_helper.from_array(halves, tensor.name))
        tensor.doc_string = doc
    return [f"'{tensor.name}' reaches {largest:g}"] if largest >= OVERFLOW else []


def _narrow_attributes(node: NodeProto) -> list[str]:
    """What a node's attributes say of its result's type becomes float16 where they say float32."""
    problems = []
    for a in node.attribute:
        if a.name in ("to", "dtype") and a.i == FULL:
            a.i = HALF
        if a.type == AttributeProto.TENSOR and a.t.data_type == FULL:
            problems += _narrow(a.t, {})
    return problems
