"""Batch norm by statistics of the batch, spelled out, so that what follows it can be computed in the same walk."""

from graphc import ops
from graphc.ir import Builder, Graph, Node, Value
from graphc.ops.derive import fused, reshape


def spell_batch_norm(graph: Graph) -> Graph:
    """Write a batch norm that the graph computes the statistics of as one elementwise op over the image.

    rewrite: y = batch_norm(x, s, b, m, v) -> f = s / sqrt(v + epsilon); y = fused(x, m, f, b, expr="(x0-m)*f + b")
    checks: x is an image [N,C,H,W]; mean or variance are no constants (others are folded into weights)
    """

    def rule(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if not isinstance(node.op, ops.BatchNorm) or all(v in graph.constants for v in node.inputs[3:]):
            return None
        return spell_out(b, node, inputs) if inputs[0].type.rank == 4 else None

    return graph.rewrite(rule)


def spell_out(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
    """A batch norm as one elementwise op over x [N,C,...]; the factor of each channel is computed before."""
    assert isinstance(node.op, ops.BatchNorm)
    x, scale, bias, mean, variance = inputs
    factor = fused(b, f"(x0 / sqrt((x1 + {float(node.op.epsilon)})))", scale, variance)
    columns = (*scale.type.shape, *[1] * (x.type.rank - 2))
    operands = (x, *(reshape(b, v, columns) for v in (mean, factor, bias)))
    expr = "(((x0 - x1) * x2) + x3)"
    return b.add(ops.Fused(expr), operands, node.name, [v.name for v in node.outputs])
