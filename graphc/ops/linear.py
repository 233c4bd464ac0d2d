"""Products of matrices: the fully connected layer, and NumPy's matmul."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, Op, TensorType, Value, dims
from graphc.ops.checks import check_inputs
from graphc.ops.derive import reshape, sum_to
from graphc.ops.elementwise import broadcast_shapes
from graphc.ops.epilogue import apply_epilogue, check_epilogue
from graphc.ops.weighted import WeightedOp


@dataclass(frozen=True)
class Linear(WeightedOp):
    """y[...,k] = b[k] + sum over c of x[...,c] * w[k,c].

    x [...,C], w [K,C], b [K] (present if `bias`), y [...,K]; all of one float dtype. `epilogue` as in conv2d.
    """

    name: ClassVar[str] = "linear"
    channels: ClassVar[int] = -1
    bias: bool = True
    epilogue: str | None = None

    def infer(self, *types: TensorType) -> TensorType:
        self.check_count(types)
        x, w = types[:2]
        if x.rank < 1 or not x.dtype.is_float:
            raise ShapeError(f"expected float features [...,C], got {x}")
        if not isinstance(x.shape[-1], int):
            raise ShapeError(
                f"x {x} has a feature count that depends on the image size, expected a constant: give the "
                f"input a fixed size or use fully_convolutional"
            )
        if w.rank != 2 or w.dtype != x.dtype:
            raise ShapeError(f"weight must be {x.dtype.value}[K,C], got {w}")
        k, c = w.static_shape()
        if x.shape[-1] != c:
            raise ShapeError(f"weight {w} wants {c} features, x {x} has {x.shape[-1]}")
        if self.bias and types[2] != x.with_shape(k):
            raise ShapeError(f"bias must be {x.with_shape(k)}, got {types[2]}")
        return check_epilogue(self.epilogue, x.with_shape(*x.shape[:-1], k), types[2 + self.bias :])

    def eval(self, *arrays: Array) -> Array:
        x, w = arrays[:2]
        y = x @ w.T
        if self.bias:
            y = y + arrays[2]
        return apply_epilogue(self.epilogue, np.asarray(y), arrays[2 + self.bias :])

    def pull_back(self, b: Builder, x: Value, w: Value, g: Value) -> tuple[Value, Value]:
        k, c = w.type.static_shape()
        rows = dims.product(g.type.shape[:-1])
        g_rows, x_rows = reshape(b, g, (rows, k)), reshape(b, x, (rows, c))
        of_w = b.apply(ops.MatMul(), b.apply(ops.Transpose((1, 0)), g_rows), x_rows)
        return b.apply(ops.MatMul(), g, w), of_w


@dataclass(frozen=True)
class MatMul(Op):
    """y[...,i,k] = sum over j of a[...,i,j] * b[...,j,k], by NumPy's rules.

    The leading dims broadcast. An operand with one dim is a row (as `a`) or a column (as `b`), and y lacks that dim.
    """

    name: ClassVar[str] = "matmul"

    def infer(self, *types: TensorType) -> TensorType:
        a, b = check_inputs(types, 2)
        if a.rank < 1 or b.rank < 1 or a.dtype != b.dtype or not a.dtype.is_float:
            raise ShapeError(f"expected two matrices of one float dtype, got {a} and {b}")
        inner = b.shape[-2 if b.rank > 1 else 0]
        if not dims.same(a.shape[-1], inner):
            raise ShapeError(f"a {a} has {a.shape[-1]} columns, b {b} has {inner} rows")
        columns = b.shape[-1:] if b.rank > 1 else ()
        return a.with_shape(*broadcast_shapes([a.shape[:-2], b.shape[:-2]]), *a.shape[-2:-1], *columns)

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.matmul(*arrays))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        left, right = inputs
        row, column = left.type.rank == 1, right.type.rank == 1
        a = reshape(b, left, (1, *left.type.shape)) if row else left
        c = reshape(b, right, (*right.type.shape, 1)) if column else right
        matrix = [*([1] if row else a.type.shape[-2:-1]), *([1] if column else c.type.shape[-1:])]
        g = reshape(b, grads[0], (*outputs[0].type.shape[: len(outputs[0].type.shape) - 2 + row + column], *matrix))
        of_a, of_c = b.apply(ops.MatMul(), g, _turn(b, c)), b.apply(ops.MatMul(), _turn(b, a), g)
        return [reshape(b, sum_to(b, of_a, a.type), left.type.shape),
                reshape(b, sum_to(b, of_c, c.type), right.type.shape)]  # fmt: skip


def _turn(b: Builder, x: Value) -> Value:
    """x with its last two dims swapped."""
    rank = x.type.rank
    return b.apply(ops.Transpose((*range(rank - 2), rank - 1, rank - 2)), x)
