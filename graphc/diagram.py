"""A graph as boxes and edges, for `graphc.drawing`: one box for each input, node and output, coloured by kind of op."""

from typing import Any

from graphc import ops
from graphc.drawing import Box, Edge
from graphc.ir import Graph, Node, Op, Value

# Kind of box -> the ops that have it. Any other elementwise op is a "join" if it combines values, else an "activation".
FAMILIES: tuple[tuple[str, tuple[type[Op], ...]], ...] = (
    ("conv", (ops.Conv2d, ops.ConvTranspose2d, ops.LocallyConnected2d)),
    ("linear", (ops.Linear, ops.MatMul)),
    ("norm", (ops.BatchNorm, ops.LocalResponseNorm)),
    ("activation", (ops.Softmax, ops.LogSoftmax)),
    ("pool", (ops.MaxPool, ops.MinPool, ops.MaxPoolWithIndices, ops.AveragePool, ops.L2Pool, ops.ChannelL2Pool,
              ops.GlobalAveragePool, ops.GlobalMaxPool, ops.Sum, ops.Mean, ops.Prod, ops.ReduceMax, ops.ReduceMin,
              ops.ArgMax, ops.ArgMin)),
    ("join", (ops.Concat,)),
    ("shape", (ops.Identity, ops.Dropout, ops.Flatten, ops.Reshape, ops.Transpose, ops.Split, ops.Slice, ops.Pad,
               ops.Expand, ops.MaxUnpool, ops.UpsampleNearest, ops.UpsampleBilinear, ops.BedOfNails)),
)  # fmt: skip


def make_diagram(graph: Graph) -> tuple[list[Box], list[Edge]]:
    """The boxes and edges of `graph`. Parameters are no boxes: a layer's box has the shape of its weights."""
    boxes, edges = [], []
    source: dict[Value, str] = {}
    for v in graph.inputs:
        source[v] = f"input '{v.name}'"
        boxes.append(Box(source[v], v.name, (str(v.type),), "input"))
    for node in graph.nodes:
        boxes.append(Box(str(node), node.op.name, _describe(graph, node), _kind(graph, node)))
        edges += [(source[v], str(node), _label(graph, v)) for v in node.inputs if v in source]
        source |= dict.fromkeys(node.outputs, str(node))
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        boxes.append(Box(f"output '{name}'", name, (str(v.type),), "output"))
        edges += [(source[v], f"output '{name}'", _label(graph, v))] if v in source else []
    return boxes, edges


def _label(graph: Graph, v: Value) -> str:
    """The value's name, where its node has several."""
    return v.name if v in graph.producers and len(graph.producers[v].outputs) > 1 else ""


def _kind(graph: Graph, node: Node) -> str:
    for kind, classes in FAMILIES:
        if isinstance(node.op, classes):
            return kind
    if isinstance(node.op, ops.Elementwise):
        return "join" if sum(v not in graph.constants for v in node.inputs) > 1 else "activation"
    return "other"


def _describe(graph: Graph, node: Node) -> tuple[str, ...]:
    """The lines of a node's box: its name, unless that was made up; attributes; weights; the results' types."""
    lines = [] if node.name.rpartition("_")[0] == node.op.name else [node.name]
    attributes = {k: v for k, v in node.op.attributes().items() if k != "bias"}
    lines += [", ".join(f"{k} {_format(v)}" for k, v in attributes.items())]
    weights = [graph.constants[v].value.type for v in node.inputs if v in graph.constants]
    lines += ["weights " + " + ".join("x".join(map(str, t.shape)) for t in weights if t.rank)] if weights else []
    return (*filter(None, lines), *(str(v.type) for v in node.outputs))


def _format(value: Any) -> str:
    """2 for what is the same on both axes or on all four sides, 2x3 for other tuples."""
    if not isinstance(value, tuple):
        return str(value)
    return str(value[0]) if len(value) in (2, 4) and len(set(value)) == 1 else "x".join(map(str, value))
