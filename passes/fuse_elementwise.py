"""Compute a chain of elementwise ops in one walk over memory."""

from graphc.ir import Graph, Node
from graphc.ops import Fused
from graphc.passes.regions import find_regions, merge_nodes


def fuse_elementwise(graph: Graph) -> Graph:
    """Merge elementwise nodes that feed only each other into one `fused` node, named like the last of them.

    An operand may be used several times and may broadcast; constants of one element are written into the expression.

    rewrite: a = f(x); b = g(a, y); c = h(a, b) -> c = fused(x, y, expr="h(f(x0), g(f(x0), x1))")
    checks: all results have the same shape, provably; only the last is read by others or is an output; every dim of
            every operand is 1 or the result's, provably; at most MAX_PRIMITIVES primitives
    """
    merged = []
    for region in find_regions(graph, _broadcasts_provably):
        if len(region.nodes) > 1:
            op = Fused(str(region.expr))
            merged.append((region.nodes, Node(region.root.name, op, tuple(region.operands), region.root.outputs)))
    return merge_nodes(graph, merged)


def _broadcasts_provably(node: Node) -> bool:
    """Whether each operand's dims are 1 or equal to the result's: no equality is left to check at run time.

    With such a check (H against 2*(H//2)) the result's shape would depend on the order of the operands.
    """
    shape = node.outputs[0].type.shape
    return all(
        d in (1, result)
        for v in node.inputs
        for d, result in zip(reversed(v.type.shape), reversed(shape), strict=False)
    )
