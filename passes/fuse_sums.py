"""Compute what is only added up while it is added up."""

from dataclasses import replace

from graphc.ir import Graph, Node
from graphc.ops import Elementwise, Sum
from graphc.passes.regions import merge_nodes


def fuse_sums(graph: Graph) -> Graph:
    """Merge an elementwise node that only a sum reads into the sum.

    rewrite: t = mul(x, y); s = sum(t) -> s = sum(x, y, expr="(x0 * x1)")
    checks: nothing else reads t, and it is not an output; images [N,C,H,W] are added up for each channel; the operands
            are images or numbers for each channel
    """
    merged = []
    for node in graph.nodes:
        if not isinstance(node.op, Sum) or node.op.expr is not None:
            continue
        (x,) = node.inputs
        terms = graph.producers.get(x)
        if terms is None or not isinstance(terms.op, Elementwise) or len(graph.consumers[x]) > 1 or x in graph.outputs:
            continue
        if x.type.rank != 4 or node.op.reduced(x.type) != {0, 2, 3} or not x.type.dtype.is_float:
            continue
        columns = (x.type.shape[1], 1, 1)
        if any(v.type.shape not in (x.type.shape, columns, (1, *columns), ()) for v in terms.inputs):
            continue
        expr = str(terms.op.expression(tuple(v.type.dtype for v in terms.inputs)))
        op = replace(node.op, expr=expr)
        merged.append(([node, terms], Node(node.name, op, terms.inputs, node.outputs)))
    return merge_nodes(graph, merged)
