"""Pools: reference against the definition, loop nests against the reference."""

from collections.abc import Callable
from math import inf, nan, sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nest_interpreter import check_lowering, image_type, run_lowering, type_of

from graphc import ops
from graphc.codegen.lowering import lower
from graphc.errors import InputError, ShapeError
from graphc.ir import Array, Op, parse_type
from graphc.ops.pool import NO_CELL
from graphc.ops.window import Window

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
paddings = st.tuples(*[st.integers(0, 2)] * 4)
# few different numbers, so that windows hold equal cells, and the special ones
images = st.builds(
    lambda size, seed, special: np.where(
        np.random.default_rng(seed).random((2, 2, *size)) < 0.2, np.float32(special),
        np.random.default_rng(seed + 1).integers(-2, 3, (2, 2, *size)).astype(np.float32)),
    sizes, st.integers(0, 1000), st.sampled_from([0.0, nan, -inf, inf]),
)  # fmt: skip


def fits(op: Op, *arrays: Array) -> bool:
    """Whether the op takes arrays of these shapes."""
    try:
        op.infer(*map(type_of, arrays))
    except ShapeError:
        return False
    return True


def pool(window: Window, x: Array, combine: Callable[[list[float], list[int]], float]) -> Array:
    """`combine(cells, places)` of the cells inside the image, and their places in x, for every window."""
    y = np.zeros((*x.shape[:2], *window.positions(*x.shape[2:])))
    for n, c, p, q in np.ndindex(*y.shape):
        spots = [
            (p * window.stride[0] + r * window.dilation[0] - window.padding[0],
             q * window.stride[1] + s * window.dilation[1] - window.padding[1])
            for r, s in np.ndindex(*window.kernel)
        ]  # fmt: skip
        inside = [(n, c, i, j) for i, j in spots if 0 <= i < x.shape[2] and 0 <= j < x.shape[3]]
        places = [int(np.ravel_multi_index(spot, x.shape)) for spot in inside]
        y[n, c, p, q] = combine([float(x[spot]) for spot in inside], places)
    return y


def first_maximum(cells: list[float], places: list[int]) -> float:
    """The least place of a NaN, or else of the maximum."""
    wins = [p for v, p in zip(cells, places, strict=True) if v != v] or [
        p for v, p in zip(cells, places, strict=True) if v == max(cells)
    ]
    return min(wins, default=inf)


@given(images, pairs, pairs, paddings, pairs, st.booleans())
def test_max_and_min_pool(x, kernel, stride, padding, dilation, ceil_mode):
    attributes = kernel, stride, padding, dilation, ceil_mode
    assume(fits(ops.MaxPool(*attributes), x))
    window = ops.MaxPool(*attributes).window
    y, indices = ops.MaxPoolWithIndices(*attributes).eval(x)
    largest = pool(window, x, lambda cells, _: nan if nan_in(cells) else max(cells, default=-inf))
    smallest = pool(window, x, lambda cells, _: nan if nan_in(cells) else min(cells, default=inf))
    places = pool(window, x, first_maximum)
    np.testing.assert_array_equal(y, largest)
    np.testing.assert_array_equal(ops.MaxPool(*attributes).eval(x), largest)
    np.testing.assert_array_equal(ops.MinPool(*attributes).eval(x), smallest)
    np.testing.assert_array_equal(np.where(indices == NO_CELL, inf, indices), places)
    for op in (ops.MaxPool, ops.MinPool, ops.MaxPoolWithIndices):
        check_lowering(op(*attributes), x, types=[image_type(x)])


def nan_in(cells: list[float]) -> bool:
    """Whether one of the cells is NaN."""
    return any(v != v for v in cells)


@given(images, pairs, pairs, paddings, st.booleans())
def test_average_and_l2_pool(x, kernel, stride, padding, ceil_mode):
    x = np.nan_to_num(x, nan=3.0, posinf=4.0, neginf=-4.0)
    op = ops.AveragePool(kernel, stride, padding, ceil_mode)
    assume(fits(op, x))
    expected = pool(op.window, x, lambda cells, _: sum(cells) / len(cells))
    np.testing.assert_allclose(op.eval(x), expected, rtol=1e-5, atol=1e-6)
    check_lowering(op, x, types=[image_type(x)])
    l2 = ops.L2Pool(kernel, stride, padding, ceil_mode)
    expected = pool(op.window, x, lambda cells, _: sqrt(sum(v * v for v in cells)))
    np.testing.assert_allclose(l2.eval(x), expected, rtol=1e-5)
    check_lowering(l2, x, types=[image_type(x)])


