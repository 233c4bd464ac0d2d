"""Softmax and its logarithm, computed with the maximum subtracted so that no exponential overflows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, Op, TensorType, Value
from graphc.ops.checks import check_inputs
from graphc.ops.derive import fused


@dataclass(frozen=True)
class Softmax(Op):
    """y = exp(x) / sum of exp(x) along `axis`. Any float x -> y of its shape; a negative axis counts from the end."""

    name: ClassVar[str] = "softmax"
    axis: int = 1

    def infer(self, *types: TensorType) -> TensorType:
        return _check(types, self.axis)

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        e = np.exp(x - x.max(axis=self.axis, keepdims=True))
        return np.asarray(e / e.sum(axis=self.axis, keepdims=True))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        (y,), (g,) = outputs, grads
        total = b.apply(ops.Sum((self.axis,)), b.apply(ops.Mul(), g, y))
        return [fused(b, "((x0 - x1) * x2)", g, total, y)]


@dataclass(frozen=True)
class LogSoftmax(Op):
    """y = x - log(sum of exp(x) along `axis`). Any float x -> y of its shape; a negative axis counts from the end."""

    name: ClassVar[str] = "log_softmax"
    axis: int = 1

    def infer(self, *types: TensorType) -> TensorType:
        return _check(types, self.axis)

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        shifted = x - x.max(axis=self.axis, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True)))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        (y,), (g,) = outputs, grads
        return [fused(b, "(x0 - (x1 * exp(x2)))", g, b.apply(ops.Sum((self.axis,)), g), y)]


def _check(types: tuple[TensorType, ...], axis: int) -> TensorType:
    (x,) = check_inputs(types, 1)
    if not x.dtype.is_float:
        raise ShapeError(f"expected float elements, got {x}")
    if not -x.rank <= axis < x.rank:
        raise ShapeError(f"axis must lie from {-x.rank} to {x.rank - 1} for x {x}, got {axis}")
    return x
