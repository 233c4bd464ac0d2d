"""Ops whose elements are chosen by indices that are data: gathers, scatters, and the indices themselves.

An index is an i32 or i64 from -d to d-1 into a dim of d elements; below 0 it counts from the end. One that lies outside
is an InputError in the reference. Native code reads and writes nothing there: a gather gives NaN (0 for integers, f16
and bf16, False), a scatter leaves the element as it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graphc.errors import InputError, ShapeError
from graphc.ir import Array, DimLike, DType, Op, TensorType, dims
from graphc.ops.checks import check_inputs
from graphc.ops.shape import check_axis

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


def check_indices(t: TensorType) -> TensorType:
    """`t`, if its elements can be indices."""
    if t.dtype not in (DType.I32, DType.I64):
        raise ShapeError(f"indices must be i32 or i64, got {t}")
    return t


def wrap(name: str, indices: Array, length: int) -> Array:
    """The indices counted from the front; InputError if one lies outside a dim of this length."""
    outside = indices[(indices < -length) | (indices >= length)]
    if outside.size:
        raise InputError(f"{name}: indices must lie from {-length} to {length - 1}, got {outside.flat[0]}")
    return np.where(indices < 0, indices + length, indices)


def fits(d: DimLike, into: DimLike) -> bool:
    """Whether a dim is at most another one: of symbolic ones, whether they are equal."""
    return d <= into if isinstance(d, int) and isinstance(into, int) else dims.same(d, into)


@dataclass(frozen=True)
class Positions(Op):
    """0, 1, 2, ... as i64, as many as dim `axis` of x is long. x of any type -> i64[d]."""

    name: ClassVar[str] = "positions"
    takes_empty: ClassVar[bool] = True
    axis: int = -1

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        return TensorType(DType.I64, (x.shape[check_axis(self.axis, x)],))

    def eval(self, *arrays: Array) -> Array:
        return np.arange(arrays[0].shape[self.axis], dtype=np.int64)


@dataclass(frozen=True)
class Gather(Op):
    """The parts of x at `indices` along `axis`: that dim gives way to the dims of the indices (NumPy's take)."""

    name: ClassVar[str] = "gather"
    axis: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = check_inputs(types, 2)
        axis = check_axis(self.axis, x)
        return x.with_shape(*x.shape[:axis], *check_indices(indices).shape, *x.shape[axis + 1 :])

    def eval(self, *arrays: Array) -> Array:
        x, indices = arrays
        return np.asarray(np.take(x, wrap(self.name, indices, x.shape[self.axis]), self.axis))


@dataclass(frozen=True)
class GatherElements(Op):
    """y[i,j,k] = x[i,indices[i,j,k],k] for axis=1, and so on. y has the shape of the indices.

    Beside `axis`, the dims of the indices are at most those of x.
    """

    name: ClassVar[str] = "gather_elements"
    axis: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = check_inputs(types, 2)
        check_elements(self.axis, x, indices)
        return x.with_shape(*indices.shape)

    def eval(self, *arrays: Array) -> Array:
        x, indices = arrays
        return np.asarray(x[place_elements(self.name, self.axis, x, indices)])


def check_elements(axis: int, x: TensorType, indices: TensorType) -> None:
    """The indices choose elements of x along `axis`."""
    axis = check_axis(axis, x)
    sizes = enumerate(zip(check_indices(indices).shape, x.shape, strict=False))
    if indices.rank != x.rank or not all(i == axis or fits(d, e) for i, (d, e) in sizes):
        raise ShapeError(f"expected indices no larger than x {x} beside dim {axis}, got {indices}")


def place_elements(name: str, axis: int, x: Array, indices: Array) -> tuple[Array, ...]:
    """For each of the indices the place in x, as NumPy's indexing wants it."""
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = wrap(name, indices, x.shape[axis])
    return tuple(places)


@dataclass(frozen=True)
class GatherND(Op):
    """y[i,j] = x[indices[i,j,0], indices[i,j,1], ...], the part of x at the place that each row of indices names.

    The last dim m of the indices is constant. x's first `batch_dims` dims are those of the indices too, and the rows
    count in the dims behind. x [b...,d1..dm,rest...], indices [b...,i...,m] -> y [b...,i...,rest...].
    """

    name: ClassVar[str] = "gather_nd"
    batch_dims: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = check_inputs(types, 2)
        m = check_rows(x, indices, self.batch_dims)
        return x.with_shape(*indices.shape[:-1], *x.shape[self.batch_dims + m :])

    def eval(self, *arrays: Array) -> Array:
        x, indices = arrays
        return np.asarray(x[place_rows(self.name, x, indices, self.batch_dims)])


def check_rows(x: TensorType, indices: TensorType, batch_dims: int) -> int:
    """The number of dims of x that a row of the indices counts in."""
    m = check_indices(indices).shape[-1] if indices.rank else 0
    if not isinstance(m, int) or not 1 <= m <= x.rank - batch_dims or not 0 <= batch_dims < indices.rank:
        raise ShapeError(
            f"expected indices [...,m] with constant m for x {x} and batch_dims={batch_dims}, got {indices}"
        )
    if not all(map(dims.same, x.shape[:batch_dims], indices.shape[:batch_dims])):
        raise ShapeError(f"the first {batch_dims} dims of x {x} and of the indices {indices} must be equal")
    return m


def place_rows(name: str, x: Array, indices: Array, batch_dims: int) -> tuple[Array, ...]:
    """For each row of the indices the place in x, as NumPy's indexing wants it."""
    lead: list[Array] = list(np.indices(indices.shape[:-1], sparse=True))[:batch_dims]
    rows = np.moveaxis(indices, -1, 0)
    return *lead, *(wrap(name, i, x.shape[batch_dims + j]) for j, i in enumerate(rows))


@dataclass(frozen=True)
class ScatterOp(Op):
    """Base of the ops that store updates in a copy of x, one after the other in row-major order.

    `reduction` says how: "none" replaces the element (of several updates the last one stays), "add", "mul", "max" and
    "min" combine both.
    """

    reduction: str = "none"

    def check_updates(self, x: TensorType, updates: TensorType, shape: tuple[DimLike, ...]) -> TensorType:
        """x, if the updates are of its dtype and of this shape."""
        expected = x.with_shape(*shape)
        same = updates.rank == len(shape) and all(map(dims.same, updates.shape, shape))
        if updates.dtype != x.dtype or not same:
            raise ShapeError(f"updates must be {expected}, got {updates}")
        if self.reduction not in ("none", *REDUCTIONS):
            raise ShapeError(f"reduction must be none, {', '.join(REDUCTIONS)}, got {self.reduction!r}")
        if self.reduction != "none" and (x.dtype == DType.BOOL or x.dtype.is_half):
            raise ShapeError(f"reduction={self.reduction} wants numbers, got {x}")
        return x

    def store(self, x: Array, place: tuple[Array, ...], updates: Array) -> Array:
        """The copy of x."""
        y = x.copy()
        if self.reduction == "none":
            y[place] = updates
        else:
            REDUCTIONS[self.reduction].at(y, place, updates)  # type: ignore[attr-defined]
        return y


@dataclass(frozen=True)
class ScatterElements(ScatterOp):
    """x with updates[i,j,k] stored at [i,indices[i,j,k],k] for axis=1, and so on. The result has x's type."""

    name: ClassVar[str] = "scatter_elements"
    axis: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        x, indices, updates = check_inputs(types, 3)
        check_elements(self.axis, x, indices)
        return self.check_updates(x, updates, indices.shape)

    def eval(self, *arrays: Array) -> Array:
        x, indices, updates = arrays
        return self.store(x, place_elements(self.name, self.axis, x, indices), updates)


@dataclass(frozen=True)
class ScatterND(ScatterOp):
    """x with updates[i,j,...] stored at x[indices[i,j,0], indices[i,j,1], ...]: one part for each row of the indices.

    x [d1..dm,rest...], indices [i...,m], updates [i...,rest...]; the result has x's type.
    """

    name: ClassVar[str] = "scatter_nd"

    def infer(self, *types: TensorType) -> TensorType:
        x, indices, updates = check_inputs(types, 3)
        m = check_rows(x, indices, 0)
        return self.check_updates(x, updates, (*indices.shape[:-1], *x.shape[m:]))

    def eval(self, *arrays: Array) -> Array:
        x, indices, updates = arrays
        return self.store(x, place_rows(self.name, x, indices, 0), updates)
