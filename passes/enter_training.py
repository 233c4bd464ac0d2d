"""Give batch norm and dropout the form that they have while a network is trained."""

from graphc import ops
from graphc.ir import NEXT, Builder, DType, Graph, Node, TensorType, Value, dims
from graphc.ops.derive import cast, fused
from graphc.ops.random_bits import make_key, random_bits

STEP = "step"


def enter_training(graph: Graph, seed: int = 0, momentum: float = 0.1) -> Graph:
    """The network with batch statistics and active dropout, and with further outputs and at most one input more.

    A batch norm normalises by mean and variance of its batch, through which gradients flow as through any values. Its
    running statistics r move towards them: the output `r.next` is (1 - momentum)*r + momentum*batch, where the variance
    of a batch of n numbers counts n/(n-1) times (PyTorch's rule). A dropout sets elements to 0 with probability p and
    scales the others by 1/(1-p); which ones depends on `seed`, the node's name and the input `step` i64[], which is
    added if there is a dropout, and on nothing else.

    rewrite: y = batch_norm(x, s, b, mean, var) -> m, v = moments(x); y = batch_norm(x, s, b, m, v)
             y = dropout(x) -> y = fused(x, random_bits(step))
    checks: mean and var are parameters that are not trainable; p > 0
    """
    results: dict[str, Value] = {}
    steps: list[Value] = []

    def rule(b: Builder, node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...] | None:
        if isinstance(node.op, ops.BatchNorm) and _has_running_statistics(graph, node):
            mean, variance, count = _batch_statistics(b, inputs[0])
            for running, found in (
                (inputs[3], mean),
                (inputs[4], fused(b, "(x0 * (x1 / (x1 - 1.0)))", variance, count)),
            ):
                results[f"{running.name}{NEXT}"] = fused(b, f"(x0 + ((x1 - x0) * {momentum}))", running, found)
            return b.add(node.op, (*inputs[:3], mean, variance), node.name, [v.name for v in node.outputs])
        if isinstance(node.op, ops.Dropout) and node.op.p > 0:
            if not steps:
                steps.append(b.input(STEP, TensorType(DType.I64, ())))
            bits = random_bits(b, inputs[0].type, make_key(seed, node.name), steps[0])
            dropped = f"select(lt(x1, {round(node.op.p * 2**32)}), 0.0, (x0 * {1 / (1 - node.op.p)}))"
            return b.add(ops.Fused(dropped), (inputs[0], bits), node.name, [v.name for v in node.outputs])
        return None

    b, new = graph.reopen(rule)
    outputs = {name: new[v] for name, v in zip(graph.output_names, graph.outputs, strict=True)}
    return b.build(**outputs, **results)


def _has_running_statistics(graph: Graph, node: Node) -> bool:
    return all(v in graph.constants and not graph.constants[v].trainable for v in node.inputs[3:])


def _batch_statistics(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """Mean and variance of each channel, [C], and of how many numbers they are, []."""
    axes = (0, *range(2, x.type.rank))
    mean, variance = b.add(ops.Moments(), (x,))
    count = cast(b, b.apply(ops.Extent(dims.product([x.type.shape[i] for i in axes]))), x.type.dtype)
    return mean, variance, count
