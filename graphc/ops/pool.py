"""Pooling: one value for all cells of a window. Padding never wins a maximum or minimum and adds nothing to a sum."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, ClassVar

import numpy as np

from graphc import ops
from graphc.errors import InputError, ShapeError
from graphc.ir import Array, Builder, DimLike, DType, Op, TensorType, Value, dims
from graphc.ops.checks import check_image, check_inputs
from graphc.ops.derive import divide, full, fused, share_among_equals
from graphc.ops.window import Padding, Pair, Window

NO_CELL = 2**63 - 1  # the index of a maximum where dilation lets a window see padding only


def pooled_type(window: Window, x: TensorType) -> TensorType:
    """[N,C,P,Q] for x [N,C,H,W]; ShapeError if a window could lie in the padding alone."""
    check_image(x)
    for axis, extent in enumerate(window.extent):
        if max(window.padding[axis], window.padding[axis + 2]) >= extent:
            raise ShapeError(f"padding must be less than the window's extent of {extent}, got {window.padding}")
    return x.with_shape(*x.shape[:2], *window.positions(*x.shape[2:]))


@dataclass(frozen=True)
class OrderPool(Op):
    """Base of the pools that select one cell of each window. x [N,C,H,W] -> y [N,C,P,Q]."""

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    @property
    def window(self) -> Window:
        """The cells that each result is selected from."""
        return Window(self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def infer(self, *types: TensorType) -> TensorType | tuple[TensorType, ...]:
        (x,) = check_inputs(types, 1)
        return pooled_type(self.window, x)

    def window_fields(self) -> dict[str, Any]:
        """The window's attributes, for another op over the same windows."""
        return {f.name: getattr(self, f.name) for f in fields(OrderPool)}

    def route(self, b: Builder, x: Value, indices: Value, g: Value) -> Value:
        """The gradient of x, given that of the cells that stand at `indices`."""
        size = x.type.shape[2], x.type.shape[3]
        return b.apply(MaxPoolGradient(**self.window_fields(), size=size), g, indices)


@dataclass(frozen=True)
class MaxPool(OrderPool):
    """y[n,c,p,q] = the largest cell of each window; NaN where a cell is NaN. x [N,C,H,W] -> y [N,C,P,Q]."""

    name: ClassVar[str] = "max_pool"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(self.window.cut(arrays[0], -inf).max(axis=(4, 5)))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [b.apply(MaxPoolRoute(**self.window_fields()), inputs[0], grads[0])]


@dataclass(frozen=True)
class MinPool(OrderPool):
    """y[n,c,p,q] = the smallest cell of each window; NaN where a cell is NaN. x [N,C,H,W] -> y [N,C,P,Q]."""

    name: ClassVar[str] = "min_pool"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(self.window.cut(arrays[0], inf).min(axis=(4, 5)))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        (x,) = inputs
        _, indices = b.add(MaxPoolWithIndices(**self.window_fields()), (b.apply(ops.Neg(), x),))
        return [self.route(b, x, indices, grads[0])]


