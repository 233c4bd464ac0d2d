"""Gathers, scatters, the largest elements and running sums: references, loop nests, and indices that lie outside."""

import numpy as np
import pytest
from nest_interpreter import check_lowering

from graphc import ops
from graphc.driver import compile
from graphc.errors import InputError, ShapeError
from graphc.ir import Array, Builder, DType, Op, TensorType, f32, parse_type


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def indices(low: int, high: int, *shape: int) -> Array:
    return np.random.default_rng(1).integers(low, high, shape)


def run_native(op: Op, *arrays: Array) -> Array:
    net = Builder("net")
    inputs = tuple(net.input(f"x{i}", TensorType(DType.of(a.dtype), a.shape)) for i, a in enumerate(arrays))
    found = compile(net.build(*net.add(op, inputs, "y")), threads=1)(*arrays)
    assert isinstance(found, np.ndarray)
    return found


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gathers(axis: int) -> None:
    x = draw(4, 5, 4)
    check_lowering(ops.Gather(axis), x, indices(-4, 4, 2, 3))
    check_lowering(ops.GatherElements(axis), x, indices(-4, 4, 3, 4, 2))
    check_lowering(ops.Positions(axis), x)


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_gather_nd(batch_dims: int) -> None:
    check_lowering(ops.GatherND(batch_dims), draw(3, 5, 4, 2), indices(-3, 3, 3, 6, 2))


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatters_store_in_order(reduction: str) -> None:
    """Of several updates of one element the last one stays, or all are combined, one after the other."""
    for axis in (0, 1, 2):
        op = ops.ScatterElements(reduction, axis)
        check_lowering(op, draw(4, 5, 4), indices(-4, 4, 4, 4, 4), draw(4, 4, 4, seed=2))
    check_lowering(ops.ScatterND(reduction), draw(3, 5, 4), indices(-3, 3, 9, 2), draw(9, 4, seed=2))
    check_lowering(ops.ScatterND(reduction), draw(3), indices(0, 3, 2, 2, 1), draw(2, 2, seed=2))


def test_scatter_of_equal_indices_is_the_last_update() -> None:
    x, updates = np.zeros((2, 3), np.float32), np.array([[1, 2], [3, 4]], np.float32)
    places = np.array([[1, 1], [0, -3]])
    np.testing.assert_array_equal(ops.ScatterElements(axis=1).eval(x, places, updates), [[0, 2, 0], [4, 0, 0]])
    np.testing.assert_array_equal(run_native(ops.ScatterElements(axis=1), x, places, updates), [[0, 2, 0], [4, 0, 0]])


OUTSIDE = np.array([[0, 2, -3, 2**62, -(2**63)]])
NAN = np.nan


@pytest.mark.parametrize(("op", "arrays", "expected"), [
    (ops.Gather(1), (draw(1, 2), OUTSIDE[0]), [[draw(1, 2)[0, 0], NAN, NAN, NAN, NAN]]),
    (ops.GatherElements(1), (draw(1, 2), OUTSIDE), [[draw(1, 2)[0, 0], NAN, NAN, NAN, NAN]]),
    (ops.GatherND(), (np.array([7, 8]), OUTSIDE.T), [7, 0, 0, 0, 0]),
    (ops.ScatterElements(axis=1), (np.zeros((1, 2), np.float32), OUTSIDE, np.ones((1, 5), np.float32)), [[1, 0]]),
    (ops.ScatterND("add"), (np.zeros(2, np.float32), OUTSIDE.T, np.ones(5, np.float32)), [1, 0]),
])  # fmt: skip
def test_indices_outside(op: Op, arrays: tuple[Array, ...], expected: list[float]) -> None:
    """An error in the reference; native code reads NaN (0 for integers) and stores nothing."""
    with pytest.raises(InputError, match=rf"{op.name}: indices must lie from -2 to 1, got"):
        op.eval(*arrays)
    np.testing.assert_array_equal(run_native(op, *arrays), expected)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_top_k(largest: bool, axis: int) -> None:
    x = draw(4, 5, 4)
    check_lowering(ops.TopK(3, axis, largest), x)
    check_lowering(ops.TopK(4, axis, largest), indices(0, 3, 4, 5, 4))  # many are equal
    x[:, 1, :2] = np.nan
    check_lowering(ops.TopK(4, axis, largest), x)


def test_top_k_orders_equal_elements_by_index() -> None:
    x = np.array([2, 3, 2, 3, np.nan], np.float32)
    for op, order in ((ops.TopK(5), [4, 1, 3, 0, 2]), (ops.TopK(5, largest=False), [0, 2, 1, 3, 4])):
        values, places = op.eval(x)
        np.testing.assert_array_equal(places, order)
        np.testing.assert_array_equal(values, x[order])


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("reverse", [True, False])
def test_cum_sum(exclusive: bool, reverse: bool) -> None:
    check_lowering(ops.CumSum(1, exclusive, reverse), draw(3, 5, 4))
    check_lowering(ops.CumSum(-1, exclusive, reverse), indices(-9, 9, 3, 1))
    check_lowering(ops.CumSum(1, exclusive, reverse), indices(-9, 9, 2, 150), types=[parse_type("i64[N,W]")])
    x, expected = np.array([1, 2, 3]), [1, 3, 6]
    if reverse:
        expected = [6, 5, 3]
    if exclusive:
        expected = [5, 3, 0] if reverse else [0, 1, 3]
    np.testing.assert_array_equal(ops.CumSum(0, exclusive, reverse).eval(x), expected)


@pytest.mark.parametrize(("op", "types", "message"), [
    (ops.Gather(), "f32[3] f32[2]", "indices must be i32 or i64"),
    (ops.GatherElements(), "f32[3,4] i64[3]", "no larger than x"),
    (ops.GatherElements(), "f32[3,4] i64[2,5]", "no larger than x"),
    (ops.GatherND(), "f32[3,4] i64[2,3]", "constant m"),
    (ops.GatherND(1), "f32[3,4] i64[2,1]", "must be equal"),
    (ops.ScatterElements(), "f32[3] i64[2] f32[3]", "updates must be f32"),
    (ops.ScatterND("sum"), "f32[3] i64[2,1] f32[2]", "reduction must be none, add"),
    (ops.ScatterND("add"), "bool[3] i64[2,1] bool[2]", "wants numbers"),
    (ops.TopK(4), "f32[3]", "k must lie from 1 to dim 0"),
    (ops.TopK(0), "f32[3]", "k must lie from 1 to dim 0"),
    (ops.CumSum(1), "f32[3]", "axis must lie"),
])  # fmt: skip
def test_shape_rules(op: Op, types: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*map(parse_type, types.split()))


def test_a_symbolic_dim_has_k_elements() -> None:
    """Checked when the sizes are known."""
    net = Builder("net")
    values, _ = net.add(ops.TopK(3), (net.input("x", f32("N", "W")),), "y")
    run = compile(net.build(values), threads=1)
    np.testing.assert_array_equal(run(np.array([[1, 5, 3, 4]], np.float32)), [[5, 4, 3]])
    with pytest.raises(InputError, match="must equal"):
        run(np.zeros((1, 2), np.float32))
