"""Reductions over any axes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DType, Op, TensorType
from graphc.ops.checks import check_inputs
from graphc.ops.shape import check_axis


@dataclass(frozen=True)
class ReduceOp(Op):
    """Base of the reductions: over `axes` (None: all; negative ones count from the end), kept as dims of 1 or dropped.

    The result has x's dtype.
    """

    axes: tuple[int, ...] | None = None
    keepdims: bool = True

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        if x.dtype == DType.BOOL:
            raise ShapeError(f"expected numbers, got {x}")
        reduced = self.reduced(x)
        if self.keepdims:
            return x.with_shape(*(1 if i in reduced else d for i, d in enumerate(x.shape)))
        return x.with_shape(*(d for i, d in enumerate(x.shape) if i not in reduced))

    def reduced(self, x: TensorType) -> set[int]:
        """The axes that are reduced, counted from the front."""
        if self.axes is None:
            return set(range(x.rank))
        found = {check_axis(a, x) for a in self.axes}
        if len(found) != len(self.axes):
            raise ShapeError(f"axes must differ, got {self.axes}")
        return found


@dataclass(frozen=True)
class Sum(ReduceOp):
    """The sum over `axes`."""

    name: ClassVar[str] = "sum"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.sum(arrays[0], axis=self.axes, keepdims=self.keepdims, dtype=arrays[0].dtype))


@dataclass(frozen=True)
class Mean(ReduceOp):
    """The mean over `axes`, of floats."""

    name: ClassVar[str] = "mean"

    def infer(self, *types: TensorType) -> TensorType:
        result = super().infer(*types)
        if not result.dtype.is_float:
            raise ShapeError(f"expected float elements, got {types[0]}")
        return result

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.mean(arrays[0], axis=self.axes, keepdims=self.keepdims))


@dataclass(frozen=True)
class ReduceMax(ReduceOp):
    """The maximum over `axes`; NaN where there is one."""

    name: ClassVar[str] = "reduce_max"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.max(arrays[0], axis=self.axes, keepdims=self.keepdims))


@dataclass(frozen=True)
class ReduceMin(ReduceOp):
    """The minimum over `axes`; NaN where there is one."""

    name: ClassVar[str] = "reduce_min"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.min(arrays[0], axis=self.axes, keepdims=self.keepdims))
