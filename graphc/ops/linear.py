"""Products of matrices: the fully connected layer, and NumPy's matmul."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
        return b.apply(MatMul(), g, w), b.apply(MatMul(turn_a=True), g_rows, x_rows)


@dataclass(frozen=True)
class MatMul(Op):
    """y[...,i,k] = sum over j of a[...,i,j] * b[...,j,k], by NumPy's rules.

    The leading dims broadcast. An operand with one dim is a row (as `a`) or a column (as `b`), and y lacks that dim.
    `turn_a` and `turn_b` say that the last two dims of an operand, which has two at least, change places first.
    """

    name: ClassVar[str] = "matmul"
    turn_a: bool = False
    turn_b: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        a, b = check_inputs(types, 2)
        if a.rank < 1 + self.turn_a or b.rank < 1 + self.turn_b or a.dtype != b.dtype or not a.dtype.is_float:
            raise ShapeError(f"expected two matrices of one float dtype, got {a} and {b}")
        a, b = _turned(a, self.turn_a), _turned(b, self.turn_b)
        inner = b.shape[-2 if b.rank > 1 else 0]
        if not dims.same(a.shape[-1], inner):
            raise ShapeError(f"a {a} has {a.shape[-1]} columns, b {b} has {inner} rows")
        columns = b.shape[-1:] if b.rank > 1 else ()
        return a.with_shape(*broadcast_shapes([a.shape[:-2], b.shape[:-2]]), *a.shape[-2:-1], *columns)

    def eval(self, *arrays: Array) -> Array:
        turned = zip(arrays, (self.turn_a, self.turn_b), strict=True)
        return np.asarray(np.matmul(*(x.swapaxes(-1, -2) if turn else x for x, turn in turned)))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        left, right = inputs
        row, column = left.type.rank == 1, right.type.rank == 1
        a = reshape(b, left, (1, *left.type.shape)) if row else left
        c = reshape(b, right, (*right.type.shape, 1)) if column else right
        rows, columns = _turned(a.type, self.turn_a).shape[-2], _turned(c.type, self.turn_b).shape[-1]
        shape = outputs[0].type.shape
        g = reshape(b, grads[0], (*shape[: len(shape) - 2 + row + column], rows, columns))
        of_a = _multiply(b, g, c, False, not self.turn_b) if not self.turn_a else _multiply(b, c, g, self.turn_b, True)
        of_c = _multiply(b, a, g, not self.turn_a, False) if not self.turn_b else _multiply(b, g, a, True, self.turn_a)
        return [reshape(b, sum_to(b, of_a, a.type), left.type.shape),
                reshape(b, sum_to(b, of_c, c.type), right.type.shape)]  # fmt: skip


def _multiply(b: Builder, x: Value, y: Value, turn_x: bool, turn_y: bool) -> Value:
    return b.apply(MatMul(turn_x, turn_y), x, y)


def _turned(x: TensorType, turn: bool) -> TensorType:
    """The type with its last two dims swapped, if `turn`."""
    return x.with_shape(*x.shape[:-2], x.shape[-1], x.shape[-2]) if turn else x
