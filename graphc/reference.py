"""The NumPy reference: runs a graph op by op. Slow, simple, and what every other executor is compared with."""

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.errors import InputError
from graphc.ir import Array, DType, Graph, Op, Value, dims
from graphc.ir.sizes import bind_sizes
from graphc.ir.verify import requirements
from graphc.ops.elementwise import Fused


def check_sizes(graph: Graph, sizes: dict[str, int]) -> None:
    """InputError with the first requirement of the graph that these sizes do not meet."""
    for requirement in requirements(graph):
        if not requirement.holds(sizes):
            given = ", ".join(f"{k}={v}" for k, v in sizes.items())
            raise InputError(f"{requirement.message} (got {given})")


def run_reference(
    graph: Graph, inputs: Sequence[Array], dtype: DType | None = None, keep: Sequence[Value] | None = None
) -> list[Array]:
    """The graph's outputs (or the values `keep`) for these inputs.

    With `dtype=DType.F64`, every float tensor is computed in float64: the oracle for float32 code.
    """
    if len(inputs) != len(graph.inputs):
        raise InputError(f"network '{graph.name}': expected {len(graph.inputs)} inputs, got {len(inputs)}")
    sizes = bind_sizes([(v.name, v.type) for v in graph.inputs], [a.shape for a in inputs])
    check_sizes(graph, sizes)
    env = dict(zip(graph.inputs, inputs, strict=True)) | {p.value: p.array for p in graph.params.values()}
    return evaluate(graph, env, sizes, dtype, keep)


def evaluate(
    graph: Graph,
    values: Mapping[Value, Array],
    sizes: Mapping[str, int],
    dtype: DType | None = None,
    keep: Sequence[Value] | None = None,
) -> list[Array]:
    """`run_reference` from the values of inputs and parameters, whose sizes are known and have been checked."""
    wanted = list(graph.outputs if keep is None else keep)
    env: dict[Value, Array] = {v: _cast(a, dtype) for v, a in values.items()}
    last = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs}
    for i, node in enumerate(graph.nodes):
        with np.errstate(all="ignore"):  # inf and NaN are results here, not mistakes
            results = _in_dtype(node.op.bind(sizes), dtype).eval(*(env[v] for v in node.inputs))
        arrays = results if isinstance(results, tuple) else (results,)
        env |= zip(node.outputs, (_cast(a, dtype) for a in arrays), strict=True)
        for v in set(node.inputs):
            if last[v] == i and v not in wanted:
                del env[v]
    return [env[v] for v in wanted]


def _in_dtype(op: Op, dtype: DType | None) -> Op:
    """The op with its casts to f32 as casts to `dtype`."""
    if dtype is None or not isinstance(op, Fused):
        return op
    return Fused(op.expr.replace("to_f32(", f"to_{dtype.value}("))


def _cast(array: Array, dtype: DType | None) -> Array:
    if dtype is None or not DType.of(array.dtype).is_float:
        return array
    return array.astype(dtype.numpy)


def random_inputs(graph: Graph, sizes: Mapping[str, int], seed: int = 0) -> list[Array]:
    """Standard normal inputs (0/1 integers for integer inputs) for these sizes, for tests and measurements."""
    rng = np.random.default_rng(seed)
    arrays = []
    for v in graph.inputs:
        shape = tuple(dims.evaluate(d, sizes) for d in v.type.shape)
        data = rng.standard_normal(shape) if v.type.dtype.is_float else rng.integers(0, 2, shape)
        arrays.append(data.astype(v.type.dtype.numpy))
    return arrays
