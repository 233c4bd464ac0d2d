"""Reverse mode: from a graph to the graph of its gradients. Knows no op: each has its own rule, `Op.vjp`."""

from collections.abc import Sequence

import numpy as np

from graphc.errors import GraphError, NoGradientError
from graphc.ir import Builder, Graph, Node, Value
from graphc.ops.derive import add, full

PREFIX = "grad."


def gradient(graph: Graph, of: str | None = None, wrt: Sequence[str] | None = None) -> Graph:
    """`graph` with further outputs: `grad.NAME` for each name in `wrt`, the derivative of output `of` by that value.

    `of` is an output with one float element, the first one if None. `wrt` names inputs, parameters or any values of
    float dtype; None stands for every trainable parameter. Each gradient has its value's shape, zeros where `of` does
    not depend on it. The result is a graph like any other: it can be compiled, exported and differentiated again.

    Where a value is read several times, its gradients add up, the last reader's first. GraphError if a name does not
    exist or is not float, NoGradientError with the node and its path to `of` if an op on the way has no gradient.
    """
    b, new = graph.reopen()
    loss = _find_output(graph, of)
    known = {v.name: v for v in graph.values()}
    names = [p.value.name for p in graph.params.values() if p.trainable] if wrt is None else list(wrt)
    for name in names:
        if name not in known or not known[name].type.dtype.is_float:
            found = known[name].type if name in known else "nothing of that name"
            raise GraphError(f"network '{graph.name}': gradient by '{name}': expected a float value, got {found}")
        if f"{PREFIX}{name}" in graph.output_names:
            raise GraphError(f"network '{graph.name}': gradient by '{name}': it has an output '{PREFIX}{name}' already")
    targets = [known[name] for name in names]
    gradients = _walk_back(graph, b, new, loss, set(targets))
    results = [gradients.get(v) or full(b, 0.0, v.type) for v in targets]
    outputs = {name: new[v] for name, v in zip(graph.output_names, graph.outputs, strict=True)}
    return b.build(**outputs, **{f"{PREFIX}{name}": g for name, g in zip(names, results, strict=True)}).prune()


def _find_output(graph: Graph, of: str | None) -> Value:
    name = graph.output_names[0] if of is None else of
    if name not in graph.output_names:
        raise GraphError(
            f"network '{graph.name}': gradient of '{name}': expected one of {', '.join(graph.output_names)}"
        )
    value = graph.outputs[graph.output_names.index(name)]
    if value.type.elements != 1 or not value.type.dtype.is_float:
        raise GraphError(f"network '{graph.name}': gradient of '{name}': expected one float element, got {value.type}")
    return value


def _walk_back(
    graph: Graph, b: Builder, new: dict[Value, Value], loss: Value, targets: set[Value]
) -> dict[Value, Value]:
    """The gradient of each value that depends on one of `targets` and that `loss` depends on, as values of `b`."""
    dependent = set(targets)
    for node in graph.nodes:
        if not dependent.isdisjoint(node.inputs):
            # integers have no slope; f16 and bf16 are refused below
            dependent.update(v for v in node.outputs if v.type.dtype.is_float or v.type.dtype.is_half)
    gradients = {loss: b.constant(np.ones(loss.type.static_shape(), loss.type.dtype.numpy))}
    readers: dict[Value, Node] = {}  # one through which the value's gradient came
    for node in reversed(graph.nodes):
        if dependent.isdisjoint(node.inputs) or gradients.keys().isdisjoint(node.outputs):
            continue
        if rounded := next((v for v in node.inputs if v in dependent and v.type.dtype.is_half), None):
            raise NoGradientError(f"{node}: the gradient of '{rounded.name}': expected f32 or f64, got {rounded.type}")
        outputs = [new[v] for v in node.outputs]
        of_outputs = [gradients.get(v) or full(b, 0.0, v.type) for v in node.outputs]
        try:
            found = node.op.vjp(b, tuple(new[v] for v in node.inputs), outputs, of_outputs)
        except NoGradientError as error:
            path = " -> ".join(_find_path(node, gradients, readers))
            raise NoGradientError(f"{node}: {error}; the gradient comes by {path}") from None
        for v, g in zip(node.inputs, found, strict=True):
            if g is not None and v in dependent:
                gradients[v] = add(b, gradients[v], g) if v in gradients else g
                readers[v] = node
    return gradients


def _find_path(node: Node, gradients: dict[Value, Value], readers: dict[Value, Node]) -> list[str]:
    """The nodes from this one to the loss."""
    path = [str(node)]
    while reader := next((readers[v] for v in node.outputs if v in gradients and v in readers), None):
        path.append(str(reader))
        node = reader
    return path
