"""Convolutions and matrix products: reference against the definition, loop nests against the reference."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nest_interpreter import check_lowering, image_type, run_lowering, type_of

from graphc import ops
from graphc.codegen.lowering import lower
from graphc.errors import ShapeError
from graphc.ir import Array, Op, dims, f32, parse_type
from graphc.ops.elementwise import Elementwise

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
paddings = st.tuples(*[st.integers(0, 2)] * 4)


def draw_array(*shape: int) -> Array:
    """Standard normal float32 numbers, the same for the same shape."""
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def fits(op: Op, *arrays: Array) -> bool:
    """Whether the op takes arrays of these shapes."""
    try:
        op.infer(*map(type_of, arrays))
    except ShapeError:
        return False
    return True


def convolve(op: ops.Conv2d, x: Array, w: Array, b: Array) -> Array:
    """The definition in float64, sum by sum."""
    (n_all, _, p_all, q_all) = op.infer(*map(type_of, (x, w, b))).static_shape()
    (k_all, c_all, *kernel), k_group = w.shape, w.shape[0] // op.groups
    y = np.zeros((n_all, k_all, p_all, q_all)) + b[:, None, None]
    for n, k, p, q, c, r, s in np.ndindex(n_all, k_all, p_all, q_all, c_all, *kernel):
        row = p * op.stride[0] + r * op.dilation[0] - op.padding[0]
        column = q * op.stride[1] + s * op.dilation[1] - op.padding[1]
        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
            y[n, k, p, q] += float(x[n, k // k_group * c_all + c, row, column]) * w[k, c, r, s]
    return y


def convolve_transposed(op: ops.ConvTranspose2d, x: Array, w: Array, b: Array) -> Array:
    """The definition in float64: every input element adds its taps to the output."""
    y = np.zeros(op.infer(*map(type_of, (x, w, b))).static_shape()) + b[:, None, None]
    c_group, k_group = x.shape[1] // op.groups, w.shape[1]
    for n, c, i, j, k, r, s in np.ndindex(*x.shape, *w.shape[1:]):
        row = i * op.stride[0] + r * op.dilation[0] - op.padding[0]
        column = j * op.stride[1] + s * op.dilation[1] - op.padding[1]
        if 0 <= row < y.shape[2] and 0 <= column < y.shape[3]:
            y[n, c // c_group * k_group + k, row, column] += float(x[n, c, i, j]) * w[c, k, r, s]
    return y


@given(sizes, pairs, pairs, paddings, pairs, st.integers(1, 2))
def test_conv2d(size, kernel, stride, padding, dilation, groups):
    op = ops.Conv2d(stride, padding, dilation, groups)
    x, w, b = draw_array(2, 2 * groups, *size), draw_array(2 * groups, 2, *kernel), draw_array(2 * groups)
    assume(fits(op, x, w, b))
    np.testing.assert_allclose(op.eval(x, w, b), convolve(op, x, w, b), rtol=1e-5, atol=1e-5)
    check_lowering(op, x, w, b, types=[image_type(x), type_of(w), type_of(b)])


@given(sizes, pairs, pairs, paddings, pairs, pairs, st.integers(1, 2))
def test_conv_transpose2d(size, kernel, stride, padding, dilation, more, groups):
    op = ops.ConvTranspose2d(stride, padding, (more[0] - 1, more[1] - 1), dilation, groups)
    x, w, b = draw_array(2, 2 * groups, *size), draw_array(2 * groups, 3, *kernel), draw_array(3 * groups)
    assume(fits(op, x, w, b))
    np.testing.assert_allclose(op.eval(x, w, b), convolve_transposed(op, x, w, b), rtol=1e-5, atol=1e-5)
    check_lowering(op, x, w, b, types=[image_type(x), type_of(w), type_of(b)])


def test_conv_transpose2d_does_not_read_beyond_its_taps():
    """An infinite pixel reaches the outputs under its taps and no other (0 * inf would be NaN)."""
    x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32)
    x[0, 0, 1, 1] = np.inf
    op = ops.ConvTranspose2d(stride=(2, 2), bias=False)
    (y,) = run_lowering(op, lower, x, w)
    np.testing.assert_array_equal(y, op.eval(x, w))
    assert np.isinf(y).sum() == 9


@given(sizes, pairs, pairs, paddings, st.booleans())
def test_locally_connected2d(size, kernel, stride, padding, bias):
    op = ops.LocallyConnected2d(stride, padding, bias)
    shared = ops.Conv2d(stride, padding, bias=bias)
    x, w = draw_array(2, 2, *size), draw_array(3, 2, *kernel)
    assume(fits(ops.Conv2d(stride, padding, bias=False), x, w))
    positions = op.window(kernel).positions(*size)
    spread = np.broadcast_to(w[..., None, None], (*w.shape, *positions))
    biases = [draw_array(3)] if bias else []
    spread_biases = [np.broadcast_to(b[:, None, None], (3, *positions)) for b in biases]
    np.testing.assert_allclose(op.eval(x, spread, *spread_biases), shared.eval(x, w, *biases), rtol=1e-5, atol=1e-5)
    arrays = [x, draw_array(3, 2, *kernel, *positions), *([draw_array(3, *positions)] if bias else [])]
    check_lowering(op, *arrays, types=[image_type(x), *map(type_of, arrays[1:])])


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("epilogue", [None, "max(x0 + x1, 0.0)"])
def test_linear(shape, epilogue):
    op = ops.Linear(epilogue=epilogue)
    x, w, b, extra = draw_array(*shape), draw_array(4, 5), draw_array(4), draw_array(*shape[:-1], 4)
    y = np.einsum("...c,kc->...k", x, w) + b
    arrays = [x, w, b, *([extra] if epilogue else [])]
    np.testing.assert_allclose(op.eval(*arrays), np.maximum(y + extra, 0) if epilogue else y, rtol=1e-5, atol=1e-5)
    check_lowering(op, *arrays)


@pytest.mark.parametrize(("op", "w"), [
    (ops.Conv2d(epilogue="max(x0 * x1 + x2, 0.0)"), (3, 2, 2, 2)),
    (ops.ConvTranspose2d((1, 2), epilogue="max(x0 * x1 + x2, 0.0)"), (2, 3, 2, 2)),
])  # fmt: skip
def test_convolution_epilogue(op, w):
    x, weight, b = draw_array(2, 2, 4, 3), draw_array(*w), draw_array(3)
    plain = type(op)(stride=op.stride).eval(x, weight, b)
    a, c = draw_array(*plain.shape), draw_array(*plain.shape) + 1
    np.testing.assert_allclose(op.eval(x, weight, b, a, c), np.maximum(plain * a + c, 0), rtol=1e-5, atol=1e-5)
    check_lowering(op, x, weight, b, a, c)


@pytest.mark.parametrize(("a", "b"), [
    ((5,), (5,)), ((5,), (5, 3)), ((2, 5), (5,)), ((2, 5), (5, 3)), ((3, 1, 2, 5), (4, 5, 2)), ((5,), (4, 5, 3)),
])  # fmt: skip
def test_matmul(a, b):
    check_lowering(ops.MatMul(), draw_array(*a), draw_array(*b))


def test_matmul_over_symbolic_sizes():
    a, b = draw_array(2, 3, 4), draw_array(4, 3)
    check_lowering(ops.MatMul(), a, b, types=[f32("N", "H", "W"), f32("W", 3)])


@pytest.mark.parametrize("shapes", [[(2, 3, 4, 5), (3, 1, 1)], [(2, 1, 4), (1, 3, 1)], [(4,), (2, 3, 4)], [(1,), (1,)]])
def test_elementwise_broadcasts(shapes):
    check_lowering(ops.Mul(), *(draw_array(*s) for s in shapes))


@pytest.mark.parametrize("op", [op() for op in ops.OP_CLASSES if issubclass(op, Elementwise)], ids=str)
def test_elementwise(op):
    x = np.abs(draw_array(2, 3, 4, 5)) + 0.5  # where every one of them is defined
    check_lowering(op, *[x, x[::-1].copy()][: op.arity], types=[image_type(x)] * op.arity)


@pytest.mark.parametrize(("op", "types", "result"), [
    (ops.Conv2d((2, 2), (1, 1, 1, 1)), ["f32[N,3,H,W]", "f32[8,3,3,3]", "f32[8]"], "f32[N,8,(H+1)//2,(W+1)//2]"),
    (ops.ConvTranspose2d((2, 2), (1, 1, 1, 1)), ["f32[N,3,H,W]", "f32[3,8,4,4]", "f32[8]"], "f32[N,8,2*H,2*W]"),
    (ops.ConvTranspose2d(groups=3, bias=False), ["f32[N,3,H,W]", "f32[3,2,1,1]"], "f32[N,6,H,W]"),
    (ops.LocallyConnected2d(bias=False), ["f32[N,3,8,8]", "f32[4,3,3,3,6,6]"], "f32[N,4,6,6]"),
    (ops.Linear(), ["f32[N,5]", "f32[4,5]", "f32[4]"], "f32[N,4]"),
    (ops.MatMul(), ["f32[N,1,H,W]", "f32[4,W,7]"], "f32[N,4,H,7]"),
])  # fmt: skip
def test_inferred_type(op, types, result):
    assert op.infer(*map(parse_type, types)) == parse_type(result)


X, W, B = "f32[N,4,8,8]", "f32[6,4,3,3]", "f32[6]"


@pytest.mark.parametrize(("op", "types", "message"), [
    (ops.Conv2d(), [X, W], "expected x, weight and bias, got 2 inputs"),
    (ops.Conv2d(), ["f32[N,4,8]", W, B], "expected a float image batch [N,C,H,W] with constant C, got f32[N,4,8]"),
    (ops.Conv2d(), [X, "f32[6,3,3,3]", B], "weight f32[6,3,3,3] wants 3*1 input channels, x f32[N,4,8,8] has 4"),
    (ops.Conv2d(groups=4), [X, "f32[6,1,3,3]", B], "6 output channels do not divide into 4 groups"),
    (ops.Conv2d(), [X, W, "f32[4]"], "bias must be f32[6], got f32[4]"),
    (ops.Conv2d(stride=(0, 1)), [X, W, B], "stride must be 2 integers of at least 1, got (0, 1)"),
    (ops.Conv2d(padding=(0, 0, 0, -1)), [X, W, B], "padding must be 4 integers of at least 0, got (0, 0, 0, -1)"),
    (ops.Conv2d(dilation=(4, 4)), [X, W, B], "a window of 9 does not fit size 8 padded by 0+0"),
    (ops.Conv2d(), [X, W, B, X], "expected no further inputs without an epilogue, got 1"),
    (ops.Conv2d(epilogue="x0 + x1"), [X, W, B, X], "an epilogue operand must be f32[N,6,6,6], got f32[N,4,8,8]"),
    (ops.ConvTranspose2d(), [X, W, B], "weight f32[6,4,3,3] wants 6 input channels, x f32[N,4,8,8] has 4"),
    (ops.ConvTranspose2d(groups=3), [X, "f32[4,6,3,3]", B], "4 input channels do not divide into 3 groups"),
    (ops.ConvTranspose2d((2, 2), output_padding=(1, 2)), [X, "f32[4,6,3,3]", B],
     "output_padding must be less than the stride or dilation, 2, got (1, 2)"),
    (ops.ConvTranspose2d(padding=(5, 0, 5, 0)), [X, "f32[4,6,3,3]", B],
     "padding 5+5 leaves nothing of size 8 under a window of 3"),
    (ops.LocallyConnected2d(), [X, "f32[6,4,3,3,5,6]", "f32[6,5,6]"],
     "weight f32[6,4,3,3,5,6] is for 5x6 positions, on x f32[N,4,8,8] 6x6 windows fit"),
    (ops.LocallyConnected2d(), [X, "f32[6,4,3,3,6,6]", B], "bias must be f32[6,6,6], got f32[6]"),
    (ops.Linear(bias=False), ["f32[N,H*W]", "f32[6,4]"],
     "x f32[N,H*W] has a feature count that depends on the image size, expected a constant: give the input a fixed "
     "size or use fully_convolutional"),
    (ops.Linear(bias=False), ["f32[N,5]", "f32[6,4]"], "weight f32[6,4] wants 4 features, x f32[N,5] has 5"),
    (ops.MatMul(), ["f32[2,3]", "f32[4,2]"], "a f32[2,3] has 3 columns, b f32[4,2] has 4 rows"),
    (ops.MatMul(), ["f32[2,3]"], "expected 2 inputs, got 1"),
])  # fmt: skip
def test_errors(op, types, message):
    with pytest.raises(ShapeError) as caught:
        op.infer(*map(parse_type, types))
    assert str(caught.value) == message


def test_locally_connected_weights_decide_the_image_size():
    """A symbolic image size becomes a condition for the run."""
    with dims.assumptions() as equalities:
        ops.LocallyConnected2d(bias=False).infer(f32("N", 4, "H", 8), f32(6, 4, 3, 3, 5, 6))
    assert [(str(a), b) for a, b in equalities] == [("H-2", 5)]
