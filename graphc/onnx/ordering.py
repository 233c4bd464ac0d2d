"""The nodes of an ONNX graph in an order in which every value is defined before it is read."""

from collections.abc import Iterable, Iterator, Sequence

from onnx import AttributeProto, GraphProto, NodeProto

from graphc.errors import GraphError


def describe(node: NodeProto) -> str:
    """node 'conv1' (op Conv); a node without a name goes by its first output."""
    name = node.name or next(iter(node.output), "")
    return f"node '{name}' (op {node.op_type})"


def bodies_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among the node's attributes."""
    for a in node.attribute:
        yield from ([a.g] if a.type == AttributeProto.GRAPH else a.graphs)


def read_names(node: NodeProto) -> Iterator[str]:
    """The values from outside that the node reads: its inputs, and what its bodies take from around it."""
    yield from filter(None, node.input)
    for body in bodies_of(node):
        inside = {v.name for v in body.input} | {t.name for t in body.initializer}
        inside |= {o for inner in body.node for o in inner.output}
        read = [name for inner in body.node for name in read_names(inner)] + [o.name for o in body.output]
        yield from (name for name in read if name and name not in inside)


def sort_nodes(nodes: Sequence[NodeProto], given: Iterable[str]) -> list[NodeProto]:
    """The nodes in topological order, stable; `given` are the inputs and initialisers.

    GraphError if a value is defined twice or nowhere, or if there is a cycle, which it names.
    """
    defined = set(given)
    producer: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in producer or name in defined:
                raise GraphError(f"{describe(node)}: its output '{name}' is already defined")
            producer[name] = i
    edges = []
    for i, node in enumerate(nodes):
        for name in read_names(node):
            if name in producer:
                edges.append((producer[name], i))
            elif name not in defined:
                raise GraphError(f"{describe(node)}: its input '{name}' is not defined")
    if all(a < b for a, b in edges):
        return list(nodes)
    import networkx as nx  # here, for it takes a tenth of a second, and most models are in order

    graph: nx.DiGraph[int] = nx.DiGraph(edges)
    graph.add_nodes_from(range(len(nodes)))
    try:
        return [nodes[i] for i in nx.lexicographical_topological_sort(graph)]
    except nx.NetworkXUnfeasible:
        cycle = [a for a, _ in nx.find_cycle(graph)]
        first = cycle.index(min(cycle))
        named = " -> ".join(describe(nodes[a]) for a in cycle[first:] + cycle[:first])
        raise GraphError(f"the graph has a cycle: {named}") from None
