"""Are the gradients right? Compares them with central differences, in float64 by the NumPy reference."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphc.errors import GradientError, GraphError
from graphc.grad import PREFIX, gradient
from graphc.ir import Array, DType, Graph, Value, dims
from graphc.ir.sizes import bind_sizes
from graphc.ops.derive import add, fused, sum_to
from graphc.reference import check_sizes, evaluate

MOST_ELEMENTS = 24  # of each tensor that are moved one by one; then all move at once, in a random direction


def gradcheck(
    graph: Graph,
    inputs: Sequence[Array],
    wrt: Sequence[str] | None = None,
    seed: int = 0,
    epsilon: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
) -> None:
    """GradientError with the first element whose gradient is off the central difference d by over atol + rtol*|d|.

    The function is a random weighted sum of the float outputs, at these inputs; `wrt` names inputs and parameters, None
    stands for every float input and trainable parameter. The tolerances are those of PyTorch's gradcheck. Inputs should
    keep a distance of more than `epsilon` from kinks (0 of a relu) and ties (of a maximum).
    """
    open_graph = replace(graph, inputs=(*graph.inputs, *(p.value for p in graph.params.values())), params={})
    arrays = [*inputs, *(p.array for p in graph.params.values())]
    if wrt is None:
        wrt = [v.name for v in open_graph.inputs if v.type.dtype.is_float and _is_variable(graph, v)]
    sizes = bind_sizes([(v.name, v.type) for v in open_graph.inputs], [a.shape for a in arrays])
    check_sizes(graph, sizes)
    rng = np.random.default_rng(seed)
    env = {v.name: a.astype(np.float64) if v.type.dtype.is_float else a
           for v, a in zip(open_graph.inputs, arrays, strict=True)}  # fmt: skip
    function, weights = _weighted_sum(open_graph)
    for v in weights:
        env[v.name] = rng.standard_normal(tuple(dims.evaluate(d, sizes) for d in v.type.shape))

    def run(graph: Graph) -> list[Array]:
        values = {v: env[v.name] for v in graph.inputs} | {p.value: p.array for p in graph.params.values()}
        return evaluate(graph, values, sizes, DType.F64)

    found = run(keep_gradients(gradient(function, "sum", wrt), wrt))
    for name, slopes in zip(wrt, found, strict=True):
        point = env[name]
        if slopes.shape != point.shape:
            raise GradientError(f"gradient by '{name}': expected shape {list(point.shape)}, got {list(slopes.shape)}")
        for where, direction in _directions(point, rng):
            ends = []
            for sign in (1, -1):
                env[name] = point + sign * epsilon * direction
                ends.append(float(run(function)[0]))
            env[name] = point
            difference, slope = (ends[0] - ends[1]) / (2 * epsilon), float(np.sum(slopes * direction))
            if not abs(slope - difference) <= atol + rtol * abs(difference):
                raise GradientError(
                    f"gradient by '{name}' {where}: central difference {difference:.6g}, got {slope:.6g}"
                )


def keep_gradients(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The graph with the gradients alone."""
    kept = dict(zip(graph.output_names, graph.outputs, strict=True))
    names = tuple(f"{PREFIX}{name}" for name in wrt)
    return replace(graph, outputs=tuple(kept[name] for name in names), output_names=names).prune()


def _is_variable(graph: Graph, v: Value) -> bool:
    return v not in graph.constants or graph.constants[v].trainable


def _weighted_sum(graph: Graph) -> tuple[Graph, list[Value]]:
    """The graph of one number: the sum of all elements of the float outputs, each times its weight, a new input."""
    b, new = graph.reopen(name=f"{graph.name}.check")
    total: Value | None = None
    weights = []
    for v in graph.outputs:
        if v.type.dtype.is_float:
            weights.append(b.input(b.fresh("weight"), v.type))
            part = sum_to(b, fused(b, "(x0 * x1)", new[v], weights[-1]), v.type.with_shape())
            total = part if total is None else add(b, total, part)
    if total is None:
        raise GraphError(f"network '{graph.name}': expected a float output to differentiate")
    return b.build(sum=total), weights


def _directions(point: Array, rng: np.random.Generator) -> list[tuple[str, Array]]:
    """Single elements, all or as many as are checked, and then all of them together."""
    chosen = rng.permutation(point.size)[:MOST_ELEMENTS]
    found = []
    for i in chosen:
        direction = np.zeros(point.size)
        direction[i] = 1
        place = [int(k) for k in np.unravel_index(i, point.shape)]
        found.append((f"at {place}", direction.reshape(point.shape)))
    return [*found, ("in a random direction", rng.standard_normal(point.shape))]
