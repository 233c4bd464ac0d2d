"""Elementwise layers. Operands broadcast as in NumPy; a Python number stands for a constant of the other's dtype."""

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Op, Value
from graphc.nn.arguments import apply, builder_of

Operand = Value | float


def identity(x: Value, name: str | None = None) -> Value:
    """x."""
    return apply(ops.Identity(), x, name=name)


def relu(x: Value, name: str | None = None) -> Value:
    """max(x, 0)."""
    return apply(ops.Relu(), x, name=name)


def leaky_relu(x: Value, alpha: float = 0.01, name: str | None = None) -> Value:
    """x where x >= 0, alpha*x elsewhere."""
    return apply(ops.LeakyRelu(alpha), x, name=name)


def elu(x: Value, alpha: float = 1.0, name: str | None = None) -> Value:
    """x where x >= 0, alpha*(exp(x) - 1) elsewhere."""
    return apply(ops.Elu(alpha), x, name=name)


def sigmoid(x: Value, name: str | None = None) -> Value:
    """1 / (1 + exp(-x))."""
    return apply(ops.Sigmoid(), x, name=name)


def tanh(x: Value, name: str | None = None) -> Value:
    """The hyperbolic tangent."""
    return apply(ops.Tanh(), x, name=name)


def softplus(x: Value, name: str | None = None) -> Value:
    """log(1 + exp(x))."""
    return apply(ops.Softplus(), x, name=name)


def hard_threshold(x: Value, threshold: float = 0.0, name: str | None = None) -> Value:
    """1 where x > threshold, 0 elsewhere."""
    return apply(ops.HardThreshold(threshold), x, name=name)


def clip(x: Value, minimum: float = -float("inf"), maximum: float = float("inf"), name: str | None = None) -> Value:
    """min(max(x, minimum), maximum)."""
    return apply(ops.Clip(minimum, maximum), x, name=name)


def exp(x: Value, name: str | None = None) -> Value:
    """e to the power of x."""
    return apply(ops.Exp(), x, name=name)


def log(x: Value, name: str | None = None) -> Value:
    """The natural logarithm."""
    return apply(ops.Log(), x, name=name)


def sqrt(x: Value, name: str | None = None) -> Value:
    """The square root."""
    return apply(ops.Sqrt(), x, name=name)


def neg(x: Value, name: str | None = None) -> Value:
    """-x."""
    return apply(ops.Neg(), x, name=name)


def abs(x: Value, name: str | None = None) -> Value:
    """|x|."""
    return apply(ops.Abs(), x, name=name)


def add(a: Operand, b: Operand, name: str | None = None) -> Value:
    """a + b."""
    return _apply_binary(ops.Add(), a, b, name)


def sub(a: Operand, b: Operand, name: str | None = None) -> Value:
    """a - b."""
    return _apply_binary(ops.Sub(), a, b, name)


def mul(a: Operand, b: Operand, name: str | None = None) -> Value:
    """a * b."""
    return _apply_binary(ops.Mul(), a, b, name)


def div(a: Operand, b: Operand, name: str | None = None) -> Value:
    """a / b."""
    return _apply_binary(ops.Div(), a, b, name)


def pow(a: Operand, b: Operand, name: str | None = None) -> Value:
    """a to the power of b."""
    return _apply_binary(ops.Pow(), a, b, name)


def maximum(a: Operand, b: Operand, name: str | None = None) -> Value:
    """The larger of a and b; NaN where either is NaN."""
    return _apply_binary(ops.Maximum(), a, b, name)


def minimum(a: Operand, b: Operand, name: str | None = None) -> Value:
    """The smaller of a and b; NaN where either is NaN."""
    return _apply_binary(ops.Minimum(), a, b, name)


def dropout(x: Value, p: float = 0.5, name: str | None = None) -> Value:
    """x when the network is used; training sets a share `p` of the elements to 0."""
    return apply(ops.Dropout(p), x, name=name)


def _apply_binary(op: Op, a: Operand, b: Operand, name: str | None) -> Value:
    value = a if isinstance(a, Value) else b
    if not isinstance(value, Value):
        raise ShapeError(f"{op.name}: expected at least one value of the network, got {a} and {b}")
    builder, dtype = builder_of(value), value.type.dtype.numpy
    operands = [v if isinstance(v, Value) else builder.constant(np.asarray(v, dtype)) for v in (a, b)]
    return builder.apply(op, *operands, name=name)
