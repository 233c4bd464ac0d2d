"""Checks a whole graph: defined before use, and every stored type equal to what its op infers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from graphc.errors import GraphError, ShapeError
from graphc.ir import dims
from graphc.ir.dims import DimLike
from graphc.ir.graph import Graph, Node
from graphc.ir.types import TensorType


def verify(graph: Graph) -> Graph:
    """Return `graph` if it is well formed; GraphError names the node and what is wrong with it."""
    for what, names in (("values", [v.name for v in graph.values()]), ("nodes", [n.name for n in graph.nodes])):
        if len(set(names)) != len(names):
            ((twice, _),) = Counter(names).most_common(1)
            raise GraphError(f"network '{graph.name}': two {what} are named '{twice}'")
    defined = {*graph.inputs, *(p.value for p in graph.params.values())}
    for node in graph.nodes:
        for v in node.inputs:
            if v not in defined:
                raise GraphError(f"{node}: input %{v.name} is not defined before it")
        stored = tuple(v.type for v in node.outputs)
        if _infer(node) != stored:
            raise GraphError(f"{node}: expected the inferred type {_join(_infer(node))}, got {_join(stored)}")
        defined.update(node.outputs)
    for name, v in zip(graph.output_names, graph.outputs, strict=True):
        if v not in defined:
            raise GraphError(f"network '{graph.name}': output '{name}' (%{v.name}) is not defined")
    return graph


@dataclass(frozen=True)
class Requirement:
    """A condition on the sizes that a run must meet: `a == b`, or `a >= 1` where `b` is None."""

    node: str
    message: str
    a: DimLike
    b: DimLike | None = None

    def holds(self, sizes: dict[str, int]) -> bool:
        """Whether these sizes meet the condition."""
        value = dims.evaluate(self.a, sizes)
        return value >= 1 if self.b is None else value == dims.evaluate(self.b, sizes)


def requirements(graph: Graph) -> list[Requirement]:
    """Everything that the sizes must satisfy for the graph to run, each condition once, in the order of the nodes.

    Every dim of every value is at least 1 (a window that does not fit its padded input gives less), and dims that
    two operands share are equal where the types alone do not prove it.
    """
    found: dict[tuple[DimLike, DimLike | None], Requirement] = {}
    for v in graph.inputs:
        for d in v.type.shape:
            if isinstance(d, dims.Dim):
                found.setdefault((d, None), Requirement(v.name, f"input '{v.name}': {d} must be at least 1", d))
    for node in graph.nodes:
        with dims.assumptions() as equalities:
            types = _infer(node)
        for a, b in equalities:
            message = f"{node}: {a} must equal {b}; the image size does not fit this network"
            found.setdefault((a, b), Requirement(str(node), message, a, b))
        for d in (d for t in types for d in t.shape if isinstance(d, dims.Dim)):
            message = f"{node}: its output size {d} must be at least 1; the image is too small for this network"
            found.setdefault((d, None), Requirement(str(node), message, d))
    return list(found.values())


def sort_nodes(nodes: Iterable[Node], graph_name: str) -> tuple[Node, ...]:
    """Nodes read from outside, in topological order (stable); GraphError names the nodes of a cycle."""
    import networkx as nx  # here, for it takes a tenth of a second, and compiling takes no other of its functions

    ordered = list(nodes)
    producer = {v: i for i, n in enumerate(ordered) for v in n.outputs}
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(ordered)))
    graph.add_edges_from((producer[v], i) for i, n in enumerate(ordered) for v in n.inputs if v in producer)
    try:
        return tuple(ordered[i] for i in nx.lexicographical_topological_sort(graph))
    except nx.NetworkXUnfeasible:
        cycle = " -> ".join(str(ordered[a]) for a, _ in nx.find_cycle(graph))
        raise GraphError(f"network '{graph_name}': the graph has a cycle: {cycle}") from None


def _infer(node: Node) -> tuple[TensorType, ...]:
    try:
        types = node.op.infer(*(v.type for v in node.inputs))
    except ShapeError as error:
        raise ShapeError(f"{node}: {error}") from None
    return types if isinstance(types, tuple) else (types,)


def _join(types: tuple[TensorType, ...]) -> str:
    return ", ".join(map(str, types))
