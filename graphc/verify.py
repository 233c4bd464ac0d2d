"""Is the native code right? Compares it with the NumPy reference in float64 and with ONNX Runtime, layer by layer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc.driver import compile
from graphc.errors import UnsupportedError
from graphc.ir import Array, DType, Graph
from graphc.passes import PIPELINE, optimize
from graphc.reference import random_inputs, run_reference
from graphc.runtime.onnxruntime import OnnxRuntimeNetwork

TOLERANCE = 1e-4  # of a tensor's largest element: float32 sums over thousands of products stay well below

Executor = Callable[[Graph, Sequence[Array]], Sequence[Array]]


@dataclass(frozen=True)
class Comparison:
    """One executor against the reference: the largest difference over all outputs, as a share of the largest element.

    `first_wrong` says where the results begin to differ by more than the tolerance: the first layer, in order;
    `skipped` says why the executor was not run.
    """

    executor: str
    difference: float = 0.0
    first_wrong: str | None = None
    skipped: str | None = None


def verify(
    graph: Graph,
    sizes: Mapping[str, int],
    seed: int = 0,
    threads: int | None = None,
    cpu: str = "native",
    tolerance: float = TOLERANCE,
    inputs: Sequence[Array] | None = None,
    provider: str = "cpu",
) -> list[Comparison]:
    """Run random inputs (or `inputs`) of these sizes through every executor and compare with float64.

    `provider` is what ONNX Runtime computes on: cpu, cuda or tensorrt; UnsupportedError if that is not there.
    """
    given = list(inputs) if inputs is not None else random_inputs(graph, sizes, seed)
    expected = run_reference(graph, given, DType.F64)
    return [
        _compare_native(graph, given, expected, threads, cpu, tolerance),
        _compare_onnxruntime(graph, given, expected, provider, tolerance),
    ]


def relative_difference(a: Array, b: Array) -> float:
    """The largest absolute difference, as a share of the largest finite element of `b`; inf where only one is NaN."""
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    same = (a == b) | np.isnan(b)
    gap = np.where(same, 0, np.abs(a.astype(np.float64) - np.where(same, 0, b)))
    finite = np.abs(b[np.isfinite(b)])
    return float(gap.max(initial=0) / max(finite.max(initial=0), np.finfo(np.float32).tiny))


def _compare_native(
    graph: Graph, inputs: list[Array], expected: list[Array], threads: int | None, cpu: str, tolerance: float
) -> Comparison:
    def run(graph: Graph, inputs: Sequence[Array]) -> Sequence[Array]:
        return _listed(compile(graph, threads, cpu)(*inputs))

    def run_node_by_node(graph: Graph, inputs: Sequence[Array]) -> Sequence[Array]:
        return _listed(compile(graph, threads, cpu, optimized=False)(*inputs))

    difference = _largest(run(graph, inputs), expected)
    if difference <= tolerance:
        return Comparison("native", difference)
    wrong = _first_wrong_layer(graph, inputs, run_node_by_node, tolerance)
    wrong = wrong or _first_wrong_pass(graph, inputs, expected, tolerance)
    if wrong is None:
        wrong = _first_wrong_layer(optimize(graph), inputs, run_node_by_node, tolerance)
        wrong = f"{wrong or 'the network as a whole'}, once optimised,"
    return Comparison("native", difference, wrong)


def _compare_onnxruntime(
    graph: Graph, inputs: list[Array], expected: list[Array], provider: str, tolerance: float
) -> Comparison:
    def run(graph: Graph, inputs: Sequence[Array]) -> Sequence[Array]:
        return run_onnxruntime(graph, inputs, provider)

    try:
        difference = _largest(run(graph, inputs), expected)
    except UnsupportedError as error:
        if provider != "cpu":  # it was asked for
            raise
        return Comparison("onnxruntime", skipped=str(error))
    if difference <= tolerance:
        return Comparison("onnxruntime", difference)
    wrong = _first_wrong_layer(graph, inputs, run, tolerance)
    return Comparison("onnxruntime", difference, wrong or "the network as a whole; every layer alone is right")


def run_onnxruntime(graph: Graph, inputs: Sequence[Array], provider: str = "cpu") -> Sequence[Array]:
    """The outputs of the exported graph; UnsupportedError if ONNX or ONNX Runtime lacks something of it."""
    return _listed(OnnxRuntimeNetwork(graph, provider)(*inputs))


def _first_wrong_layer(graph: Graph, inputs: Sequence[Array], run: Executor, tolerance: float) -> str | None:
    """The first node whose value by `run` differs from the reference's."""
    values = [v for node in graph.nodes for v in node.outputs]
    spread = replace(graph, outputs=tuple(values), output_names=tuple(v.name for v in values))
    expected = run_reference(spread, inputs, DType.F64)
    for v, a, b in zip(values, run(spread, inputs), expected, strict=True):
        if relative_difference(a, b) > tolerance:
            return str(graph.producers[v])
    return None


def _first_wrong_pass(graph: Graph, inputs: Sequence[Array], expected: Sequence[Array], tolerance: float) -> str | None:
    """The first pass after which the graph computes something else."""
    for count, rewrite in enumerate(PIPELINE, 1):
        rewritten = optimize(graph, PIPELINE[:count])
        if _largest(run_reference(rewritten, inputs, DType.F64), expected) > tolerance:
            return f"pass {rewrite.__name__}"
    return None


def _largest(found: Sequence[Array], expected: Sequence[Array]) -> float:
    return max(relative_difference(a, b) for a, b in zip(found, expected, strict=True))


def _listed(result: Array | tuple[Array, ...]) -> Sequence[Array]:
    return result if isinstance(result, tuple) else (result,)
