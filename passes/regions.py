"""Regions of elementwise nodes with one result, that become one node: what the two fusing passes share.

Regions grow in one backward walk. A node joins the region of its consumers if they all belong to the same one: then
every path from the node leads through the region's root, so that taking the region as one node makes no cycle.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from graphc.ir import Graph, Node, Value
from graphc.ops import Elementwise, scalar
from graphc.ops.scalar import Arg, Expr, Lit

# What networks write is far smaller: a residual add with h-swish has 6 primitives, GELU by tanh 10. A larger expression
# gains nothing: 32 operations on an element take longer than storing it and loading it again, and they no longer find
# free vector registers beside a convolution's accumulators. The limit also bounds expressions that use an operand
# twice: a chain of n such nodes has 2**n leaves.
MAX_PRIMITIVES = 32


class Region:
    """Elementwise nodes whose only result is that of `root`: `expr` over `operands`, where Arg(i) is operands[i].

    `nodes` starts with the root and goes backwards; `operands` are in their order of appearance.
    """

    def __init__(self, graph: Graph, root: Node) -> None:
        self._graph, self.root, self.nodes = graph, root, [root]
        self.operands: list[Value] = []
        self.expr = self._express(root, self.operands)
        self._sort_operands([])

    def absorb(self, node: Node) -> bool:
        """Compute `node` inside the region from now on; False if the expression would be too large."""
        operands = list(self.operands)
        inner = self._express(node, operands)
        leaves: list[Expr] = [Arg(i, v.type.dtype) for i, v in enumerate(operands)]
        leaves[operands.index(node.outputs[0])] = inner
        expr = scalar.substitute(self.expr, leaves)
        if scalar.size(expr) > MAX_PRIMITIVES:
            return False
        self.nodes.append(node)
        self.operands, self.expr = operands, expr
        self._sort_operands([])
        return True

    def start_with(self, operand: Value) -> None:
        """Make this operand the first one, x0."""
        self._sort_operands([self.operands.index(operand)])

    def _sort_operands(self, first: list[int]) -> None:
        """Drop the operands that are no longer used, and sort the others by where they appear, but `first` first."""
        order = {old: new for new, old in enumerate(dict.fromkeys([*first, *scalar.arguments(self.expr)]))}
        leaves = [Arg(order.get(i, 0), v.type.dtype) for i, v in enumerate(self.operands)]
        self.expr = scalar.substitute(self.expr, leaves)
        self.operands = [self.operands[i] for i in order]

    def _express(self, node: Node, operands: list[Value]) -> Expr:
        """The node's expression over `operands`, which grows by the inputs that it does not have yet."""
        assert isinstance(node.op, Elementwise)
        leaves: list[Expr] = []
        for v in node.inputs:
            if is_literal(self._graph, node, v):
                leaves.append(Lit(self._graph.constants[v].array.item()))
                continue
            if v not in operands:
                operands.append(v)
            leaves.append(Arg(operands.index(v), v.type.dtype))
        return scalar.substitute(node.op.expression(tuple(v.type.dtype for v in node.inputs)), leaves)


def is_literal(graph: Graph, node: Node, v: Value) -> bool:
    """Whether input v of an elementwise node is one number, beside another input that has the result's shape."""
    shape = node.outputs[0].type.shape
    return v in graph.constants and v.type.elements == 1 and any(u.type.shape == shape for u in node.inputs if u != v)


def find_regions(graph: Graph, may_join: Callable[[Node], bool]) -> list[Region]:
    """Every elementwise node that `may_join` a region, in regions that are as large as they can be; the last first.

    All results in a region have provably the same shape, and none but the root's is read outside or is an output.
    """
    outputs = set(graph.outputs)
    home: dict[Node, Region] = {}
    regions = []
    for node in reversed(graph.nodes):
        if not isinstance(node.op, Elementwise) or not may_join(node):
            continue
        (value,) = node.outputs
        consumers = graph.consumers.get(value, [])
        region = home.get(consumers[0]) if consumers and value not in outputs else None
        if (
            region is None
            or any(home.get(c) is not region for c in consumers)
            or value.type.shape != region.root.outputs[0].type.shape
            or not region.absorb(node)
        ):
            region = Region(graph, node)
            regions.append(region)
        home[node] = region
    return regions


def merge_nodes(graph: Graph, merged: Iterable[tuple[list[Node], Node]]) -> Graph:
    """The graph with one node in the place of several: (the nodes, the last of them first; what replaces them).

    The new node defines the same value as the last one and stands in its place, so its inputs come before it.
    """
    at_last = {nodes[0]: (nodes, new) for nodes, new in merged}
    gone = {node for nodes, _ in at_last.values() for node in nodes}
    kept = [at_last[n][1] if n in at_last else n for n in graph.nodes if n in at_last or n not in gone]
    return replace(graph, nodes=tuple(kept))
