"""Normalisations and softmax: reference against the definition, loop nests against the reference."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nest_interpreter import check_lowering, image_type, type_of

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, parse_type

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def draw_array(*shape: int) -> Array:
    """Standard normal float32 numbers, the same for the same shape."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 4, 3, 5), (2, 4, 3, 2, 2)])
def test_batch_norm(shape):
    op, x = ops.BatchNorm(epsilon=1e-3), draw_array(*shape)
    scale, bias, mean, variance = np.random.default_rng(1).random((4, shape[1]), np.float32)
    y = op.eval(x, scale, bias, mean, variance)
    for c in range(shape[1]):
        expected = (x[:, c] - mean[c]) / np.sqrt(variance[c] + 1e-3) * scale[c] + bias[c]
        np.testing.assert_allclose(y[:, c], expected, rtol=1e-5, atol=1e-6)
    types = [image_type(x), *[type_of(scale)] * 4] if x.ndim == 4 else []
    check_lowering(op, x, scale, bias, mean, variance, types=types)


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.5, 0.75, 1.0]))
def test_local_response_norm(channels, size, beta):
    op, x = ops.LocalResponseNorm(size, alpha=0.3, beta=beta, k=2.0), draw_array(2, channels, 2, 3)
    y = op.eval(x)
    for c in range(channels):
        near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]  # ceil((size-1)/2) = size // 2
        expected = x[:, c] / (2.0 + 0.3 / size * (near**2).sum(axis=1)) ** beta
        np.testing.assert_allclose(y[:, c], expected, rtol=1e-5)
    check_lowering(op, x, types=[image_type(x)])


@given(shapes, st.data())
def test_softmax(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = draw_array(*shape) * 3
    exponentials = np.exp(x.astype(np.float64))
    expected = exponentials / exponentials.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(ops.Softmax(axis).eval(x), expected, rtol=1e-5)
    np.testing.assert_allclose(ops.LogSoftmax(axis).eval(x), np.log(expected), rtol=1e-5, atol=1e-6)
    for op in (ops.Softmax(axis), ops.LogSoftmax(axis)):
        check_lowering(op, x, types=[image_type(x)] if x.ndim == 4 else [])


@pytest.mark.parametrize("axis", [-1, 0])
def test_softmax_of_extreme_scores(axis):
    """Neither overflow nor NaN: shifting all scores changes nothing, and minus infinity is a probability of 0."""
    x = np.array([[1000.0, 1001.0, -inf], [1001.0, 1000.0, -1000.0], [-1e30, 1e30, 0.0]], np.float32)
    for op in (ops.Softmax(axis), ops.LogSoftmax(axis)):
        y = op.eval(x)
        assert not np.isnan(y).any()
        check_lowering(op, x)
    np.testing.assert_allclose(ops.Softmax(axis).eval(x).sum(axis=axis), 1, rtol=1e-6)
    np.testing.assert_allclose(ops.Softmax(-1).eval(x)[0], [1 / (1 + np.e), np.e / (1 + np.e), 0], rtol=1e-6)


@pytest.mark.parametrize(("op", "types", "message"), [
    (ops.BatchNorm(), ["f32[N,4,H,W]", *["f32[4]"] * 3], "expected 5 inputs, got 4"),
    (ops.BatchNorm(), ["f32[N,H]", *["f32[4]"] * 4], "expected a float batch [N,C,...] with constant C, got f32[N,H]"),
    (ops.BatchNorm(), ["f32[N,4,H,W]", "f32[4]", "f32[4]", "f32[5]", "f32[4]"],
     "mean must be f32[4] for x f32[N,4,H,W], got f32[5]"),
    (ops.BatchNorm(epsilon=-1.0), ["f32[N,4]", *["f32[4]"] * 4], "expected epsilon >= 0, got -1.0"),
    (ops.LocalResponseNorm(0), ["f32[N,4,H,W]"], "size must be at least 1, got 0"),
    (ops.LocalResponseNorm(3), ["f32[4,H,W]"],
     "expected a float image batch [N,C,H,W] with constant C, got f32[4,H,W]"),
    (ops.Softmax(), ["f32[4]"], "axis must lie from -1 to 0 for x f32[4], got 1"),
    (ops.LogSoftmax(-3), ["f32[N,4]"], "axis must lie from -2 to 1 for x f32[N,4], got -3"),
    (ops.Softmax(), ["i64[N,4]"], "expected float elements, got i64[N,4]"),
])  # fmt: skip
def test_errors(op, types, message):
    with pytest.raises(ShapeError) as caught:
        op.infer(*map(parse_type, types))
    assert str(caught.value) == message
