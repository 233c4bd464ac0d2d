"""Let the backward half of a training step compute cheap activations again, so that they need not be kept."""

from dataclasses import replace

from graphc.grad import PREFIX
from graphc.ir import NEXT, Graph, Node, Value
from graphc.ops import BatchNorm, Elementwise, Expand, Extent, Iota, Reshape

# One walk over memory each, as reading the kept result would be; what they read is kept for other reasons.
INDICES = (Iota, Expand, Extent)
CHEAP = (Elementwise, BatchNorm, Reshape, *INDICES)


def recompute_activations(graph: Graph) -> Graph:
    """Compute a cheap value a second time for its readers in the backward half, from values that are kept anyway.

    The forward half is what the outputs other than `grad.NAME` and `NAME.next` depend on. In relu(batch_norm(x)), the
    gradient of batch norm needs x, and the next convolution's needs the result: of the two, x is kept.

    rewrite: y = f(x); z = g(y); ...; d = h(x, y) -> y = f(x); z = g(y); ...; y' = f(x); d = h(x, y')
    checks: f is elementwise, or batch norm of given statistics, or an index; h is in the backward half; x is read
            there, too, is an input or a parameter, or can itself be computed again and has no other forward reader
    """
    forward = _find_forward(graph)
    late = {v for node in graph.nodes if node not in forward for v in node.inputs}
    kept = {*graph.inputs, *graph.constants}
    again: dict[Value, Node] = {}

    def is_there(v: Value) -> bool:
        """Whether a copy of v's reader may read it: else chains would grow, such as along the adds of a ResNet."""
        if v in kept:
            return True
        own = v in again and sum(reader in forward for reader in graph.consumers[v]) == 1
        return own or (v in again and isinstance(again[v].op, INDICES))

    for node in graph.nodes:
        if node in forward:
            if isinstance(node.op, CHEAP) and all(map(is_there, node.inputs)):
                again[node.outputs[0]] = node
            else:
                kept.update(late.intersection(node.outputs))
    return _insert(graph, forward, again)


def _find_forward(graph: Graph) -> set[Node]:
    """The nodes that the network's own outputs depend on."""
    own = (
        v
        for n, v in zip(graph.output_names, graph.outputs, strict=True)
        if not (n.endswith(NEXT) or n.startswith(PREFIX))
    )
    needed = set(own)
    forward = set()
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            forward.add(node)
            needed.update(node.inputs)
    return forward


def _insert(graph: Graph, forward: set[Node], again: dict[Value, Node]) -> Graph:
    """The graph with copies of the nodes `again` in front of the first backward node that reads them."""
    copies: dict[Value, Value] = {}
    nodes: list[Node] = []

    def copy(v: Value) -> Value:
        if v in again and v not in copies:
            inputs = tuple(copy(u) for u in again[v].inputs)
            copies[v] = Value(f"{v.name}.again", v.type)
            nodes.append(Node(f"{again[v].name}.again", again[v].op, inputs, (copies[v],)))
        return copies.get(v, v)

    for node in graph.nodes:
        inputs = node.inputs if node in forward else tuple(copy(v) for v in node.inputs)
        nodes.append(replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(nodes))