@given(images, pairs, pairs, paddings, st.booleans())
def test_average_pool_that_counts_padding(x, kernel, stride, padding, ceil_mode):
    """It is the average over the padded image as if the padding were image."""
    x = np.nan_to_num(x, nan=3.0, posinf=4.0, neginf=-4.0)
    op = ops.AveragePool(kernel, stride, padding, ceil_mode, count_padding=True)
    assume(fits(op, x))
    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    expected = pool(Window(kernel, stride, ceil_mode=ceil_mode), padded, lambda cells, _: sum(cells) / len(cells))
    y = op.eval(x)  # (where a window would start in the padding behind the image, there is none)
    np.testing.assert_allclose(y, expected[:, :, : y.shape[2], : y.shape[3]], rtol=1e-5, atol=1e-6)
    check_lowering(op, x, types=[image_type(x)])


@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "count"), [
    (6, 3, 2, 0, 3), (7, 3, 2, 0, 3), (8, 3, 2, 0, 4), (1, 3, 3, 0, 1), (5, 2, 2, 0, 3), (5, 2, 2, 1, 3),
    (4, 1, 3, 0, 2), (13, 3, 3, 1, 5), (6, 2, 3, 1, 3),
])  # fmt: skip
def test_ceil_mode_positions(size, kernel, stride, padding, count):
    """PyTorch's: ceil((size + 2*padding - kernel) / stride) + 1, less a window that would start behind the image."""
    window = Window((kernel, 1), (stride, 1), (padding, 0, padding, 0), ceil_mode=True)
    assert window.positions(size, 1) == (count, 1)


@given(pairs, pairs, paddings, sizes)
def test_max_unpool_puts_the_maxima_back(kernel, stride, padding, size):
    x = np.random.default_rng(size).standard_normal((2, 3, *size)).astype(np.float32)
    pooling = ops.MaxPoolWithIndices(kernel, stride, padding)
    unpooling = ops.MaxUnpool(kernel, stride, padding, like=True)
    assume(fits(pooling, x))
    y, indices = pooling.eval(x)
    maxima = np.isin(np.arange(x.size), indices).reshape(x.shape)
    np.testing.assert_array_equal(unpooling.eval(y, indices, x), np.where(maxima, x, 0))
    check_lowering(unpooling, y, indices, x)


def test_max_unpool_default_size_and_equal_indices():
    op = ops.MaxUnpool((2, 2), (2, 3), (0, 1, 0, 1))
    x, indices = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2), np.array([5, 5, 0, 5]).reshape(1, 1, 2, 2)
    expected = np.zeros((1, 1, 4, 3), np.float32)
    expected.flat[[0, 5]] = 3, 4  # the last of equal indices counts
    np.testing.assert_array_equal(op.eval(x, indices), expected)
    check_lowering(op, x, indices, types=[parse_type("f32[N,1,H,W]"), parse_type("i64[N,1,H,W]")])


@pytest.mark.parametrize("outside", [-1, 16, NO_CELL])
def test_max_unpool_index_outside(outside):
    op = ops.MaxUnpool((2, 2), (2, 2))
    x, indices = np.ones((1, 1, 2, 2), np.float32), np.array([0, outside, 3, 15]).reshape(1, 1, 2, 2)
    with pytest.raises(InputError, match=f"max_unpool: index {outside} lies outside the output of 16 elements"):
        op.eval(x, indices)
    (y,) = run_lowering(op, lower, x, indices)
    np.testing.assert_array_equal(np.flatnonzero(y), [0, 3, 15])


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (6, 4)])
def test_channel_l2_pool(size, stride):
    x = np.random.default_rng(0).standard_normal((2, 6, 3, 4)).astype(np.float32)
    groups = [np.sqrt((x[:, c : c + size] ** 2).sum(axis=1)) for c in range(0, 6 - size + 1, stride)]
    op = ops.ChannelL2Pool(size, stride)
    np.testing.assert_allclose(op.eval(x), np.stack(groups, axis=1), rtol=1e-5)
    check_lowering(op, x, types=[image_type(x)])


