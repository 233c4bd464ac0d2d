"""Integers that depend on sizes alone: a dim as a number, and the place of each element."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Array, DimLike, DType, Op, TensorType, dims
from graphc.ops.checks import check_inputs


@dataclass(frozen=True)
class Extent(Op):
    """The value of a dim in a run. No input -> y i64[]."""

    name: ClassVar[str] = "extent"
    dim: DimLike

    def infer(self, *types: TensorType) -> TensorType:
        check_inputs(types, 0)
        return TensorType(DType.I64, ())

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(dims.evaluate(self.dim, {}), np.int64)


@dataclass(frozen=True)
class Iota(Op):
    """The row-major position of each element: 0, 1, 2, ... No input -> y i64[shape]."""

    name: ClassVar[str] = "iota"
    shape: tuple[DimLike, ...]

    def infer(self, *types: TensorType) -> TensorType:
        check_inputs(types, 0)
        if any(isinstance(d, int) and d < 1 for d in self.shape):
            raise ShapeError(f"shape must hold positive dims, got {self.shape}")
        return TensorType(DType.I64, self.shape)

    def eval(self, *arrays: Array) -> Array:
        shape = tuple(dims.evaluate(d, {}) for d in self.shape)
        return np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
