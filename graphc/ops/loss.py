"""Losses: functions of whole tensors whose result is one number, of type [] and the dtype of the first input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import InputError, ShapeError
from graphc.ir import Array, Builder, DType, Op, TensorType, Value, dims
from graphc.ops.checks import check_inputs
from graphc.ops.derive import divide, fused, reshape


def check_alike(types: tuple[TensorType, ...]) -> TensorType:
    """The type [] for two float tensors of one type."""
    a, b = check_inputs(types, 2)
    if not a.dtype.is_float or a.dtype != b.dtype or a.rank != b.rank or not all(map(dims.same, a.shape, b.shape)):
        raise ShapeError(f"expected two float tensors of one type, got {a} and {b}")
    return a.with_shape()


@dataclass(frozen=True)
class MeanSquaredError(Op):
    """The mean of (a - b)^2 over all elements. a, b of one type."""

    name: ClassVar[str] = "mean_squared_error"

    def infer(self, *types: TensorType) -> TensorType:
        return check_alike(types)

    def eval(self, *arrays: Array) -> Array:
        a, b = arrays
        return np.asarray(np.mean(np.square(a - b)))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        x, y = inputs
        of_x = fused(b, "((x0 - x1) * (x2 * 2.0))", x, y, divide(b, grads[0], x.type.elements))
        return [of_x, b.apply(ops.Neg(), of_x)]


@dataclass(frozen=True)
class BinaryCrossEntropyWithLogits(Op):
    """The mean over all elements of -t*log(s) - (1-t)*log(1-s), s = sigmoid(x), computed as softplus(x) - x*t.

    Logits x and targets t, from 0 to 1, of one type.
    """

    name: ClassVar[str] = "binary_cross_entropy_with_logits"

    def infer(self, *types: TensorType) -> TensorType:
        return check_alike(types)

    def eval(self, *arrays: Array) -> Array:
        x, t = arrays
        return np.asarray(np.mean(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))) - x * t))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        x, t = inputs
        share = divide(b, grads[0], x.type.elements)
        return [fused(b, "((sigmoid(x0) - x1) * x2)", x, t, share), fused(b, "-(x0 * x1)", x, share)]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """The mean over all samples of -log softmax(logits)[label].

    Logits [N,K,...] with constant K, labels i64[N,...] from 0 to K-1: one sample for each n and each pixel. A label
    outside is an InputError in the reference; native code returns NaN.
    """

    name: ClassVar[str] = "softmax_cross_entropy"

    def infer(self, *types: TensorType) -> TensorType:
        logits, labels = check_inputs(types, 2)
        if logits.rank < 2 or not logits.dtype.is_float or not isinstance(logits.shape[1], int):
            raise ShapeError(f"expected float logits [N,K,...] with constant K, got {logits}")
        expected = TensorType(DType.I64, (logits.shape[0], *logits.shape[2:]))
        if (
            labels.dtype != DType.I64
            or labels.rank != expected.rank
            or not all(map(dims.same, labels.shape, expected.shape))
        ):
            raise ShapeError(f"labels must be {expected} for logits {logits}, got {labels}")
        return logits.with_shape()

    def eval(self, *arrays: Array) -> Array:
        logits, labels = arrays
        if labels.min() < 0 or labels.max() >= logits.shape[1]:
            raise InputError(
                f"{self.name}: labels must lie from 0 to {logits.shape[1] - 1}, got {labels.min()} to {labels.max()}"
            )
        largest = logits.max(axis=1, keepdims=True)
        log_of_sum = np.log(np.exp(logits - largest).sum(axis=1)) + largest[:, 0]
        return np.asarray(np.mean(log_of_sum - np.take_along_axis(logits, labels[:, None], 1)[:, 0]))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        logits, labels = inputs
        rank, classes = logits.type.rank, logits.type.shape[1]
        assert isinstance(classes, int)
        column = reshape(b, labels, (labels.type.shape[0], 1, *labels.type.shape[1:]))
        numbers = b.constant(np.arange(classes).reshape(-1, *[1] * (rank - 2)))
        share = divide(b, grads[0], labels.type.elements)
        probabilities = b.apply(ops.Softmax(1), logits)
        one_less = "(select(eq(x1, x2), (x0 - 1.0), x0) * x3)"
        return [fused(b, one_less, probabilities, column, numbers, share), None]


@dataclass(frozen=True)
class L2Penalty(Op):
    """weight/2 * the sum of x^2 over all elements."""

    name: ClassVar[str] = "l2_penalty"
    weight: float = 1.0

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        if not x.dtype.is_float:
            raise ShapeError(f"expected float elements, got {x}")
        return x.with_shape()

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        return np.asarray(np.square(x).sum() * self.weight / 2).astype(x.dtype)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [fused(b, f"((x0 * x1) * {float(self.weight)})", inputs[0], grads[0])]
