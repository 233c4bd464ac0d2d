"""Reductions over any axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc import ops
from graphc.errors import ShapeError
from graphc.ir import Array, Builder, DimLike, DType, Op, TensorType, Value, dims
from graphc.ops.checks import check_inputs
from graphc.ops.derive import divide, fused, reshape, share_among_equals
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
        if x.dtype == DType.BOOL or x.dtype.is_half:
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

    def kept(self, x: TensorType) -> tuple[DimLike, ...]:
        """The shape of the result with dims of 1 in the place of those that are reduced."""
        return tuple(1 if i in self.reduced(x) else d for i, d in enumerate(x.shape))


@dataclass(frozen=True)
class ReduceExtreme(ReduceOp):
    """Base of maximum and minimum: elements that are equal to it have equal shares of its gradient."""

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        (x,), kept = inputs, self.kept(inputs[0].type)
        extreme, g = reshape(b, outputs[0], kept), reshape(b, grads[0], kept)
        return [share_among_equals(b, x, extreme, g, self.axes)]


@dataclass(frozen=True)
class Sum(ReduceOp):
    """The sum over `axes` of x or, with `expr`, of that scalar expression over operands x0, x1, ... that broadcast.

    The pass fuse_sums makes expressions.
    """

    name: ClassVar[str] = "sum"
    takes_empty: ClassVar[bool] = True
    expr: str | None = None

    def infer(self, *types: TensorType) -> TensorType:
        return super().infer(*([ops.Fused(self.expr).infer(*types)] if self.expr else types))

    def eval(self, *arrays: Array) -> Array:
        x = ops.Fused(self.expr).eval(*arrays) if self.expr else arrays[0]
        return np.asarray(np.sum(x, axis=self.axes, keepdims=self.keepdims, dtype=x.dtype))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        terms = ops.Fused(self.expr) if self.expr else ops.Identity()
        type = terms.infer(*(v.type for v in inputs))
        g = b.apply(ops.Expand(type.shape), reshape(b, grads[0], self.kept(type)))
        return terms.vjp(b, inputs, [b.apply(terms, *inputs)], [g]) if self.expr else [g]


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

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        (x,) = inputs
        count = dims.product([x.type.shape[i] for i in self.reduced(x.type)])
        return [b.apply(ops.Expand(x.type.shape), divide(b, reshape(b, grads[0], self.kept(x.type)), count))]


@dataclass(frozen=True)
class Prod(ReduceOp):
    """The product over `axes`."""

    name: ClassVar[str] = "prod"
    takes_empty: ClassVar[bool] = True

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.prod(arrays[0], axis=self.axes, keepdims=self.keepdims, dtype=arrays[0].dtype))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """The product of the others: that of all that are not 0, by x; where one is 0, the others have the slope 0."""
        (x,), kept = inputs, self.kept(inputs[0].type)
        zeros = b.apply(ops.Sum(self.axes), fused(b, "select(eq(x0, 0.0), 1, 0)", x))
        rest = b.apply(ops.Prod(self.axes), fused(b, "select(eq(x0, 0.0), 1.0, x0)", x))
        scaled = b.apply(ops.Mul(), reshape(b, grads[0], kept), rest)
        of_zero = fused(b, "select(eq(x1, 1), x0, 0.0)", scaled, zeros)
        of_other = fused(b, "select(eq(x1, 0), x0, 0.0)", scaled, zeros)
        return [fused(b, "select(eq(x0, 0.0), x1, (x2 / x0))", x, of_zero, of_other)]


@dataclass(frozen=True)
class ReduceMax(ReduceExtreme):
    """The maximum over `axes`; NaN where there is one, and the least number where there is no element."""

    name: ClassVar[str] = "reduce_max"
    takes_empty: ClassVar[bool] = True

    def eval(self, *arrays: Array) -> Array:
        least = DType.of(arrays[0].dtype).limits[0]
        return np.asarray(np.max(arrays[0], axis=self.axes, keepdims=self.keepdims, initial=least))


@dataclass(frozen=True)
class ReduceMin(ReduceExtreme):
    """The minimum over `axes`; NaN where there is one, and the greatest number where there is no element."""

    name: ClassVar[str] = "reduce_min"
    takes_empty: ClassVar[bool] = True

    def eval(self, *arrays: Array) -> Array:
        most = DType.of(arrays[0].dtype).limits[1]
        return np.asarray(np.min(arrays[0], axis=self.axes, keepdims=self.keepdims, initial=most))


@dataclass(frozen=True)
class ArgReduceOp(Op):
    """Base of the two ops that give an index along `axis`, as i64: of equal elements the first, or the `last`."""

    axis: int
    keepdims: bool = True
    last: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        result = ReduceMax((self.axis,), self.keepdims).infer(*types)
        return TensorType(DType.I64, result.shape)

    def reduced(self, x: TensorType) -> set[int]:
        """The axis, counted from the front."""
        return {check_axis(self.axis, x)}

    def find(self, choose: Callable[..., Any], x: Array) -> Array:
        """The indices by NumPy's argmax or argmin."""
        if not self.last:
            return np.asarray(choose(x, axis=self.axis, keepdims=self.keepdims))
        reverse = choose(np.flip(x, self.axis), axis=self.axis, keepdims=self.keepdims)
        return np.asarray(x.shape[self.axis] - 1 - reverse)


@dataclass(frozen=True)
class ArgMax(ArgReduceOp):
    """Where the maximum along `axis` lies; a NaN counts as one."""

    name: ClassVar[str] = "arg_max"

    def eval(self, *arrays: Array) -> Array:
        return self.find(np.argmax, arrays[0])


@dataclass(frozen=True)
class ArgMin(ArgReduceOp):
    """Where the minimum along `axis` lies; a NaN counts as one."""

    name: ClassVar[str] = "arg_min"

    def eval(self, *arrays: Array) -> Array:
        return self.find(np.argmin, arrays[0])
