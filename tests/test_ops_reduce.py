"""Reductions and losses: values, refusals, and loop nests that do what the reference does."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nest_interpreter import run_lowering

from graphc.codegen.layout import Layout
from graphc.codegen.lowering import loss as loss_nests
from graphc.codegen.lowering import reduce as nests
from graphc.codegen.nest import Nest
from graphc.errors import InputError, ShapeError
from graphc.ir import Array, DType, Op, TensorType, f32, parse_type
from graphc.ops.loss import BinaryCrossEntropyWithLogits, L2Penalty, MeanSquaredError, SoftmaxCrossEntropy
from graphc.ops.reduce import ArgMax, ArgMin, ArgReduceOp, Mean, Prod, ReduceMax, ReduceMin, ReduceOp, Sum

Lowering = Callable[..., Iterator[Nest]]
REDUCTIONS = (Sum, Mean, ReduceMax, ReduceMin)
NUMPY: dict[type[ReduceOp], Callable[..., Array]] = {
    Sum: np.sum,
    Mean: np.mean,
    Prod: np.prod,
    ReduceMax: np.max,
    ReduceMin: np.min,
}
sides = st.integers(1, 5)
all_axes = st.none() | st.lists(st.integers(0, 3), unique=True).map(tuple)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def check(op: Op, lowering: Lowering, *inputs: tuple[TensorType, Array], **sizes: int) -> Array:
    """The result by the reference, once its type is what `infer` says and the loop nests agree within rounding."""
    types, arrays = zip(*inputs, strict=True)
    y, inferred = op.eval(*arrays), op.infer(*types)
    assert isinstance(y, np.ndarray)
    assert isinstance(inferred, TensorType)
    assert inferred.substitute(sizes) == TensorType(DType.of(y.dtype), y.shape)
    (found,) = run_lowering(op, lowering, *arrays, types=types, sizes=sizes)
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-5)
    return y


def blocked(lowering: Lowering) -> Lowering:
    """The lowering for buffers in blocks of channels, which have no views; the interpreter looks at no layout."""
    return lambda op, *buffers: lowering(op, *(replace(b, layout=Layout(8)) if b.type.rank > 1 else b for b in buffers))


@pytest.mark.parametrize("make", NUMPY)
@given(axes=all_axes, keepdims=st.booleans(), h=sides, w=sides)
def test_reductions(make: type[ReduceOp], axes: tuple[int, ...] | None, keepdims: bool, h: int, w: int) -> None:
    x = draw(2, 3, h, w)
    for lowering in (nests.lower_reduce, blocked(nests.lower_reduce)):
        y = check(make(axes, keepdims), lowering, (f32("N", 3, "H", "W"), x), N=2, H=h, W=w)
        np.testing.assert_allclose(y, NUMPY[make](x, axis=axes, keepdims=keepdims), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", REDUCTIONS)
@pytest.mark.parametrize("size", [1, nests.BLOCK, nests.BLOCK + 1, 3 * nests.BLOCK - 1])
def test_long_reductions_run_in_blocks(make: type[ReduceOp], size: int) -> None:
    x = draw(size) + 3
    x = -x if make is ReduceMax else x  # what fills the last block up must not win
    check(make(), nests.lower_reduce, (f32(size), x))
    check(make(keepdims=False), nests.lower_reduce, (f32("N"), x), N=size)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
@pytest.mark.parametrize("make", [Sum, ReduceMax, ReduceMin])
def test_reductions_keep_the_dtype(make: type[ReduceOp], dtype: type[np.generic]) -> None:
    x = (draw(5000) * 100 - 1000).astype(dtype)
    y = check(make((-1,)), nests.lower_reduce, (TensorType(DType.of(dtype), (5000,)), x))
    assert y.dtype == dtype


@pytest.mark.parametrize("make", [ArgMax, ArgMin])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_indices_of_extremes(make: type[ArgReduceOp], last: bool, axis: int) -> None:
    """Of equal elements the first or the last; of NaNs, which are both extremes, too."""
    x = np.random.default_rng(0).integers(0, 3, (4, 3, 7)).astype(np.float32)
    x[2, 1, 3] = x[2, 1, 5] = np.nan
    for keepdims in (False, True):
        op = make(axis, keepdims, last)
        y = check(op, nests.lower_arg_extreme, (f32("N", 3, "W"), x), N=4, W=7)
        best = np.take_along_axis(x, y if keepdims else np.expand_dims(y, axis), axis)
        np.testing.assert_array_equal(best, (np.max if make is ArgMax else np.min)(x, axis=axis, keepdims=True))
    assert make(-1, False, last).eval(x)[2, 1] == (5 if last else 3)


def test_a_long_product_runs_in_blocks() -> None:
    x = np.exp(draw(3 * nests.BLOCK - 1) / 100).astype(np.float32)
    check(Prod(), nests.lower_reduce, (f32("N"), x), N=len(x))


@pytest.mark.parametrize("make", REDUCTIONS)
def test_a_nan_is_passed_on(make: type[ReduceOp]) -> None:
    x = draw(2, 3, 4, 5)
    x[1, 1, 2, 3] = np.nan
    y = check(make((0, 2)), nests.lower_reduce, (f32("N", 3, "H", "W"), x), N=2, H=4, W=5)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 1, 0, 3]]


@pytest.mark.parametrize(
    ("op", "type", "message"),
    [
        (Sum((0, -4)), "f32[N,3,H,W]", r"axes must differ, got \(0, -4\)"),
        (Sum((4,)), "f32[N,3,H,W]", "axis must lie from -4 to 3 for x f32.*, got 4"),
        (ArgMax(2), "f32[N,3]", "axis must lie from -2 to 1 for x f32.*, got 2"),
        (ArgMin(0), "bool[N]", r"expected numbers, got bool\[N\]"),
        (Mean(), "i64[N]", r"expected float elements, got i64\[N\]"),
        (ReduceMax(), "bool[N]", r"expected numbers, got bool\[N\]"),
        (L2Penalty(), "i64[N]", r"expected float elements, got i64\[N\]"),
    ],
)
def test_refusals(op: Op, type: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(parse_type(type))


PAIR_LOSSES: dict[type[Op], tuple[Lowering, Callable[[Array, Array], Array]]] = {
    MeanSquaredError: (loss_nests.lower_mean_squared_error, lambda a, b: (a - b) ** 2),
    BinaryCrossEntropyWithLogits: (
        loss_nests.lower_binary_cross_entropy_with_logits,
        lambda x, t: -t * np.log(1 / (1 + np.exp(-x))) - (1 - t) * np.log(1 - 1 / (1 + np.exp(-x))),
    ),
}


@pytest.mark.parametrize("make", PAIR_LOSSES)
@pytest.mark.parametrize("width", [1, 4, 900])
def test_losses_of_pairs(make: type[Op], width: int) -> None:
    a, b = draw(2, 3, width), np.abs(np.tanh(draw(2, 3, width, seed=1)))
    lowering, formula = PAIR_LOSSES[make]
    for lower in (lowering, blocked(lowering)):
        y = check(make(), lower, (f32("N", 3, "W"), a), (f32("N", 3, "W"), b), N=2, W=width)
        assert y == pytest.approx(formula(a.astype(np.float64), b.astype(np.float64)).mean(), rel=1e-5)


def test_binary_cross_entropy_of_large_logits_is_finite() -> None:
    x, t = np.array([200, -200, 200], np.float32), np.array([1, 0, 0], np.float32)
    assert BinaryCrossEntropyWithLogits().eval(x, t) == pytest.approx(200 / 3)


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2), st.integers(1, 4))
def test_softmax_cross_entropy(n: int, classes: int, spatial: int, side: int) -> None:
    x = draw(n, classes, *[side] * spatial) * 30
    labels = np.random.default_rng(1).integers(0, classes, (n, *[side] * spatial))
    logits_type = f32("N", classes, *["H"] * spatial)
    labels_type = TensorType(DType.I64, (logits_type.shape[0], *logits_type.shape[2:]))
    for lower in (loss_nests.lower_softmax_cross_entropy, blocked(loss_nests.lower_softmax_cross_entropy)):
        y = check(SoftmaxCrossEntropy(), lower, (logits_type, x), (labels_type, labels), N=n, H=side)
    e = np.exp(x.astype(np.float64))
    chosen = np.take_along_axis(e / e.sum(axis=1, keepdims=True), labels[:, None], 1)
    assert y == pytest.approx(-np.log(chosen).mean(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_outside_reads_nothing(label: int) -> None:
    x, labels = draw(2, 3), np.array([1, label])
    with pytest.raises(InputError, match=f"labels must lie from 0 to 2, got {min(1, label)} to {max(1, label)}"):
        SoftmaxCrossEntropy().eval(x, labels)
    (y,) = run_lowering(SoftmaxCrossEntropy(), loss_nests.lower_softmax_cross_entropy, x, labels)
    assert np.isnan(y)


@pytest.mark.parametrize("size", [3, 5000])
def test_l2_penalty(size: int) -> None:
    x = draw(2, size)
    y = check(L2Penalty(0.3), loss_nests.lower_l2_penalty, (f32("N", size), x), N=2)
    assert y == pytest.approx(0.15 * (x.astype(np.float64) ** 2).sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("op", "types", "message"),
    [
        (MeanSquaredError(), ("f32[N,3]", "f32[N,4]"), r"one type, got f32\[N,3\] and f32\[N,4\]"),
        (MeanSquaredError(), ("f32[N,3]", "f64[N,3]"), "two float tensors of one type"),
        (BinaryCrossEntropyWithLogits(), ("i64[N]", "i64[N]"), "two float tensors of one type"),
        (SoftmaxCrossEntropy(), ("f32[N,H]", "i64[N]"), r"logits \[N,K,...\] with constant K, got f32\[N,H\]"),
        (SoftmaxCrossEntropy(), ("f32[N,3]", "i32[N]"), r"labels must be i64\[N\] for logits f32\[N,3\], got i32\[N\]"),
        (SoftmaxCrossEntropy(), ("f32[N,3,H]", "i64[N]"), r"labels must be i64\[N,H\] for"),
    ],
)
def test_loss_refusals(op: Op, types: tuple[str, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.infer(*map(parse_type, types))
