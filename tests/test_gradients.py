"""Every op's gradient against central differences in float64, over the drawn problems of problems.py."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import PROBLEMS
from test_executors import takes

from graphc.gradcheck import gradcheck
from graphc.ir import Op
from graphc.ops import OPS

EXAMPLES = int(os.environ.get("GRAPHC_TEST_EXAMPLES", "6"))  # of each op
# These give integers, or no element that depends on an input.
CONSTANT = {"arg_max", "arg_min", "extent", "iota", "positions"}
NO_RULE = {
    "cum_sum", "gather", "gather_elements", "gather_nd", "grid_sample", "interpolate", "roi_align", "scatter_elements",
    "scatter_nd", "top_k",
}  # fmt: skip
SMOOTH = sorted(OPS.keys() - CONSTANT - NO_RULE)


def test_every_other_op_has_a_rule() -> None:
    assert {name for name, op in OPS.items() if op.vjp is Op.vjp} == CONSTANT | NO_RULE


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_gradients_are_the_central_differences(name: str, data: st.DataObject) -> None:
    problem = data.draw(PROBLEMS[name])
    graph = problem.build()
    side = st.integers(problem.least_size, problem.least_size + 3)
    sizes = {"N": data.draw(st.integers(1, 2)), "H": data.draw(side), "W": data.draw(side)}
    inputs = problem.arrays(sizes)
    if not takes(graph, inputs) or not any(v.type.dtype.is_float for v in graph.outputs):
        return
    gradcheck(graph, inputs)
