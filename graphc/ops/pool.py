"""Pooling: one value for all cells of a window. Padding never wins a maximum or minimum and adds nothing to a sum."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np

from graphc.errors import InputError, ShapeError
from graphc.ir import Array, DimLike, DType, Op, TensorType, dims
from graphc.ops.checks import check_image, check_inputs
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


@dataclass(frozen=True)
class MaxPool(OrderPool):
    """y[n,c,p,q] = the largest cell of each window; NaN where a cell is NaN. x [N,C,H,W] -> y [N,C,P,Q]."""

    name: ClassVar[str] = "max_pool"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(self.window.cut(arrays[0], -inf).max(axis=(4, 5)))


@dataclass(frozen=True)
class MinPool(OrderPool):
    """y[n,c,p,q] = the smallest cell of each window; NaN where a cell is NaN. x [N,C,H,W] -> y [N,C,P,Q]."""

    name: ClassVar[str] = "min_pool"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(self.window.cut(arrays[0], inf).min(axis=(4, 5)))


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
        if indices.dtype != DType.I64 or indices.rank != 4 or not all(map(dims.same, indices.shape, x.shape)):
            raise ShapeError(f"indices must be {TensorType(DType.I64, x.shape)}, got {indices}")
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
class AveragePool(SumPool):
    """y[n,c,p,q] = the sum of a window's cells / their number. x [N,C,H,W] -> y [N,C,P,Q].

    The number counts the cells inside the image, with `count_padding` those inside the padded image (never those that
    `ceil_mode` lets hang over it): the rule of PyTorch and ONNX for count_include_pad.
    """

    name: ClassVar[str] = "average_pool"
    count_padding: bool = False
    dilation: Pair = (1, 1)

    @property
    def window(self) -> Window:
        """The cells that each result is made of."""
        return Window(self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def eval(self, *arrays: Array) -> Array:
        (x,) = arrays
        number = self._cells(0, x.shape[2])[:, None] * self._cells(1, x.shape[3])
        return np.asarray(self.window.cut(x, 0.0).sum(axis=(4, 5)) / number.astype(x.dtype))

    def _cells(self, axis: int, size: int) -> Array:
        """How many rows (columns) each window counts."""
        before, after = self.padding[axis], self.padding[axis + 2]
        low, high = (-before, size + after) if self.count_padding else (0, size)
        positions = dims.evaluate(self.window.count(axis, size), {})
        places = (np.arange(positions) * self.stride[axis] - before)[:, None]
        places = places + np.arange(self.kernel[axis]) * self.dilation[axis]
        return np.asarray(((places >= low) & (places < high)).sum(axis=1))


@dataclass(frozen=True)
class L2Pool(SumPool):
    """y[n,c,p,q] = sqrt(the sum of the squares of a window's cells). x [N,C,H,W] -> y [N,C,P,Q]."""

    name: ClassVar[str] = "l2_pool"

    def eval(self, *arrays: Array) -> Array:
        return np.asarray(np.sqrt(np.square(self.window.cut(arrays[0], 0.0)).sum(axis=(4, 5))))


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
