"""Every op through every executor: NumPy in float64 = compiled code = ONNX Runtime, at sizes the code has not seen."""

import os
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from problem import SUMS, Problem, image, weight
from problems import PROBLEMS

from graphc.codegen.target import check_runs_here
from graphc.driver import compile
from graphc.errors import GraphcError, InputError
from graphc.ir import Array, DType, Graph
from graphc.ir.sizes import bind_sizes
from graphc.ops import OPS, Conv2d
from graphc.reference import check_sizes, run_reference
from graphc.verify import relative_difference

EXAMPLES = int(os.environ.get("GRAPHC_TEST_EXAMPLES", "12"))  # of each op; each is compiled once and run at two sizes


# ONNX Runtime has these in its own way or not at all: test_ops_sample.py
TESTED_ELSEWHERE = {("interpolate", name) for name in ("cubic", "crop", "extrapolation")}


def runs_here(cpu: str) -> bool:
    try:
        check_runs_here(cpu)
    except GraphcError:
        return False
    return True


# 16, 8 and 4 lanes where the machine has them; GRAPHC_CPU lowers them all (`make test-levels`)
LEVELS = ["native", *(cpu for cpu in ("x86-64-v4", "x86-64-v3", "x86-64-v2", "x86-64") if runs_here(cpu))]


def test_every_op_has_problems() -> None:
    assert set(PROBLEMS) == set(OPS)


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_attribute_is_drawn(name: str) -> None:
    """What is at its default in all problems, no executor and no gradient is ever tested with."""
    for field in fields(OPS[name]):
        if (name, field.name) not in TESTED_ELSEWHERE:
            find(
                PROBLEMS[name],
                lambda p, f=field: getattr(p.op, f.name) != f.default,
                settings=settings(max_examples=500, phases=[Phase.generate]),
            )


@pytest.mark.parametrize("name", sorted(PROBLEMS))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_executors_agree(name: str, data: st.DataObject) -> None:
    problem = data.draw(PROBLEMS[name])
    graph = problem.build()
    cpu = data.draw(st.sampled_from(LEVELS))
    net = compile(graph, threads=2, cpu=cpu)
    side = st.integers(problem.least_size, problem.least_size + 20)
    for seed in range(2):
        sizes = {"N": data.draw(st.integers(1, 3)), "H": data.draw(side), "W": data.draw(side)}
        inputs = problem.arrays(sizes, seed)
        if not takes(graph, inputs):  # a size that the op refuses must be refused by the code too
            with pytest.raises(InputError, match=r"must be|must equal|expected"):
                net(*inputs)
            continue
        expected = run_reference(graph, inputs, DType.F64)
        check(problem, expected, net(*inputs), f"{cpu} code at {sizes}")
        check(problem, expected, run_onnxruntime(problem, inputs), f"ONNX Runtime at {sizes}")


def takes(graph: Graph, inputs: list[Array]) -> bool:
    """Whether the reference accepts inputs of these sizes."""
    try:
        check_sizes(graph, bind_sizes([(v.name, v.type) for v in graph.inputs], [a.shape for a in inputs]))
    except InputError:
        return False
    return True


def check(problem: Problem, expected: list[Array], found: Array | tuple[Array, ...] | list[Array], where: str) -> None:
    results = list(found) if isinstance(found, tuple | list) else [found]
    assert len(results) == len(expected)
    for a, b in zip(results, expected, strict=True):
        if b.dtype.kind == "f":
            # drawn elements are about 1: where a sum of them cancels, its error still is one of terms of that size
            difference = relative_difference(np.append(a, 1.0), np.append(b, 1.0))
            assert difference <= problem.tolerance, f"{problem.op}: {where}: {difference:.1e}"
        else:
            np.testing.assert_array_equal(a, b, f"{problem.op}: {where}")


def run_onnxruntime(problem: Problem, inputs: list[Array]) -> list[Array]:
    onnxruntime = pytest.importorskip("onnxruntime")
    from graphc.onnx import to_model

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = to_model(problem.build(), problem.opset).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {f"x{i}": a for i, a in zip(_graph_inputs(problem), inputs, strict=True)}))


def _graph_inputs(problem: Problem) -> list[int]:
    return [i for i, x in enumerate(problem.inputs) if not x.param]


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads: int) -> None:
    problem = Problem(Conv2d(padding=(1, 1, 1, 1)), (image(5), weight(24, 5, 3, 3), weight(24)), SUMS)
    graph, inputs = problem.build(), problem.arrays({"N": 2, "H": 37, "W": 53})
    np.testing.assert_array_equal(compile(graph, threads=1)(*inputs), compile(graph, threads=threads)(*inputs))
