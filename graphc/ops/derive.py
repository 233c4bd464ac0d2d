"""What gradient rules share: zeros, sums over broadcast dims, division by sizes, transposed linear maps."""

import numpy as np

from graphc import ops
from graphc.ir import Builder, DimLike, DType, TensorType, Value


def add(b: Builder, x: Value, y: Value) -> Value:
    """x + y."""
    return b.apply(ops.Add(), x, y)


def fused(b: Builder, expr: str, *operands: Value) -> Value:
    """A scalar expression over x0, x1, ... = operands."""
    return b.apply(ops.Fused(expr), *operands)


def full(b: Builder, value: float, type: TensorType) -> Value:
    """A tensor of equal elements."""
    one = b.constant(np.asarray(value, type.dtype.numpy))
    return b.apply(ops.Expand(type.shape), one) if type.rank else one


def reshape(b: Builder, x: Value, shape: tuple[DimLike, ...]) -> Value:
    """x under another shape."""
    return x if x.type.shape == shape else b.apply(ops.Reshape(shape), x)


def cast(b: Builder, x: Value, dtype: DType) -> Value:
    """x in another dtype."""
    return fused(b, f"to_{dtype.value}(x0)", x)


def sum_to(b: Builder, g: Value, type: TensorType) -> Value:
    """g summed over the dims along which a tensor of this type is broadcast to g's shape."""
    new = g.type.rank - type.rank
    stretched = [new + i for i, d in enumerate(type.shape) if d == 1 and g.type.shape[new + i] != 1]
    if axes := (*range(new), *stretched):
        g = b.apply(ops.Sum(axes), g)
    return b.apply(ops.Reshape(type.shape), g) if new else g


def divide(b: Builder, g: Value, count: DimLike) -> Value:
    """g / count."""
    if isinstance(count, int):
        return g if count == 1 else fused(b, f"(x0 / {float(count)})", g)
    return fused(b, "(x0 / x1)", g, cast(b, b.apply(ops.Extent(count)), g.type.dtype))


def share_among_equals(b: Builder, x: Value, extreme: Value, g: Value, axes: tuple[int, ...] | None) -> Value:
    """The gradient of x, given that of its maximum or minimum over `axes`: equal elements get equal shares of it.

    `extreme` and g have dims of 1 in the place of the axes.
    """
    winners = b.apply(ops.Sum(axes), fused(b, "select(eq(x0, x1), 1, 0)", x, extreme))
    share = fused(b, "(x0 / x1)", g, cast(b, winners, g.type.dtype))
    return fused(b, "select(eq(x0, x1), x2, 0.0)", x, extreme, share)


def identity_matrix(b: Builder, size: DimLike, dtype: DType) -> Value:
    """[size,size]."""
    if isinstance(size, int):
        return b.constant(np.eye(size, dtype=dtype.numpy))
    columns = b.apply(ops.Iota((size,)))
    return fused(b, f"to_{dtype.value}(eq(x0, x1))", reshape(b, columns, (size, 1)), columns)


def transpose_map(b: Builder, matrix: Value, g: Value, axis: int) -> Value:
    """The gradient of x, whose lines along `axis` became those of y = x * matrix, matrix [size of x, size of y]."""
    rank = g.type.rank
    swapped = tuple(rank - 1 if i == axis else axis if i == rank - 1 else i for i in range(rank))
    back = b.apply(ops.Transpose((1, 0)), matrix)
    if axis == rank - 1:
        return b.apply(ops.MatMul(), g, back)
    lines = b.apply(ops.MatMul(), b.apply(ops.Transpose(swapped), g), back)
    return b.apply(ops.Transpose(swapped), lines)
