"""Ops that go along one axis in order: the k largest or smallest elements, running sums."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DType, Op, TensorType, dims
from graphc.ops.checks import check_inputs
from graphc.ops.shape import check_axis


@dataclass(frozen=True)
class TopK(Op):
    """The `k` largest (else smallest) elements along `axis`, the first of them first, and where they were, as i64.

    Of equal elements the one with the lower index comes first. NaN counts as larger than everything, as in NumPy.
    """

    name: ClassVar[str] = "top_k"
    k: int
    axis: int = -1
    largest: bool = True

    def infer(self, *types: TensorType) -> tuple[TensorType, TensorType]:
        (x,) = check_inputs(types, 1)
        axis = check_axis(self.axis, x)
        d = x.shape[axis]
        if x.dtype == DType.BOOL or x.dtype.is_half:
            raise ShapeError(f"expected numbers, got {x}")
        if self.k < 1 or not dims.same(dims.maximum(d, self.k), d):
            raise ShapeError(f"k must lie from 1 to dim {axis} of x {x}, got {self.k}")
        shape = *x.shape[:axis], self.k, *x.shape[axis + 1 :]
        return x.with_shape(*shape), TensorType(DType.I64, shape)

    def eval(self, *arrays: Array) -> tuple[Array, Array]:
        (x,) = arrays
        if self.largest:  # sorted backwards, so that of equal elements the last one is the one with the lowest index
            order = np.flip(x.shape[self.axis] - 1 - np.argsort(np.flip(x, self.axis), self.axis, "stable"), self.axis)
        else:
            order = np.argsort(x, self.axis, "stable")
        chosen = np.take(order, np.arange(self.k), self.axis)
        return np.take_along_axis(x, chosen, self.axis), chosen


@dataclass(frozen=True)
class CumSum(Op):
    """y[i] = x[0] + ... + x[i] along `axis`; without x[i] if `exclusive`, and from the end if `reverse`."""

    name: ClassVar[str] = "cum_sum"
    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        check_axis(self.axis, x)
        if x.dtype == DType.BOOL or x.dtype.is_half:
            raise ShapeError(f"expected numbers, got {x}")
        return x

    def eval(self, *arrays: Array) -> Array:
        x = np.flip(arrays[0], self.axis) if self.reverse else arrays[0]
        y = np.cumsum(x, self.axis, dtype=x.dtype)
        if self.exclusive:
            rest = np.take(y, np.arange(x.shape[self.axis] - 1), self.axis)
            y = np.concatenate([np.zeros_like(np.take(x, [0], self.axis)), rest], self.axis)
        return np.asarray(np.flip(y, self.axis) if self.reverse else y)
