"""Elementwise ops broadcast: what is only repeated for them need not be."""

from graphc import ops
from graphc.ir import Builder, Graph, Node, Value


def remove_expands(graph: Graph) -> Graph:
    """Let elementwise ops read what is expanded before it is.

    rewrite: e = expand(x); y = add(z, e) -> y = add(z, x)
    checks: the result has the same type, provably; the dims of x are 1 or those of the result
    """

    def rule(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if not isinstance(node.op, ops.Elementwise) or not any(v in before for v in inputs):
            return None
        for i, v in enumerate(inputs):
            fewer = (*inputs[:i], before.get(v, v), *inputs[i + 1 :])
            if fewer != inputs and node.op.infer(*(u.type for u in fewer)) == node.outputs[0].type:
                inputs = fewer
        return b.add(node.op, inputs, node.name, [v.name for v in node.outputs])

    before: dict[Value, Value] = {}

    def visit(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if isinstance(node.op, ops.Expand) and _repeats(inputs[0], node.outputs[0]):
            found = b.add(node.op, inputs, node.name, [v.name for v in node.outputs])
            before[found[0]] = inputs[0]
            return found
        return rule(b, node, inputs)

    return graph.rewrite(visit)


def _repeats(x: Value, y: Value) -> bool:
    shapes = zip(reversed(x.type.shape), reversed(y.type.shape), strict=False)
    return all(d in (1, result) for d, result in shapes)
