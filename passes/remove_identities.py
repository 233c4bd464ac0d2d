"""Remove ops that change nothing."""

from graphc import ops
from graphc.ir import Builder, Graph, Node, Op, Value

# Ops whose result is their input wherever both have the same type: then nothing is padded, joined, cut off or resized,
# and the dims that are reduced are 1.
KEEPERS = (
    *(ops.Identity, ops.Dropout, ops.Reshape, ops.Flatten, ops.Concat, ops.Split, ops.Pad, ops.Expand),
    *(ops.UpsampleNearest, ops.UpsampleBilinear, ops.BedOfNails),
    *(ops.Sum, ops.Mean, ops.Prod, ops.ReduceMax, ops.ReduceMin, ops.GlobalAveragePool, ops.GlobalMaxPool),
)


def remove_identities(graph: Graph) -> Graph:
    """Let the readers of a node that returns its input read that input.

    rewrite: y = f(x); z = g(y) -> z = g(x)
    checks: x and y have the same type, provably, and f is one of KEEPERS; or f permutes axes into the order that they
            have, slices with steps of 1, or pools windows of 1x1
    """

    def rule(_builder: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if len(node.outputs) != 1 or len(inputs) != 1 or node.outputs[0].type != inputs[0].type:
            return None
        return inputs if _keeps(node.op) else None

    return graph.rewrite(rule)


def _keeps(op: Op) -> bool:
    """Whether the op returns its only input, given that it returns a tensor of the same type."""
    match op:
        case ops.Transpose(perm=perm):
            return list(perm) == sorted(perm)
        case ops.Slice(steps=steps):
            return all(step > 0 for step in steps)
        case ops.MaxPool() | ops.MinPool() | ops.AveragePool():
            return op.kernel == op.stride == (1, 1)
    return isinstance(op, KEEPERS)
