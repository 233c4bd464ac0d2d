"""The oracle of the lowering tests refuses what the loop-nest language forbids."""

import numpy as np
import pytest
from nest_interpreter import run_nests

from graphc.codegen.nest import Buffer, Nest, loop_vars, pointwise, total
from graphc.ir import f32
from graphc.ops.scalar import Lit, call

A, Y = Buffer("a", f32(4)), Buffer("y", f32(4))
i, j = loop_vars("ij", (4, 4))


@pytest.mark.parametrize(("nest", "message"), [
    (pointwise(Y, lambda v: A[v + 1]), "a load outside"),
    (pointwise(Y, lambda v: call("select", call("lt", v, 3), A[v + 1], 0.0)), "a load outside"),
    (Nest(Y, (i,), (i + 1,), A[i]), "a store outside"),
    (Nest(Y, (i, j), (i,), A[j]), "parallel loops store to one element twice"),
    (pointwise(Y, lambda v: Y[v]), "a nest reads what it writes"),
    (pointwise(Y, lambda v: total(A[v], v)), "a reduction over a loop variable"),
    (pointwise(Y, lambda _: A[j]), "a variable that no loop binds"),
    (pointwise(Y, lambda v: call("select", call("lt", v * 0.5, 1), A[v], 0.0)), "declared i64"),
    (pointwise(Y, lambda v: Buffer("t", f32(4))[v]), "read before it is written"),
])  # fmt: skip
def test_interpreter_refuses_wrong_nests(nest, message):
    with pytest.raises(AssertionError, match=message):
        run_nests([nest], {"a": np.zeros(4, np.float32)}, {})


def test_interpreter_leaves_garbage_where_nothing_is_stored():
    arrays = {"a": np.zeros(4, np.float32)}
    run_nests([Nest(Y, (i,), (i,), A[i], where=call("lt", i, Lit(2)))], arrays, {})
    np.testing.assert_array_equal(arrays["y"], [0, 0, np.nan, np.nan])


def test_interpreter_runs_nests_that_accumulate_in_order():
    """A nest may read what it writes where its loops are serial."""
    arrays = {"a": np.arange(4, dtype=np.float32), "y": np.ones(4, np.float32)}
    run_nests([Nest(Y, (i, j), (j,), Y[j] * 2.0 + A[i], parallel=0)], arrays, {})
    np.testing.assert_array_equal(arrays["y"], [27, 27, 27, 27])  # ((1*2 + 0)*2 + 1)*2 ...
    with pytest.raises(AssertionError, match="parallel loops store to one element twice"):
        run_nests([Nest(Y, (i, j), (j,), Y[j] + A[i], parallel=1)], arrays, {})