def test_global_pools():
    x = np.random.default_rng(0).standard_normal((2, 6, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(ops.GlobalAveragePool().eval(x)[1, 2], [[x[1, 2].mean()]], rtol=1e-6)
    x[1, 2, 0, 0] = nan
    assert np.isnan(ops.GlobalMaxPool().eval(x)).sum() == 1
    for op in (ops.GlobalAveragePool(), ops.GlobalMaxPool()):
        check_lowering(op, x, types=[image_type(x)])


@pytest.mark.parametrize(("op", "types", "result"), [
    (ops.MaxPool((3, 3), (2, 2), (1, 1, 1, 1)), ["f32[N,3,H,W]"], "f32[N,3,(H+1)//2,(W+1)//2]"),
    (ops.MaxPool((3, 3), (2, 2), ceil_mode=True), ["f32[N,3,H,W]"], "f32[N,3,H//2,W//2]"),
    (ops.AveragePool((2, 2), (3, 3), ceil_mode=True), ["f32[N,3,H,W]"], "f32[N,3,(H+2)//3,(W+2)//3]"),
    (ops.MaxUnpool((2, 2), (2, 2)), ["f32[N,3,H,W]", "i64[N,3,H,W]"], "f32[N,3,2*H,2*W]"),
    (ops.MaxUnpool((2, 2), (2, 2), like=True), ["f32[N,3,H//2,W//2]", "i64[N,3,H//2,W//2]", "f32[N,3,H,W]"],
     "f32[N,3,H,W]"),
    (ops.ChannelL2Pool(4, 2), ["f32[N,9,H,W]"], "f32[N,3,H,W]"),
    (ops.GlobalMaxPool(), ["f32[N,9,H,W]"], "f32[N,9,1,1]"),
])  # fmt: skip
def test_inferred_type(op, types, result):
    assert op.infer(*map(parse_type, types)) == parse_type(result)


X = "f32[N,4,8,8]"


@pytest.mark.parametrize(("op", "types", "message"), [
    (ops.MaxPool((2, 2), (2, 2)), [X, X], "expected 1 input, got 2"),
    (ops.MaxPool((2, 2), (2, 2)), ["i64[N,4,8,8]"],
     "expected a float image batch [N,C,H,W] with constant C, got i64[N,4,8,8]"),
    (ops.MaxPool((2, 0), (2, 2)), [X], "kernel must be 2 integers of at least 1, got (2, 0)"),
    (ops.MinPool((2,), (2, 2)), [X], "kernel must be 2 integers of at least 1, got (2,)"),
    (ops.MaxPool((9, 9), (2, 2)), [X], "a window of 9 does not fit size 8 padded by 0+0"),
    (ops.AveragePool((9, 9), (1, 1), ceil_mode=True), [X], "a window of 9 does not fit size 8 padded by 0+0"),
    (ops.L2Pool((2, 2), (2, 2), (2, 0, 0, 0)), [X],
     "padding must be less than the window's extent of 2, got (2, 0, 0, 0)"),
    (ops.MaxUnpool((2, 2), (2, 2)), [X, X], "indices must be i64[N,4,8,8], got f32[N,4,8,8]"),
    (ops.MaxUnpool((2, 2), (2, 2), like=True), [X, "i64[N,4,8,8]", "f32[N,5,16,16]"],
     "the tensor to take H and W from must be [N,4,H,W], got f32[N,5,16,16]"),
    (ops.MaxUnpool((2, 2), (1, 1), (5, 0, 5, 0)), [X, "i64[N,4,8,8]"],
     "expected an output of at least 1x1, 8x8 windows of (2, 2) less padding (5, 0, 5, 0) make -1x9"),
    (ops.MaxUnpool((2, 2), (1, 0), like=True), [X, "i64[N,4,8,8]", X],
     "stride must be 2 integers of at least 1, got (1, 0)"),
    (ops.ChannelL2Pool(5, 1), [X], "expected at least 5 channels, got f32[N,4,8,8]"),
    (ops.ChannelL2Pool(2, 0), [X], "size and stride must be at least 1, got 2 and 0"),
])  # fmt: skip
def test_errors(op, types, message):
    with pytest.raises(ShapeError) as caught:
        op.infer(*map(parse_type, types))
    assert str(caught.value) == message
