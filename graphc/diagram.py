"""A graph as boxes and edges, for `graphc.drawing`: one box for each input, node and output, coloured by kind of op."""

from collections.abc import Sequence
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
               ops.Expand, ops.MaxUnpool, ops.UpsampleNearest, ops.UpsampleBilinear, ops.BedOfNails, ops.Interpolate,
               ops.Extent, ops.Iota, ops.PickCells, ops.Positions, ops.Gather, ops.GatherElements, ops.GatherND,
               ops.ScatterElements, ops.ScatterND, ops.TopK, ops.CumSum, ops.GridSample, ops.RoiAlign)),
)  # fmt: skip

HOSTS = ("conv", "linear", "norm", "join")  # kinds of box that take in what follows


def make_diagram(graph: Graph, grouped: bool = True) -> tuple[list[Box], list[Edge]]:
    """The boxes and edges of `graph`. Parameters are no boxes: a layer's box has the shape of its weights.

    If `grouped`, a normalisation or an activation shares the box of the layer that alone it follows.
    """
    boxes, edges = [], []
    source: dict[Value, str] = {}
    for v in graph.inputs:
        source[v] = f"input '{v.name}'"
        boxes.append(Box(source[v], v.name, (str(v.type),), "input"))
    for group in _group(graph) if grouped else [[node] for node in graph.nodes]:
        first, *others = group
        title = " + ".join(node.op.name for node in group)
        boxes.append(Box(str(first), title, _describe(graph, first, others), _kind(graph, first)))
        edges += [(source[v], str(first), _label(graph, v)) for v in first.inputs if v in source]
        source |= dict.fromkeys(group[-1].outputs, str(first))
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        boxes.append(Box(f"output '{name}'", name, (str(v.type),), "output"))
        edges += [(source[v], f"output '{name}'", _label(graph, v))] if v in source else []
    return boxes, edges


def _group(graph: Graph) -> list[list[Node]]:
    """The nodes in groups: a layer, and the normalisations and activations in a row after it."""
    group_of: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        before = graph.producers.get(node.inputs[0]) if _follows(graph, node) else None
        group_of[node] = group_of[before] if before and _kind(graph, before) in HOSTS else []
        group_of[node].append(node)
    return [group for node, group in group_of.items() if group[0] is node]


def _follows(graph: Graph, node: Node) -> bool:
    """Whether the node does no more than change what one other gives it, and nobody else reads."""
    x, *others = node.inputs
    alone = graph.consumers[x] == [node] and x not in graph.outputs and all(v in graph.constants for v in others)
    return alone and _kind(graph, node) in ("norm", "activation")


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


def _describe(graph: Graph, node: Node, others: Sequence[Node]) -> tuple[str, ...]:
    """The lines of a box: the first node's name, unless that was made up; attributes; weights; the results' types."""
    lines = [] if node.name.rpartition("_")[0] == node.op.name else [node.name]
    lines.append(_list_attributes(node))
    weights = [graph.constants[v].value.type for v in node.inputs if v in graph.constants]
    lines += ["weights " + " + ".join("x".join(map(str, t.shape)) for t in weights if t.rank)] if weights else []
    lines += [f"{n.op.name}: {told}" for n in others if (told := _list_attributes(n))]
    return (*filter(None, lines), *(str(v.type) for v in (others or [node])[-1].outputs))


def _list_attributes(node: Node) -> str:
    return ", ".join(f"{k} {_format(v)}" for k, v in node.op.attributes().items() if k != "bias")


def _format(value: Any) -> str:
    """2 for what is the same on both axes or on all four sides, 2x3 for other tuples."""
    if not isinstance(value, tuple):
        return str(value)
    return str(value[0]) if len(value) in (2, 4) and len(set(value)) == 1 else "x".join(map(str, value))
