"""The native code stays inside its buffers: every op, with forbidden pages around inputs, outputs, weights, workspace.

A violation is a segmentation fault, which ends the test process.
"""

import ctypes
import faulthandler
import os
from dataclasses import replace

import numpy as np
import pytest
from guards import Guarded, guard
from hypothesis import given, settings
from hypothesis import strategies as st
from problem import Data
from problems import PROBLEMS
from test_executors import LEVELS, takes

from graphc.codegen.plan import ALIGNMENT
from graphc.driver import lower
from graphc.ir import Array, DType, Graph
from graphc.ir.sizes import bind_sizes
from graphc.reference import run_reference
from graphc.runtime.jit import JitCode
from graphc.runtime.network import SIGNATURES

EXAMPLES = int(os.environ.get("GRAPHC_TEST_EXAMPLES", "4"))  # of each op


def run_guarded(graph: Graph, cpu: str, inputs: list[Array], at_start: bool) -> list[Array]:
    """The outputs of the compiled graph, with every buffer between forbidden pages."""
    lowered = lower(graph, "net", cpu)
    code = JitCode(lowered.object_code())
    call = {name: code.function(f"net_{name}", *signature) for name, signature in SIGNATURES.items()}
    weights = lowered.plan.weight_block()
    block = Guarded(weights.shape, weights.dtype, at_start, ALIGNMENT).array
    block[...] = weights
    handle = ctypes.c_void_p()
    assert call["create_from_memory"](ctypes.byref(handle), 2, block.ctypes.data, block.size) == 0
    sizes = bind_sizes([(v.name, v.type) for v in graph.inputs], [a.shape for a in inputs])
    packed = (ctypes.c_int64 * max(1, len(sizes)))(*(sizes[s] for s in graph.symbols))
    needed = call["workspace"](packed)
    workspace = Guarded((needed,), np.dtype(np.uint8), at_start, ALIGNMENT).array
    workspace[...] = 0xFF  # NaN wherever something is read before it is written
    results = []
    for i, v in enumerate(graph.outputs):
        dims = (ctypes.c_int64 * max(1, v.type.rank))()
        assert call["output_dims"](packed, i, dims) == 0
        dtype = v.type.dtype.numpy
        results.append(Guarded(tuple(dims[: v.type.rank]), dtype, at_start, dtype.itemsize).array)
    guarded = [guard(a, at_start) for a in inputs]
    sources = (ctypes.c_void_p * len(guarded))(*(a.ctypes.data for a in guarded))
    targets = (ctypes.c_void_p * len(results))(*(a.ctypes.data for a in results))
    assert call["call"](handle, sources, packed, targets, workspace.ctypes.data, workspace.size) == 0
    call["destroy"](handle)
    return results


@pytest.mark.parametrize("name", sorted(PROBLEMS))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_no_op_leaves_its_buffers(name: str, data: st.DataObject) -> None:
    problem = data.draw(PROBLEMS[name])
    side = st.integers(problem.least_size, problem.least_size + 40)
    sizes = {"N": data.draw(st.integers(1, 2)), "H": data.draw(side), "W": data.draw(side)}
    graph, inputs = problem.build(), problem.arrays(sizes)
    if not takes(graph, inputs):
        return
    found = run_guarded(graph, data.draw(st.sampled_from(LEVELS)), inputs, data.draw(st.booleans()))
    for a, b in zip(found, run_reference(graph, inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def hostile(dtype: DType) -> Data:
    """Indices that lie outside of everything, and floats that no integer holds, beside usual ones."""
    if dtype.is_integer:
        least, most = (int(x) for x in dtype.limits)
        values: list[float] = [least, least + 1, most - 1, most, most // 2, 0, 1, 2, 5]
    elif dtype.is_float or dtype.is_half:
        values = [np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -(2.0**63), 1e-40, 0.0, -0.0, 0.5, 1.0, 5.0]
    else:
        values = [False, True]
    with np.errstate(over="ignore"):  # f16 has infinity for the large ones
        choices = np.array(values).astype(dtype.numpy)
    return lambda rng, shape: rng.choice(choices, shape)


@pytest.mark.parametrize("name", sorted(PROBLEMS))
@settings(max_examples=max(1, EXAMPLES // 4))
@given(data=st.data())
def test_no_value_leads_out_of_the_buffers(name: str, data: st.DataObject) -> None:
    """Whatever the inputs hold: what the op then gives is not compared, only where it reads and writes."""
    problem = data.draw(PROBLEMS[name])
    least = problem.least_size
    sizes = {"N": data.draw(st.integers(1, 2)), **{s: data.draw(st.integers(least, least + 20)) for s in "HW"}}
    inputs = tuple(replace(x, data=hostile(x.type.dtype)) for x in problem.inputs)
    problem = replace(problem, inputs=inputs)
    graph, arrays = problem.build(data.draw(st.integers(0, 99))), problem.arrays(sizes, data.draw(st.integers(0, 99)))
    if takes(graph, arrays):
        run_guarded(graph, data.draw(st.sampled_from(LEVELS)), arrays, data.draw(st.booleans()))


def test_the_guard_works() -> None:
    """A byte beyond the array is forbidden: a child process that reads it dies."""
    array = guard(np.zeros(100, np.float32), at_start=False)
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # its report of this wanted crash would look like a failure
        ctypes.string_at(array.ctypes.data + array.nbytes, 1)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
