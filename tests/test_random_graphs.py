"""Random networks through every executor: reference = optimised code = code node by node = ONNX and back."""

import os

import numpy as np
import pytest
from onnx_models import run_onnxruntime
from random_graphs import draw_graph

from graphc.driver import compile
from graphc.errors import InputError
from graphc.ir import Array, DType, Graph
from graphc.ir.sizes import bind_sizes
from graphc.onnx import from_model, to_model
from graphc.passes import eliminate_dead_code
from graphc.reference import check_sizes, random_inputs, run_reference
from graphc.runtime.network import Network
from graphc.text import parse

# The seed is the test's parameter, so a failure names it. GRAPHC_TEST_EXAMPLES gives more: one to two seconds each.
SEEDS = range(int(os.environ.get("GRAPHC_TEST_EXAMPLES", "8")))
TOLERANCE = 1e-4  # of the largest element: a dozen layers, each within 1e-5 of its own largest
SIDES = (3, 14, 2, 33)


@pytest.mark.parametrize("seed", SEEDS)
def test_executors_agree(seed: int) -> None:
    graph, rng = eliminate_dead_code(draw_graph(seed)), np.random.default_rng([seed, 1])
    assert str(parse(str(graph), {name: p.array for name, p in graph.params.items()})) == str(graph)
    model = to_model(graph)
    again = from_model(model)
    assert str(from_model(to_model(again))) == str(again)
    cpus = rng.permutation(["native", "x86-64"])
    fast, plain = compile(graph, threads=1, cpu=cpus[0]), compile(graph, threads=3, cpu=cpus[1], optimized=False)
    several, imported = compile(graph, threads=3, cpu=cpus[0]), compile(again, threads=2)
    for side in SIDES:
        sizes = {s: int(rng.integers(1, 4 if s == "N" else side + 1)) for s in graph.symbols}
        inputs = random_inputs(graph, sizes, seed)
        if not takes(graph, inputs):
            for net in (fast, plain):
                with pytest.raises(InputError, match="must"):
                    net(*inputs)
            continue
        expected = run_reference(graph, inputs, DType.F64)
        for where, net in {"optimised": fast, "plain": plain, "imported": imported}.items():
            check(run(net, inputs), expected, f"{where} code at {sizes}\n{graph}")
        for a, b in zip(run(fast, inputs), run(several, inputs), strict=True):
            np.testing.assert_array_equal(a, b, "one thread and three")
        names = [i.name for i in model.graph.input]
        found = run_onnxruntime(model, dict(zip(names, inputs, strict=True)))
        check(found, expected, f"ONNX Runtime at {sizes}\n{graph}")


def takes(graph: Graph, inputs: list[Array]) -> bool:
    """Whether the reference accepts inputs of these sizes."""
    try:
        check_sizes(graph, bind_sizes([(v.name, v.type) for v in graph.inputs], [a.shape for a in inputs]))
    except InputError:
        return False
    return True


def run(net: Network, inputs: list[Array]) -> list[Array]:
    result = net(*inputs)
    return list(result) if isinstance(result, tuple) else [result]


def check(found: list[Array], expected: list[Array], where: str) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape, where
        largest = np.abs(b, where=np.isfinite(b), out=np.ones(b.shape)).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(largest, 1.0), err_msg=where)