@dataclass(frozen=True)
class MaxPoolWithIndices(OrderPool):
    """max_pool, and where in x each maximum lies. x [N,C,H,W] -> y [N,C,P,Q], indices i64[N,C,P,Q].

    An index is the position in all of x, flattened row-major (ONNX's MaxPool). Of equal cells the first counts, of
    cells with a NaN the first NaN.
    """

    name: ClassVar[str] = "max_pool_with_indices"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = check_inputs(types, 1)
        y = pooled_type(self.window, x)
        return y, TensorType(DType.I64, y.shape)

    def eval(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        cells = self.window.cut(x, -inf)
        # positions in x, in a window of positions; float64 holds them exactly up to 2^53
        places = self.window.cut(np.arange(x.size, dtype=np.float64).reshape(x.shape), inf)
        y = cells.max(axis=(4, 5))
        wins = (cells == y[..., None, None]) | np.isnan(cells)
        first = np.where(wins, places, inf).min(axis=(4, 5))
        found = np.isfinite(first)
        return y, np.where(found, np.where(found, first, 0).astype(np.int64), NO_CELL)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [self.route(b, inputs[0], outputs[1], grads[0])]


def check_indices(indices: TensorType, expected: tuple[DimLike, ...]) -> None:
    """`indices` are i64 of this shape."""
    if indices.dtype != DType.I64 or indices.rank != 4 or not all(map(dims.same, indices.shape, expected)):
        raise ShapeError(f"indices must be {TensorType(DType.I64, expected)}, got {indices}")


@dataclass(frozen=True)
class MaxPoolGradient(OrderPool):
    """dx is zero, and g[n,c,p,q] is added to dx.flat[indices[n,c,p,q]].

    g [N,C,P,Q] and indices i64[N,C,P,Q], each inside its own window as from max_pool_with_indices (NO_CELL: nowhere)
    -> dx [N,C,H,W] with (H,W) = `size`.
    """

    name: ClassVar[str] = "max_pool_gradient"
    size: tuple[DimLike, DimLike] = field(kw_only=True)

    def infer(self, *types: TensorType) -> TensorType:
        g, indices = check_inputs(types, 2)
        check_image(g)
        x = g.with_shape(*g.shape[:2], *self.size)
        check_indices(indices, pooled_type(self.window, x).shape)
        check_indices(indices, g.shape)
        return x

    def eval(self, *arrays: Array) -> Array:
        g, indices = arrays
        x = np.zeros((*g.shape[:2], *(dims.evaluate(d, {}) for d in self.size)), g.dtype)
        seen = indices != NO_CELL
        np.add.at(x.reshape(-1), indices[seen], g[seen])
        return x

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [b.apply(PickCells(**self.window_fields()), grads[0], inputs[1]), None]


@dataclass(frozen=True)
class MaxPoolRoute(OrderPool):
    """dx is zero, and g[n,c,p,q] is added to the cell of dx at which x has the maximum of the window at p,q.

    x [N,C,H,W] and g [N,C,P,Q] -> dx [N,C,H,W]. Equal cells and NaN as in max_pool_with_indices.
    """

    name: ClassVar[str] = "max_pool_route"

    def infer(self, *types: TensorType) -> TensorType:
        x, g = check_inputs(types, 2)
        y = pooled_type(self.window, x)
        if g.dtype != x.dtype or not all(map(dims.same, g.shape, y.shape)):
            raise ShapeError(f"the gradient must be {y} for x {x}, got {g}")
        return x

    def eval(self, *arrays: Array) -> Array:
        x, g = arrays
        _, indices = MaxPoolWithIndices(**self.window_fields()).eval(x)
        return MaxPoolGradient(**self.window_fields(), size=x.shape[2:]).eval(g, indices)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        _, indices = b.add(MaxPoolWithIndices(**self.window_fields()), (inputs[0],))
        return [None, b.apply(PickCells(**self.window_fields()), grads[0], indices)]


@dataclass(frozen=True)
class PickCells(OrderPool):
    """y[n,c,p,q] = x.flat[indices[n,c,p,q]], 0 where that is NO_CELL.

    x [N,C,H,W] and indices i64[N,C,P,Q], each inside its own window as from max_pool_with_indices -> y [N,C,P,Q].
    """

    name: ClassVar[str] = "pick_cells"

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = check_inputs(types, 2)
        check_image(x)
        check_indices(indices, (*x.shape[:2], *indices.shape[2:]))
        return x.with_shape(*indices.shape)

    def eval(self, *arrays: Array) -> Array:
        x, indices = arrays
        seen = indices != NO_CELL
        return np.where(seen, x.reshape(-1)[np.where(seen, indices, 0)], 0).astype(x.dtype)

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [self.route(b, inputs[0], inputs[1], grads[0]), None]


@dataclass(frozen=True)
class MaxUnpool(Op):
    """y is zero but for y.flat[indices[n,c,p,q]] = x[n,c,p,q]; of equal indices the last counts.

    x [N,C,P,Q] and indices i64[N,C,P,Q] as from max_pool_with_indices -> y [N,C,H,W]. H and W are those of a third
    input [N,C,H,W] if `like`, else (P-1)*stride + kernel - pads: the least that the pool could have seen. Native code
    ignores an index outside y; the reference raises InputError.
    """

    name: ClassVar[str] = "max_unpool"
    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    like: bool = False

    def infer(self, *types: TensorType) -> TensorType:
        x, indices = check_inputs(types, 2 + self.like)[:2]
        check_image(x)
        check_indices(indices, x.shape)
        least = self._unpool(0, x.shape[2]), self._unpool(1, x.shape[3])
        if not self.like:
            if any(isinstance(d, int) and d < 1 for d in least):
                raise ShapeError(
                    f"expected an output of at least 1x1, {x.shape[2]}x{x.shape[3]} windows of "
                    f"{self.kernel} less padding {self.padding} make {least[0]}x{least[1]}"
                )
            return x.with_shape(*x.shape[:2], *least)
        image = types[2]
        if image.rank != 4 or not all(map(dims.same, image.shape[:2], x.shape[:2])):
            raise ShapeError(f"the tensor to take H and W from must be [{x.shape[0]},{x.shape[1]},H,W], got {image}")
        return x.with_shape(*x.shape[:2], *image.shape[2:])

    def _unpool(self, axis: int, count: DimLike) -> DimLike:
        """The least height (axis 0) or width (axis 1) over which the pool has `count` windows."""
        window = Window(self.kernel, self.stride, self.padding)
        before, after = window.padding[axis], window.padding[axis + 2]
        return (count - 1) * window.stride[axis] + (window.kernel[axis] - before - after)

    def eval(self, *arrays: Array) -> Array:
        x, indices = arrays[:2]
        if self.like:
            shape = *x.shape[:2], *arrays[2].shape[2:]
        else:
            shape = *x.shape[:2], *(dims.evaluate(self._unpool(axis, x.shape[2 + axis]), {}) for axis in (0, 1))
        y = np.zeros(shape, x.dtype)
        outside = indices[(indices < 0) | (indices >= y.size)]
        if outside.size:
            raise InputError(f"max_unpool: index {outside[0]} lies outside the output of {y.size} elements")
        y.reshape(-1)[indices.reshape(-1)] = x.reshape(-1)
        return y

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        picked = b.apply(PickCells(self.kernel, self.stride, self.padding), grads[0], inputs[1])
        return [picked, *[None] * (1 + self.like)]


@dataclass(frozen=True)
class SumPool(Op):
    """Base of the pools that add up the cells of each window. x [N,C,H,W] -> y [N,C,P,Q]."""

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    ceil_mode: bool = False

    @property
    def window(self) -> Window:
        """The cells that each result is made of."""
        return Window(self.kernel, self.stride, self.padding, ceil_mode=self.ceil_mode)

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        return pooled_type(self.window, x)


@dataclass(frozen=True)
class MeanPool(SumPool):
    """Base of the average pool and its gradient: the number of cells by which the sum of a window is divided.

    It counts the cells inside the image, with `count_padding` those inside the padded image (never those that
    `ceil_mode` lets hang over it): the rule of PyTorch and ONNX for count_include_pad.
    """

    count_padding: bool = False
    dilation: Pair = (1, 1)

    @property
    def window(self) -> Window:
        """The cells that each result is made of."""
        return Window(self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def window_fields(self) -> dict[str, Any]:
        """The attributes that say which cells count, for another op over the same windows."""
        return {f.name: getattr(self, f.name) for f in fields(MeanPool)}

    def numbers(self, height: int, width: int) -> Array:
        """[P,Q] for an image of this size."""
        return np.asarray(self._cells(0, height)[:, None] * self._cells(1, width))

    def _cells(self, axis: int, size: int) -> Array:
        """How many rows (columns) each window counts."""
        before, after = self.padding[axis], self.padding[axis + 2]
        low, high = (-before, size + after) if self.count_padding else (0, size)
        positions = dims.evaluate(self.window.count(axis, size), {})
        places = (np.arange(positions) * self.stride[axis] - before)[:, None]
        places = places + np.arange(self.kernel[axis]) * self.dilation[axis]
        return np.asarray(((places >= low) & (places < high)).sum(axis=1))


@dataclass(frozen=True)
class AveragePool(MeanPool):
    """y[n,c,p,q] = the sum of a window's cells / their number. x [N,C,H,W] -> y [N,C,P,Q]."""

    name: ClassVar[str] = "average_pool"

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        return np.asarray(self.window.cut(x, 0.0).sum(axis=(4, 5)) / self.numbers(*x.shape[2:]).astype(x.dtype))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        size = inputs[0].type.shape[2], inputs[0].type.shape[3]
        return [b.apply(AveragePoolGradient(**self.window_fields(), size=size), grads[0])]


@dataclass(frozen=True)
class AveragePoolGradient(MeanPool):
    """dx[n,c,h,w] = the sum of g[n,c,p,q] / number over all windows that see the cell (h,w).

    g [N,C,P,Q], the gradient of the result that an average_pool with these attributes has -> dx [N,C,H,W] with
    (H,W) = `size`.
    """

    name: ClassVar[str] = "average_pool_gradient"
    size: tuple[DimLike, DimLike] = field(kw_only=True)

    def infer(self, *types: TensorType) -> TensorType:
        (g,) = check_inputs(types, 1)
        check_image(g)
        x = g.with_shape(*g.shape[:2], *self.size)
        expected = pooled_type(self.window, x)
        if not all(map(dims.same, g.shape, expected.shape)):
            raise ShapeError(f"the gradient must be {expected} for an image {x}, got {g}")
        return x

    def eval(self, *arrays: Array) -> Array:
        (g,) = arrays
        (h, w), (sh, sw), (top, left) = (dims.evaluate(d, {}) for d in self.size), self.stride, self.padding[:2]
        (p, q), (dh, dw), extent = g.shape[2:], self.dilation, self.window.extent
        share = g / self.numbers(h, w).astype(g.dtype)
        rows, columns = (p - 1) * sh + extent[0], (q - 1) * sw + extent[1]
        padded = np.zeros((*g.shape[:2], max(rows, top + h), max(columns, left + w)), g.dtype)
        for r, s in np.ndindex(self.kernel):
            y, x = r * dh, s * dw
            padded[:, :, y : y + (p - 1) * sh + 1 : sh, x : x + (q - 1) * sw + 1 : sw] += share
        return padded[:, :, top : top + h, left : left + w]

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [b.apply(AveragePool(**self.window_fields()), grads[0])]


@dataclass(frozen=True)
class L2Pool(SumPool):
    """y[n,c,p,q] = sqrt(the sum of the squares of a window's cells). x [N,C,H,W] -> y [N,C,P,Q]."""

    name: ClassVar[str] = "l2_pool"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.sqrt(np.square(self.window.cut(arrays[0], 0.0)).sum(axis=(4, 5))))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """x * the sum of g/y over the windows, that is of their average times the number of cells; 0 where y is 0."""
        (x,), (y,), (g,) = inputs, outputs, grads
        size = x.type.shape[2], x.type.shape[3]
        root = b.apply(self, full(b, 1.0, x.type.with_shape(1, 1, *size)))  # of the number of cells in the image
        slope = fused(b, "select(gt(x1, 0.0), (((x0 / x1) * x2) * x2), 0.0)", g, y, root)
        spread = AveragePoolGradient(self.kernel, self.stride, self.padding, self.ceil_mode, size=size)
        return [b.apply(ops.Mul(), x, b.apply(spread, slope))]


@dataclass(frozen=True)
class ChannelL2Pool(Op):
    """y[n,k,h,w] = sqrt(the sum over c < size of x[n, k*stride+c, h, w]^2). x [N,C,H,W] -> y [N,K,H,W].

    K = (C-size)//stride + 1. It makes features invariant when neighbouring maps are (Kavukcuoglu et al. 2009).
    """

    name: ClassVar[str] = "channel_l2_pool"
    size: int
    stride: int

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        channels = check_image(x)
        if self.size < 1 or self.stride < 1:
            raise ShapeError(f"size and stride must be at least 1, got {self.size} and {self.stride}")
        if self.size > channels:
            raise ShapeError(f"expected at least {self.size} channels, got {x}")
        return x.with_shape(x.shape[0], (channels - self.size) // self.stride + 1, *x.shape[2:])

    def eval(self, *arrays: Array) -> Array:
        view = np.lib.stride_tricks.sliding_window_view(arrays[0], self.size, axis=1)[:, :: self.stride]
        return np.asarray(np.sqrt(np.square(view).sum(axis=4)))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        """x * the sum of g/y over the groups, a 1x1 convolution with ones where a channel belongs to a group."""
        (x,), (y,), (g,) = inputs, outputs, grads
        first = np.arange(check_image(y.type)) * self.stride
        distance = np.arange(check_image(x.type))[:, None] - first
        member = b.constant(((distance >= 0) & (distance < self.size)).astype(x.type.dtype.numpy)[:, :, None, None])
        slope = fused(b, "select(gt(x1, 0.0), (x0 / x1), 0.0)", g, y)
        return [b.apply(ops.Mul(), x, b.apply(ops.Conv2d(bias=False), slope, member))]


@dataclass(frozen=True)
class GlobalAveragePool(Op):
    """y[n,c,0,0] = the mean of channel c. x [N,C,H,W] -> y [N,C,1,1]."""

    name: ClassVar[str] = "global_average_pool"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        check_image(x)
        return x.with_shape(*x.shape[:2], 1, 1)

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0].mean(axis=(2, 3), keepdims=True))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        shape = inputs[0].type.shape
        return [b.apply(ops.Expand(shape), divide(b, grads[0], shape[2] * shape[3]))]


@dataclass(frozen=True)
class GlobalMaxPool(Op):
    """y[n,c,0,0] = the largest element of channel c; NaN if there is one. x [N,C,H,W] -> y [N,C,1,1]."""

    name: ClassVar[str] = "global_max_pool"

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = check_inputs(types, 1)
        check_image(x)
        return x.with_shape(*x.shape[:2], 1, 1)

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0].max(axis=(2, 3), keepdims=True))

    def vjp(
        self, b: Builder, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value]
    ) -> Sequence[Value | None]:
        return [share_among_equals(b, inputs[0], outputs[0], grads[0], (2, 3))]
